r"""Trains SEAM on the tags of one split.

Reads RUN/manifest/ and the images that it names.
Writes RUN/seam/: seam.safetensors; run.json with the figures of each epoch.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_seam.py --run /mnt/shared/voc --seam-classifier.trunk resnet50
The flags are those of ``rayseg train-seam``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-seam", sys.argv[1:]))
