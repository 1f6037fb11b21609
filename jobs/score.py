r"""Scores seeds and masks against true masks and writes the report.

Reads RUN/manifest/ and the true masks that it names, RUN/seeds/, RUN/masks/.
Writes RUN/scores.json and RUN/report.html.
Submit:
    ray job submit --working-dir . -- \
        python jobs/score.py --run /mnt/shared/voc --split train
The flags are those of ``rayseg score``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("score", sys.argv[1:]))
