r"""Trains IRNet, which finds class boundaries, on masks with ignored pixels.

Reads RUN/manifest/, the images that it names, RUN/masks/NAME/.
Writes RUN/irnet/NAME/: irnet.safetensors; loss curve and share of pairs in run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_irnet.py --run /mnt/shared/voc --labels advcam+label_crf
The flags are those of ``rayseg train-irnet``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-irnet", sys.argv[1:]))
