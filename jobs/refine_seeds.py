r"""Turns localization maps into masks by each refiner.

Reads RUN/manifest/, the images that it names, RUN/seeds/METHOD/.
Writes RUN/masks/METHOD+REFINER/: Parquet shards, one mask a row as indexed PNG; run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/refine_seeds.py --run /mnt/shared/voc --methods advcam
The flags are those of ``rayseg refine-seeds``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("refine-seeds", sys.argv[1:]))
