r"""Says how far a run is, at any time, without disturbing what works on it.

Reads indexes, run.json and what trainings say of themselves in RUN/. Writes nothing.
Submit:
    ray job submit --working-dir . -- \
        python jobs/status.py --run /mnt/shared/voc
The flags are those of ``rayseg status``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("status", sys.argv[1:]))
