"""What the one screen of each job's help shows: the flags that people use, and examples."""

from dataclasses import dataclass

from rayseg.config.flags import groups_of
from rayseg.networks import NETWORKS


@dataclass(frozen=True)
class Page:
    """One screen of help.

    Attributes:
        flags: those that people use, without their dashes.
        examples: whole commands.
    """

    flags: tuple[str, ...]
    examples: tuple[str, ...]


_WHERE = ("run",)
_DATA = (
    "data", "folder.images", "folder.tags", "folder.boxes", "folder.masks", "voc.root",
    "coco.images", "coco.annotations",
)  # fmt: skip
_HOW = ("compute.actors", "compute.num-gpus", "engine", "address")
_MINE = "--data folder --folder.images photos --folder.tags tags.csv"


_LENGTHS = {
    "detector": ("kind", "iterations"), "segmenter": ("network", "iterations"),
    "dsrg": ("iterations",), "mask_rcnn": ("iterations",),
}  # fmt: skip
"""Settings of a training beside those that all have; of the others, epochs."""
_LABELS = {
    "irnet": "advcam+label_crf", "affinity": "advcam+affinity_labels",
    "segmenter": "advcam+label_crf", "dsrg": "advcam", "mask_rcnn": "bbam+box_crf",
}  # fmt: skip
"""What a network by labels learns from in its example."""


def _training(kind: str) -> Page:
    """The page of a training; its settings have a prefix of their own."""
    network = NETWORKS[kind]
    (prefix,) = (
        name for name, group in groups_of(network.job).items() if "trunk" in group["flags"]
    )
    settings = ("trunk", "weights", *_LENGTHS.get(kind, ("epochs",)), "batch-size", "schedule.lr")
    own = tuple(f"{prefix}.{name}" for name in settings)
    labels = ("labels",) if network.by_labels else ()
    flags = (*_WHERE, *labels, "train-split", "val-split", *own, "compute.workers", *_HOW[1:])
    learns = f" --labels {_LABELS[kind]}" if labels else ""
    command = f"rayseg {network.job} --run runs/mine{learns}"
    return Page(flags, (command, f"{command} --{prefix}.weights none"))


PAGES: dict[str, Page] = {
    "prepare": Page(
        (*_WHERE, *_DATA, "voc.splits", "synthetic.count"),
        (f"rayseg prepare --run runs/mine {_MINE}",
         "rayseg prepare --run runs/voc --data voc --voc.root VOCdevkit/VOC2012"),
    ),
    **{network.job: _training(kind) for kind, network in NETWORKS.items()},
    "make-seeds": Page(
        (*_WHERE, "methods", "split", "ids", "weights", "advcam.num-steps", "advcam.scales",
         "compute.retry-failed", *_HOW),
        ("rayseg make-seeds --run runs/mine --methods cam advcam",
         "rayseg make-seeds --run runs/mine --methods advcam --advcam.num-steps 10"),
    ),
    "refine-seeds": Page(
        (*_WHERE, "methods", "refiners", "thresholds.cam", "thresholds.advcam", "saliency-maps",
         "compute.retry-failed", "engine", "address"),
        ("rayseg refine-seeds --run runs/mine --methods advcam --refiners label_crf",
         "rayseg refine-seeds --run runs/mine --methods cam --thresholds.cam 0.4 0.2"),
    ),
    "predict": Page(
        (*_WHERE, "labels", "val-split", "crf", "predict.scales", "predict.flip", *_HOW),
        ("rayseg predict --run runs/mine --labels advcam+label_crf --crf",),
    ),
    "make-box-maps": Page(
        (*_WHERE, "box-methods", "boxes", "min-score", "split", "ids", "detector-weights",
         "bbam.steps", "bbam.region", *_HOW),
        ("rayseg make-box-maps --run runs/boxes --box-methods bbam",
         "rayseg make-box-maps --run runs/boxes --detector-weights yolox_nano.onnx"),
    ),
    "make-box-masks": Page(
        (*_WHERE, "box-methods", "box-refiners", "proposals", "semantic-masks.keep-nested",
         "compute.retry-failed", "engine", "address"),
        ("rayseg make-box-masks --run runs/boxes --box-refiners box_crf",
         "rayseg make-box-masks --run runs/boxes --proposals superpixels"),
    ),
    "predict-instances": Page(
        (*_WHERE, "labels", "val-split", *_HOW),
        ("rayseg predict-instances --run runs/boxes --labels bbam+box_crf",),
    ),
    "analyse-boxes": Page(
        (*_WHERE, "analyses", "split", "ids", "max-images", "detector-weights", *_HOW),
        ("rayseg analyse-boxes --run runs/boxes --analyses heads noise",),
    ),
    "score": Page(
        (*_WHERE, "split", "val-split", "ids", "over", "threshold-step", "engine", "address"),
        ("rayseg score --run runs/mine", "rayseg score --run runs/mine --over cow horse"),
    ),
    "run": Page(
        (*_WHERE, "data", "folder.images", "folder.tags", "voc.root", "supervision", "until",
         "methods", "refiners", "labels", "classifier.trunk", "classifier.weights",
         "classifier.epochs", "compute.actors", "engine", "address"),
        (f"rayseg run --run runs/mine {_MINE} --preset laptop",
         "rayseg run --config mine.toml --until masks --methods advcam"),
    ),
    "tune": Page(
        (*_WHERE, "space", "grid", "search", "samples", "stop-early", "max-images", "split",
         "seeds-of", "sweep", "compute.actors", "address"),
        ("rayseg tune --run runs/voc --space advcam --grid num_steps=5,10 --max-images 40",),
    ),
    "doctor": Page(
        (*_WHERE, "estimate", "images", "price", "data", "folder.images", "folder.tags", "voc.root",
         "supervision", "methods", *_HOW),
        (f"rayseg doctor --run runs/mine {_MINE} --estimate",),
    ),
    "status": Page(_WHERE, ("rayseg status runs/mine", "rayseg status --run s3://bucket/mine")),
    "check": Page(
        (*_WHERE, "repair"),
        ("rayseg check --run runs/mine", "rayseg check --run runs/mine --repair"),
    ),
    "export": Page(
        (*_WHERE, "masks", "format", "out", "split"),
        ("rayseg export --run runs/mine --masks advcam+label_crf --out masks",
         "rayseg export --run runs/mine --masks advcam+label_crf --format coco --out coco"),
    ),
    "show": Page(
        (*_WHERE, "id", "results", "picture"),
        ("rayseg show runs/mine meadow", "rayseg show runs/mine meadow --picture meadow.png"),
    ),
    "view": Page(
        (*_WHERE, "beside", "port"),
        ("rayseg view runs/mine", "rayseg view runs/mine --beside runs/other --port 8123"),
    ),
    "toy-bottleneck": Page((*_WHERE, "toy.seed"), ("rayseg toy-bottleneck --run runs/toy",)),
}  # fmt: skip
"""By job. What it does not show is under `--help-all`."""
