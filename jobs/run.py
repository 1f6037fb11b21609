r"""Prepares, trains, makes seeds, refines and scores, skipping what is done.

Reads what jobs/prepare.py reads.
Writes the whole run folder; see the other jobs.
Submit:
    ray job submit --working-dir . -- \
        python jobs/run.py --run /mnt/shared/voc --data voc --voc.root /mnt/shared/VOC2012
The flags are those of ``rayseg run``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("run", sys.argv[1:]))
