r"""Trains a segmenter on masks, pseudo or true.

Reads RUN/manifest/, the images that it names, RUN/masks/LABELS/ or the true masks that it names.
Writes RUN/segmenters/LABELS/: segmenter.safetensors; run.json with the curves.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_segmenter.py --run /mnt/shared/voc --labels advcam+label_crf truth
The flags are those of ``rayseg train-segmenter``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-segmenter", sys.argv[1:]))
