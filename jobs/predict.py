r"""Labels the images of one split by segmenters.

Reads RUN/manifest/, the images that it names, RUN/segmenters/LABELS/.
Writes RUN/predictions/LABELS/: Parquet shards, one mask a row as indexed PNG; run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/predict.py --run /mnt/shared/voc --labels advcam+label_crf --crf
The flags are those of ``rayseg predict``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("predict", sys.argv[1:]))
