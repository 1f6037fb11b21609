r"""Says what a cluster has, what a run needs there and how long it will take.

Reads the data set, the weights that are named; writes RUN/manifest/, and RUN/calibration/ for as
long as it measures.
Submit:
    ray job submit --working-dir . -- \
        python jobs/doctor.py --run /mnt/shared/voc --data voc --voc.root /mnt/VOC2012 --estimate
The flags are those of ``rayseg doctor``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("doctor", sys.argv[1:]))
