"""Each training on drawn squares of 64 pixels, so small that its steps take no time."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from rayseg.config import TRAIN_CONFIGS
from rayseg.learn import (
    TRAININGS,
    Crops,
    DetectorSGD,
    HalvedAdam,
    JitteredCrops,
    PairCrops,
    PolySGD,
    SegmentationCrops,
    SegmenterSGD,
    StepSGD,
    WarpedImages,
    Worker,
)
from rayseg.networks import NETWORKS
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.records.rle import encode_mask
from rayseg.refine.seeded_growing import SeededGrowing
from rayseg.steps.training import train
from rayseg.store import Folder, claim, write_manifest

ALONE = Worker()
CLASSES = ("green", "red")
COMMON = {
    "trunk": "mobilenet_v2",
    "weights": "none",
    "batch_norm": "frozen",
    "batch_size": 4,
    "precision": "fp32",
    "log_every": 1,
    "save_every": 3,
    "judge_images": 2,
}
TAGS = {"epochs": 3, "iterations": 5, "crops": Crops(crop=48, long_side=(40, 64))}
PAIRS = {"epochs": 3, "iterations": 5, "radius": 3, "schedule": PolySGD(lr=0.01)}
OBJECTS = {
    "channels": 16,
    "width": 32,
    "anchors": (8, 16, 32, 64, 128),
    "min_sides": (64,),
    "test_side": 64,
    "max_side": 96,
    "iterations": 5,
    "schedule": DetectorSGD(lr=0.01, warmup_steps=2),
}
OWN = {
    "classifier": TAGS | {"schedule": PolySGD(lr=0.01)},
    "ficklenet": TAGS | {"stride": 16, "kernel": 5, "schedule": HalvedAdam(lr=1e-4, every=1)},
    "irnet": PAIRS | {"crops": PairCrops(crop=48)},
    "affinity": PAIRS | {"crops": PairCrops(crop=48, jitter=(0.3, 0.3, 0.3, 0.1))},
    "seam": TAGS
    | {
        "trunk": "resnet18",  # features of the other fade, and with them what maps differ by
        "stride": 8,
        "second_scale": 0.9,  # 8 cells a side
        "seed": 2,  # whose first batch is not the easiest of five
        "crops": JitteredCrops(crop=72, long_side=(40, 64)),
        "schedule": PolySGD(lr=0.001),
    },
    "detector": OBJECTS,
    "segmenter": {
        "stride": 16,
        "iterations": 5,
        "accumulate": 2,
        "loss": "cross_entropy",
        "crops": SegmentationCrops(crop=40, scales=(0.75, 1.0)),
        "schedule": SegmenterSGD(lr=0.002),
    },
    "dsrg": {
        "trunk": "resnet18",  # whose features do not fade without weights
        "stride": 16,
        "head_width": 16,
        "cues": (0.35, 0.15),
        "iterations": 5,
        "crops": WarpedImages(side=48),
        "schedule": StepSGD(lr=0.001, drop_factor=0.5, every=3),
        "growing": SeededGrowing(sure_foreground=0.4, sure_background=0.4),
        "seeds": "accumulate",
    },
    "mask_rcnn": OBJECTS,
}


def tiny(kind, /, **changed):
    """The training of that kind, of five steps on ten images: two steps an epoch."""
    return TRAININGS[kind](**COMMON | OWN[kind] | changed)


def scene(folder, number, split="train"):
    """A green (class 0) or red (class 1) square on grey, with its box and its true masks."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(90, 120, (64, 64, 3), np.uint8)
    left, top = rng.integers(0, 34, 2)
    mask = np.zeros((64, 64), bool)
    mask[top : top + 30, left : left + 30] = True
    pixels[mask, 1 - number % 2] = 220
    path, labels = folder / f"i{number:02d}.png", folder / f"m{number:02d}.png"
    Image.fromarray(pixels).save(path)
    labels.write_bytes(encode_labels(mask.astype(np.uint8) * np.uint8(1 + number % 2)))
    box = np.array([[left, top, left + 30, top + 30]], np.float32)
    kind = np.array([number % 2])
    return Sample(
        path.stem, str(path), 64, 64, (number % 2,), box, kind, split, str(labels),
        true_masks=(encode_mask(mask),),
    )  # fmt: skip


def scenes(folder):
    """Ten images of train, three each of val and other."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = ["train"] * 10 + ["val"] * 3 + ["other"] * 3
    return [scene(folder, number, split) for number, split in enumerate(splits)]


def store(run, samples, data="drawn"):
    """Writes the manifest, anew where there is one."""
    manifest = Folder(str(run)) / "manifest"
    manifest.remove()
    claim(manifest, {"data": data})
    write_manifest(manifest, samples, CLASSES)


def job(run, kind, training=None, **changed):
    """The configuration of the job that trains that kind in a run."""
    config = TRAIN_CONFIGS[kind]
    labels = {"labels": ("truth",)} if hasattr(config(), "labels") else {}
    training = training or tiny(kind)
    return config(run=str(run), **{training.field: training} | labels | changed)


def folder_of(run, kind):
    """Of the network."""
    network = NETWORKS[kind]
    place = Folder(str(run)) / network.place
    return place / f"truth{network.ending}" if network.by_labels else place


class Here:
    """An engine that trains in this process.

    Args:
        worker: who trains.
        starts: how often a loop that raises is started, as by Ray.
    """

    def __init__(self, worker=ALONE, starts=1):
        self.worker, self.starts = worker, starts

    def open(self, address, run):
        return nullcontext()

    def collect(self, source, pool, compute, scratch=None):
        yield from pool.make()(source.table.to_pylist())

    def fit(self, loop, work, folder, compute):
        for left in reversed(range(self.starts)):
            try:
                loop(work, self.worker)
                break
            except Exception:
                if not left:
                    raise


class Killed(BaseException):
    """What no training can catch."""


class Recording(Here):
    """Takes the work and leaves it."""

    def fit(self, loop, work, folder, compute):
        self.work = work
        raise Killed


def killed_after(iteration):
    """A worker that dies after the checkpoint at that iteration."""

    def report(facts):
        if facts["iteration"] == iteration:
            raise Killed

    return Worker(report=report)


def trained(run, kind, engine=None, training=None, **changed):
    """Carries out the job; its outcome."""
    return train(kind, job(run, kind, training, **changed), engine or Here())


def without_seconds(entry):
    return {name: entry[name] for name in entry if name != "seconds"}


def weights_of(run, kind):
    return Path(folder_of(run, kind).path(NETWORKS[kind].file)).read_bytes()


def moved(sample):
    """With another tag, and its box a pixel further right."""
    boxes = sample.boxes_xyxy + np.array([1, 0, 1, 0], np.float32)
    return replace(sample, tags=(1 - sample.tags[0],), boxes_xyxy=boxes)
