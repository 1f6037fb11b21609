r"""Makes a map of each object in a box, by asking a detector.

Reads RUN/manifest/, the images that it names, RUN/detector/.
Writes RUN/box_maps/METHOD/: Parquet shards, one row an image with its objects; run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/make_box_maps.py --run /mnt/shared/voc --box-methods bbam
The flags are those of ``rayseg make-box-maps``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("make-box-maps", sys.argv[1:]))
