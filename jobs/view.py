r"""Serves a page of all images of a run, with its masks on them, until Ctrl-C.

Reads RUN/ and the images; writes nothing. The page is served on the loopback interface of the
machine that the job runs on: from another one, `ssh -L 8123:127.0.0.1:8123 THAT-MACHINE` first.
Submit:
    ray job submit --working-dir . -- \
        python jobs/view.py --run /mnt/shared/voc --port 8123
The flags are those of ``rayseg view``; ``--help`` lists them.
"""

import sys

from rayseg.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("view", sys.argv[1:]))
