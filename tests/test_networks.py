import subprocess
import sys

import pytest

from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.networks import NETWORKS

KINDS = list(NETWORKS)


def test_files_folders_and_jobs_are_those_that_runs_have_always_had():
    told = {kind: (one.place, one.file, one.job) for kind, one in NETWORKS.items()}
    assert told == {
        "classifier": ("classifier", "classifier.safetensors", "train-classifier"),
        "ficklenet": ("ficklenet", "ficklenet.safetensors", "train-ficklenet"),
        "irnet": ("irnet", "irnet.safetensors", "train-irnet"),
        "affinity": ("affinity", "affinity.safetensors", "train-affinity"),
        "seam": ("seam", "seam.safetensors", "train-seam"),
        "detector": ("detector", "detector.safetensors", "train-detector"),
        "segmenter": ("segmenters", "segmenter.safetensors", "train-segmenter"),
        "dsrg": ("segmenters", "segmenter.safetensors", "train-dsrg"),
        "mask_rcnn": ("mask_rcnn", "mask_rcnn.safetensors", "train-mask-rcnn"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_named_by_every_loader(kind):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors does not exist"):
        NETWORKS[kind].load("none.safetensors")


@pytest.mark.parametrize("kind", KINDS[1:])
def test_only_the_own_kind_is_opened(kind, tmp_path):
    path = tmp_path / "classifier.safetensors"
    facts = {"trunk": "mobilenet_v2", "stride": 16, "classes": ["cat", "dog"]}
    path.write_bytes(to_safetensors(CamClassifier("mobilenet_v2", 2), facts))
    assert NETWORKS["classifier"].load(str(path), ["cat", "dog"]).head.out_channels == 2
    with pytest.raises(ValueError, match=r"classifier\.safetensors"):
        NETWORKS[kind].load(str(path))


def test_the_list_is_read_without_importing_a_network():
    asked = "import sys, rayseg.networks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    known = {name for name in done.stdout.split() if name.startswith("rayseg.")}
    assert known <= {"rayseg.nets", "rayseg.nets.quick_start", "rayseg.networks"}
