r"""Turns maps of objects into their masks, and into semantic masks.

Reads RUN/manifest/, the images that it names, RUN/box_maps/METHOD/.
Writes RUN/masks/METHOD+REFINER/: Parquet shards, one row an image; run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/make_box_masks.py --run /mnt/shared/voc --proposals superpixels
The flags are those of ``rayseg make-box-masks``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("make-box-masks", sys.argv[1:]))
