r"""Trains the detector on the boxes of one split.

Reads RUN/manifest/ and the images that it names.
Writes RUN/detector/: detector.safetensors; loss curve and AP in run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_detector.py --run /mnt/shared/voc
The flags are those of ``rayseg train-detector``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-detector", sys.argv[1:]))
