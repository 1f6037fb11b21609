r"""Analyses maps of objects as section 5.5 of the dissertation does.

Reads RUN/manifest/, the images and true masks that it names, RUN/detector/.
Writes RUN/analyses/NAME/: the table and the picture of each analysis.
Submit:
    ray job submit --working-dir . -- \
        python jobs/analyse_boxes.py --run /mnt/shared/voc --analyses heads strides
The flags are those of ``rayseg analyse-boxes``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("analyse-boxes", sys.argv[1:]))
