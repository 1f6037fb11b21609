r"""Trains AffinityNet, PSA's network, on masks with ignored pixels.

Reads RUN/manifest/, the images that it names, RUN/masks/NAME/.
Writes RUN/affinity/NAME/: affinity.safetensors; loss curve and share of pairs in run.json.
Submit:
    ray job submit --working-dir . -- \
        python jobs/train_affinity.py --run /mnt/shared/voc --labels advcam+affinity_labels
The flags are those of ``rayseg train-affinity``; ``--help-all`` lists them.
"""

import sys

from rayseg.cli import run_script

if __name__ == "__main__":
    sys.exit(run_script("train-affinity", sys.argv[1:]))
