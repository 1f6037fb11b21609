r"""Trains a Mask R-CNN on masks that were made from boxes, or on true ones.

Reads RUN/manifest/, the images that it names, RUN/masks/NAME/.
Writes RUN/mask_rcnn/NAME/: mask_rcnn.safetensors; loss curve and AP in run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_mask_rcnn.py --run /mnt/shared/voc --labels bbam+box_crf truth
The flags are those of ``rayseg train-mask-rcnn``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-mask-rcnn", sys.argv[1:]))
