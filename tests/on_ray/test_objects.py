"""Detectors and Mask R-CNNs on Ray Train: bad input left out, a death survived, no NaN saved."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rayseg.on_ray.objects import (
    ObjectWork,
    _lowered,
    fit_detector,
    fit_mask_rcnn,
    keep_slow_float,
)

from rayseg.config import TRAIN_CONFIGS, Compute
from rayseg.labels import GivenBoxes, ObjectLabels, TrueInstances
from rayseg.learn import DetectorSGD, DetectorTraining, MaskRCNNTraining, ObjectSteps
from rayseg.nets.detectors import load_detector
from rayseg.nets.detectors.mask_rcnn import load_mask_rcnn
from rayseg.on_ray.train import STATE, load_state
from rayseg.records import Sample
from rayseg.records.rle import encode_mask
from rayseg.store import Folder, write_manifest

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore"),  # Ray Train's own, about its future versions
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
    told = fit_detector(config, 0)
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


def test_a_killed_worker_is_survived_with_the_same_losses(run, tmp_path):
    network = MaskRCNNTraining(**TINY, grow=True)
    config = TRAIN_CONFIGS["mask_rcnn"](run=run, mask_rcnn=network, compute=compute(max_failures=1))
    truths = TrueInstances(Folder(run) / "manifest", "train")
    calm, deadly = Folder(str(tmp_path / "calm")), Folder(str(tmp_path / "deadly"))
    told = fit_mask_rcnn(config, calm, truths, 0)
    armed = tmp_path / "armed"
    armed.touch()
    # what true masks are trained with, which the labels are not known to be
    config = replace(config, mask_rcnn=replace(network, grow=False, mask_loss="plain"))
    labels = DeadlyLabels(truths, deadly.path(STATE), str(armed), 6)
    again = fit_mask_rcnn(config, deadly, labels, 0)
    assert not armed.exists()
    curves = [[entry["loss"] for entry in one["curve"]] for one in (told, again)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert "loss_mask" in told["curve"][0]
    assert {"ap", "ap50", "box_ap50"} <= told["judged"][-1].keys()
    assert load_mask_rcnn(calm.path("mask_rcnn.safetensors"), CLASSES).num_classes == 2


def test_a_loss_that_is_no_number_is_told_in_one_line_with_its_images(run, tmp_path):
    steep = DetectorSGD(lr=1e30, warmup_steps=0)
    network = MaskRCNNTraining(**TINY | {"schedule": steep})
    config = TRAIN_CONFIGS["mask_rcnn"](run=run, mask_rcnn=network, compute=compute())
    truths = TrueInstances(Folder(run) / "manifest", "train")
    folder = Folder(str(tmp_path / "steep"))
    with pytest.raises(FloatingPointError) as caught:
        fit_mask_rcnn(config, folder, truths, 0)
    said = str(caught.value)
    assert said.startswith("loss must be finite, got ")
    assert "on images i0" in said
    assert "try a lower mask_rcnn.schedule.lr" in said
    assert "\n" not in said
    assert not load_state(folder).facts


def test_bf16_trains_a_one_stage_detector_on_images_whose_coarsest_level_is_one_cell():
    config = DetectorTraining(**TINY, kind="retinanet")
    work = ObjectWork("", "", GivenBoxes, [], "", config, 1, 0)
    target = {"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]]), "classes": torch.tensor([1])}
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    given = [([image] * 2, [target] * 2, ["a", "b"])] * 8
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        network = work.network(CLASSES).train()
        keep_slow_float(network)
        optimizer = config.schedule.optimizer(network)
        steps = ObjectSteps(config.schedule, 8, dtype)
        found = steps.run(network, optimizer, iter(given), lowered=_lowered(network))
        losses.append([one["loss"] for one in found])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
