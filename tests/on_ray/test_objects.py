"""Detectors and Mask R-CNNs on Ray Train: bad input left out, a death survived, no NaN saved."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayseg.config import TRAIN_CONFIGS, Compute
from rayseg.labels import ObjectLabels, TrueInstances
from rayseg.learn import (
    STATE,
    DetectorSGD,
    DetectorTraining,
    MaskRCNNTraining,
    Work,
    load_state,
    train,
)
from rayseg.nets.detectors import load_detector
from rayseg.nets.detectors.mask_rcnn import load_mask_rcnn
from rayseg.on_ray.engine import RayEngine
from rayseg.records import Sample
from rayseg.records.rle import encode_mask
from rayseg.steps.training import train as train_on
from rayseg.store import Folder, read_run, write_manifest

ENGINE = RayEngine()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore"),  # Ray Train's own, about its future versions
    pytest.mark.timeout(500),
]
TINY = {
    "trunk": "mobilenet_v2",
    "weights": "none",
    "batch_norm": "frozen",
    "channels": 16,
    "width": 32,
    "anchors": (8, 16, 32, 64, 128),
    "min_sides": (64,),
    "test_side": 64,
    "max_side": 96,
    "iterations": 8,
    "batch_size": 4,
    "schedule": DetectorSGD(lr=0.01, warmup_steps=2),
    "precision": "fp32",
    "log_every": 1,
    "save_every": 3,
}
CLASSES = ("green", "red")


def scene(folder, number):
    """A green (class 0) or red (class 1) square on grey, with its true mask."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(90, 120, (64, 64, 3), np.uint8)
    left, top = rng.integers(0, 34, 2)
    mask = np.zeros((64, 64), bool)
    mask[top : top + 30, left : left + 30] = True
    pixels[mask, 1 - number % 2] = 220
    path = folder / f"i{number:02d}.png"
    Image.fromarray(pixels).save(path)
    box = np.array([[left, top, left + 30, top + 30]], np.float32)
    kind = np.array([number % 2])
    split = "val" if number >= 8 else "train"
    return Sample(
        path.stem, str(path), 64, 64, (number % 2,), box, kind, split,
        true_masks=(encode_mask(mask),),
    )  # fmt: skip


def with_bad(sample, only=False):
    """With a second box that is upside down, or only that."""
    bad = sample.boxes_xyxy[:, [2, 3, 0, 1]]
    boxes = bad if only else np.concatenate([sample.boxes_xyxy, bad])
    classes = np.repeat(sample.box_classes, len(boxes))
    return replace(sample, boxes_xyxy=boxes, box_classes=classes, true_masks=())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """8 train and 3 val images; a train image is no image, one has a bad box too, one only that."""
    folder = tmp_path_factory.mktemp("boxes")
    samples = [scene(folder, number) for number in range(11)]
    samples[1] = with_bad(samples[1])
    samples[2] = with_bad(samples[2], only=True)
    Path(samples[3].path).write_text("<html>")
    write_manifest(Folder(str(folder)) / "manifest", samples, CLASSES)
    return str(folder)


def compute(workers=1, max_failures=0):
    return Compute(workers=workers, threads=1, num_gpus=0, max_failures=max_failures)


def test_two_workers_train_a_detector_without_what_is_bad(run):
    detector = DetectorTraining(**TINY, judge_images=2)
    config = TRAIN_CONFIGS["detector"](run=run, detector=detector, compute=compute(2))
    outcome = train_on("detector", config, ENGINE)
    told = read_run(Folder(run) / "detector")
    assert outcome.left_out == 2
    assert outcome.lines[1].startswith("left out: 2 boxes, such as one of i01: box must have x1 <")
    assert (told["images"], told["images_left_out"], told["left_out"]["count"]) == (7, 1, 2)
    examples = told["left_out"]["examples"]
    assert [one["id"] for one in examples] == ["i01", "i02"]
    assert examples[0]["reason"].startswith("box must have x1 < x2 and y1 < y2, got ")
    assert [entry["iteration"] for entry in told["curve"]] == list(range(1, 9))
    for entry in told["curve"]:
        parts = [value for name, value in entry.items() if name.startswith("loss_")]
        assert sum(parts) == pytest.approx(entry["loss"], rel=1e-5)
    losses = [entry["loss"] for entry in told["curve"]]
    assert losses[-1] < losses[0]
    assert [entry["iteration"] for entry in told["judged"]] == [3, 6, 8]
    assert [entry["images"] for entry in told["judged"]] == [2, 2, 3]  # at last all of val
    assert {"ap", "ap50", "ap75"} <= told["judged"][0].keys()
    weights = Folder(run) / "detector"
    assert load_detector(weights.path("detector.safetensors"), CLASSES).num_classes == 2


@dataclass
class DeadlyLabels:
    """Labels of which one kills its process, once, some reads after the first checkpoint.

    Attributes:
        labels: what is read.
        state: what a checkpoint leaves behind.
        armed: a file that is there until the death; it counts the reads since the checkpoint.
        after: reads between the checkpoint and the death.
    """

    labels: ObjectLabels
    state: str
    armed: str
    after: int

    @property
    def ids(self):
        return self.labels.ids

    def read(self, sample):
        armed = Path(self.armed)
        if Path(self.state).exists() and armed.exists():
            armed.write_text(armed.read_text() + ".")
            if len(armed.read_text()) > self.after:
                armed.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.labels.read(sample)


def fitted(work, folder):
    ENGINE.fit(train, work, folder, compute(max_failures=1))
    return load_state(folder).facts


def test_a_killed_worker_is_survived_with_the_same_losses(run, tmp_path):
    truths = TrueInstances(Folder(run) / "manifest", "train")
    calm, deadly = Folder(str(tmp_path / "calm")), Folder(str(tmp_path / "deadly"))
    armed = tmp_path / "armed"
    armed.touch()
    # true masks are trained on in this way, which the labels are not known to be
    network = MaskRCNNTraining(**TINY, grow=False, mask_loss="plain")
    labels = DeadlyLabels(truths, deadly.path(STATE), str(armed), 6)
    told, again = (
        fitted(Work(run, folder.location, network, source, sorted(truths.ids), CLASSES), folder)
        for folder, source in ((calm, truths), (deadly, labels))
    )
    assert not armed.exists()
    curves = [[entry["loss"] for entry in one["curve"]] for one in (told, again)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert "loss_mask" in told["curve"][0]
    assert {"ap", "ap50", "box_ap50"} <= told["judged"][-1].keys()
    assert load_mask_rcnn(calm.path("mask_rcnn.safetensors"), CLASSES).num_classes == 2
