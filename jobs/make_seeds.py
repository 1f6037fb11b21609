r"""Makes localization maps of every image by each attribution method.

Reads RUN/manifest/, the images that it names, RUN/classifier/.
Writes RUN/seeds/METHOD/: Parquet shards, one row an image with its status; run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/make_seeds.py --run /mnt/shared/voc --methods advcam
The flags are those of ``rayseg make-seeds``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("make-seeds", sys.argv[1:]))
