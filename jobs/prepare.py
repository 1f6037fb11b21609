r"""Turns a data set into the manifest that every other job starts from.

Reads images, tags and boxes in the layout of VOC, COCO, or a folder with a CSV; or draws scenes.
Writes RUN/manifest/, and RUN/images/ where the reader draws pictures or masks.
Submit:
    ray job submit --working-dir . -- \
        python jobs/prepare.py --run /mnt/shared/voc --data voc --voc.root /mnt/shared/VOC2012
The flags are those of ``rayseg prepare``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("prepare", sys.argv[1:]))
