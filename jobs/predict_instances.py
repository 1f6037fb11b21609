r"""Finds the instances of the val split by each Mask R-CNN.

Reads RUN/manifest/, the images that it names, RUN/mask_rcnn/NAME/.
Writes RUN/instances/NAME/: Parquet shards, one row an image; run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/predict_instances.py --run /mnt/shared/voc
The flags are those of ``rayseg predict-instances``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("predict-instances", sys.argv[1:]))
