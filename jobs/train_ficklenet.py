r"""Trains FickleNet's network on the tags of one split.

Reads RUN/manifest/ and the images that it names.
Writes RUN/ficklenet/: ficklenet.safetensors; run.json with the figures of each epoch.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_ficklenet.py --run /mnt/shared/voc --ficklenet-classifier.epochs 20
The flags are those of ``rayseg train-ficklenet``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-ficklenet", sys.argv[1:]))
