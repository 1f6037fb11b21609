r"""Trains the CAM classifier on the tags of one split, on any number of workers.

Reads RUN/manifest/ and the images that it names.
Writes RUN/classifier/: weights as safetensors, figures by epoch in run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_classifier.py --run /mnt/shared/voc --compute.workers 4
The flags are those of ``rayseg train-classifier``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-classifier", sys.argv[1:]))
