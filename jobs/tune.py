r"""Sweeps the settings of a method or refiner on images whose truth is known.

Reads RUN/manifest/, the images and true masks that it names, RUN/classifier/ or what the space
needs. Writes RUN/tuning/SPACE/: what each trial counted, best.toml, table.csv, sensitivity.png.
Submit:
    ray job submit --working-dir . -- \
        python jobs/tune.py --run /mnt/shared/voc --space advcam
The flags are those of ``rayseg tune``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("tune", sys.argv[1:]))
