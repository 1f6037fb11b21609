r"""Trains a segmenter by DSRG: its labels grow from seeds, or from masks of few pixels.

Reads RUN/manifest/, the images that it names, and RUN/seeds/<method>/ or RUN/masks/<name>/.
Writes RUN/segmenters/<labels>+dsrg/: segmenter.safetensors; run.json with loss and val mIoU.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_dsrg.py --run /mnt/shared/voc --labels advcam
The flags are those of ``rayseg train-dsrg``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-dsrg", sys.argv[1:]))
