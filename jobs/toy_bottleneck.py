r"""Shows on digits with marks what a classifier's last layer loses and what RIB brings back.

Reads nothing.
Writes RUN/bottleneck/: bottleneck.png, bottleneck.json, and run.json with the table.
Submit:
    ray job submit --working-dir . -- \
        python jobs/toy_bottleneck.py --run /mnt/shared/toy
The flags are those of ``rayseg toy-bottleneck``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("toy-bottleneck", sys.argv[1:]))
