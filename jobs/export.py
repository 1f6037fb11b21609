r"""Writes the masks of a run in a foreign format.

Reads RUN/manifest/ and RUN/masks/METHOD+REFINER/.
Writes the folder of --out.
Submit:
    ray job submit --working-dir . -- \
        python jobs/export.py --run /mnt/shared/voc --out /mnt/shared/masks
The flags are those of ``rayseg export``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("export", sys.argv[1:]))
