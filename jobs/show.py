r"""Writes a picture of one image with the masks of a run on it.

Reads RUN/manifest/, the image, and RUN/masks/, RUN/predictions/ and RUN/instances/.
Writes the picture of --out.
Submit:
    ray job submit --working-dir . -- \
        python jobs/show.py --run /mnt/shared/voc --id 2007_000032 --out /mnt/shared/shown.png
The flags are those of ``rayseg show``; ``--help`` lists them.
"""

import sys

from rayseg.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("show", sys.argv[1:]))
