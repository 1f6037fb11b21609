r"""Reads every file of a run and says what is damaged.

Reads all of RUN/. With --repair damaged files are renamed, so that the commands that made them make
them again.
Submit:
    ray job submit --working-dir . -- \
        python jobs/check.py --run /mnt/shared/voc --repair
The flags are those of ``rayseg check``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("check", sys.argv[1:]))
