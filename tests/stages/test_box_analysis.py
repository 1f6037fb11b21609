"""What analyses count of an object equals the functions of box_analysis, applied by hand."""

import json
import zlib

import numpy as np
import pytest
import torch

from rayseg.analyses.boxes import PositionCounts, head_positions, shake_boxes, threshold_ious
from rayseg.attribution import BBAM, Objects, SimpleGrad, enlarge_grid
from rayseg.datasets.base import write_mask
from rayseg.records import IGNORE, Sample
from rayseg.records.rle import encode_mask
from rayseg.refine import BoxThreshold
from rayseg.stages import box_analysis
from rayseg.stages.box_analysis import AnalyseObjects, Variant
from rayseg.stages.true_objects import TrueObjects
from rayseg.store import Folder, write_manifest
from tests.attribution.tiny_detector import TinyDetector

CLASSES = ("aeroplane", "emu", "cat")
ASKED = {"num_jitters": 60, "iou_levels": (0.1,), "precision": "fp32"}
METHOD = BBAM(**ASKED, steps=2, fixed_stride=8, record=True)
REFINER = BoxThreshold(foreground=0.5, crf=False)
SIZE_HW = (36, 40)
BOX = [4.0, 5.0, 30.0, 28.0]
FOUND, MISSED = 0, 2
"""A class that the detector sees in the box, and one that it never sees."""


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    made = TinyDetector(num_classes=3)
    made.class_head.bias.data[MISSED] = -1e3
    monkeypatch.setattr(box_analysis, "load_detector", lambda path, classes: made)
    return made


def pixels():
    return np.random.default_rng(1).integers(0, 256, (*SIZE_HW, 3), np.uint8)


def disc(x, y, radius=8):
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


MASK = disc(17, 16)


@pytest.fixture
def ask(detector, tmp_path):
    """Analyses one image with objects in boxes, of one true mask or an empty one."""

    def run(
        analysis, variants, boxes=(BOX,), classes=None, crowds=(), empty=(), border=None, **changed
    ):
        kinds = [FOUND] * len(boxes) if classes is None else classes
        truth = [encode_mask(MASK & (i not in empty)) for i in range(len(boxes))]
        labels = "" if border is None else str(tmp_path / "labels.png")
        if border is not None:
            write_mask(tmp_path / "labels.png", np.where(border, IGNORE, MASK.astype(np.uint8)))
        sample = Sample(
            "a", "a.png", *SIZE_HW, (), np.array(boxes, np.float32), np.array(kinds, np.int64),
            crowds=crowds, true_masks=tuple(truth), mask_path=labels,
        )  # fmt: skip
        write_manifest(Folder(str(tmp_path)), [sample], CLASSES)
        truths = TrueObjects(Folder(str(tmp_path)))
        stage = AnalyseObjects(analysis, variants, "a.safetensors", CLASSES, (), truths, REFINER)
        row = {
            "id": "a", "status": "", "error": "", "note": "", "height": SIZE_HW[0],
            "width": SIZE_HW[1], "boxes_xyxy": [list(box) for box in boxes], "box_classes": kinds,
            "crowds": list(crowds), "pixels": pixels().tobytes(),
        }  # fmt: skip
        (made,) = stage([row | changed])
        return made

    return run


def told(made):
    assert made["error"] == ""
    return json.loads(made["objects"])


def by_hand(detector, method, box=BOX):
    """What a method says of the object, and its map at the image's size."""
    asked = [Objects(torch.tensor([box]), torch.tensor([FOUND]))]
    ((one,),) = method.run(detector, torch.from_numpy(pixels())[None], asked, ["a"])
    return one, enlarge_grid(one.grid, SIZE_HW).numpy()


def test_heads_have_the_positions_of_their_high_pixels_and_their_losses(ask, detector):
    (found,) = [one["told"] for one in told(ask("heads", [Variant("box", METHOD)]))]
    one, map_ = by_hand(detector, METHOD)
    counts = PositionCounts.of(head_positions(map_, MASK))
    assert counts.pixels > 0
    assert found["box"]["density"] == counts.density.tolist()
    assert (found["box"]["near"], found["box"]["pixels"]) == (counts.near, counts.pixels)
    assert found["box"]["curve"] == one.curve.tolist()


@pytest.mark.parametrize("analysis", ["strides", "methods"])
def test_overlaps_are_those_of_each_variants_map_and_the_boxes_share(ask, detector, analysis):
    methods = {"adaptive": METHOD, "gradient": SimpleGrad(**ASKED)}
    (found,) = told(ask(analysis, [Variant(*pair) for pair in methods.items()]))
    for name, method in methods.items():
        _, map_ = by_hand(detector, method)
        assert found["told"][name] == threshold_ious(map_, MASK).tolist()
    assert found["share"] == pytest.approx(26 * 23 / (36 * 40))


def test_noise_zero_is_no_noise_and_other_noise_is_that_of_the_shaken_box(ask, detector):
    variants = [Variant("+0", METHOD, 0.0), Variant("-0.2", METHOD, -0.2)]
    (found,) = [one["told"] for one in told(ask("noise", variants))]
    generator = np.random.default_rng([0, zlib.crc32(b"a")])
    shaken = shake_boxes(np.array([BOX], np.float32), -0.2, generator)[0].tolist()
    for name, box in (("+0", BOX), ("-0.2", shaken)):
        _, map_ = by_hand(detector, METHOD, box)
        (mask,) = REFINER(pixels(), map_[None], np.array([box], np.float32))
        iou = (mask.foreground & MASK).sum() / (mask.foreground | MASK).sum()
        assert found[name] == iou
    assert found["+0"] != found["-0.2"]


def test_what_a_labelled_truth_ignores_is_left_out_of_each_overlap(ask, detector):
    border = disc(17, 16, 11) & ~MASK
    (plain,), (found,) = (
        told(ask("strides", [Variant("one", METHOD)], border=one)) for one in (None, border)
    )
    _, map_ = by_hand(detector, METHOD)
    assert found["told"]["one"] == threshold_ious(map_, MASK, ~border).tolist()
    assert found["told"]["one"] != plain["told"]["one"]
    (found,) = told(ask("noise", [Variant("+0", METHOD)], border=border))
    (mask,) = REFINER(pixels(), map_[None], np.array([BOX], np.float32))
    made, truth = mask.foreground & ~border, MASK
    assert found["told"]["+0"] == (made & truth).sum() / (made | truth).sum()
    assert made.sum() < mask.foreground.sum()


def test_each_variant_is_asked_of_a_copy_in_its_own_precision(ask, monkeypatch):
    prepared, asked = [], []

    def lean(self, device, precision):
        prepared.append(precision)
        made = plain_lean(self, device, precision)
        made.precision = precision
        return made

    def run(self, detector, images, objects, ids):
        asked.append((self.precision, detector.precision))
        return plain_run(self, detector, images, objects, ids)

    plain_lean, plain_run = TinyDetector.lean, SimpleGrad.run
    monkeypatch.setattr(TinyDetector, "lean", lean)
    monkeypatch.setattr(SimpleGrad, "run", run)
    methods = [SimpleGrad(**ASKED | {"precision": own}) for own in ("bf16", "fp32", "bf16")]
    ask("methods", [Variant(str(i), method) for i, method in enumerate(methods)])
    assert prepared == ["bf16", "fp32"]
    assert asked == [(own, own) for own in ("bf16", "fp32", "bf16")]


def test_an_object_that_the_detector_misses_is_left_out_where_maps_are_compared(ask):
    boxes, classes = [BOX, BOX], [FOUND, MISSED]
    for analysis in ("heads", "strides", "methods"):
        assert len(told(ask(analysis, [Variant("one", METHOD)], boxes, classes))) == 1
    assert len(told(ask("noise", [Variant("+0", METHOD)], boxes, classes))) == 2


@pytest.mark.parametrize("analysis", ["noise", "strides"])
def test_crowds_and_boxes_without_pixels_are_no_objects(ask, analysis):
    boxes = [BOX, [30, 28, 4, 5], BOX, [60, 60, 70, 70]]
    alone = told(ask(analysis, [Variant("+0", METHOD)]))
    assert told(ask(analysis, [Variant("+0", METHOD)], boxes, crowds=(2,))) == alone


@pytest.mark.parametrize("analysis", ["heads", "noise", "methods"])
def test_an_empty_true_mask_costs_its_object_alone(ask, analysis):
    alone = told(ask(analysis, [Variant("+0", METHOD)]))
    assert told(ask(analysis, [Variant("+0", METHOD)], [BOX, BOX], empty=(1,))) == alone


def test_an_object_does_not_depend_on_the_others_of_its_image(ask):
    other = [8.0, 2.0, 36.0, 33.0]
    alone = told(ask("strides", [Variant("one", METHOD)], [BOX]))
    both = told(ask("strides", [Variant("one", METHOD)], [other, BOX]))
    assert both[-1]["told"]["one"] == pytest.approx(alone[0]["told"]["one"])


def test_an_image_that_was_not_read_keeps_its_reason(ask):
    made = ask("heads", [Variant("one", METHOD)], status="error", error="cut short")
    assert (made["status"], made["error"]) == ("error", "cut short")
    assert "objects" not in made


def test_an_image_whose_analysis_fails_says_why(ask, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(BBAM, "run", broken)
    made = ask("heads", [Variant("one", METHOD)])
    assert (made["status"], made["error"]) == ("error", "RuntimeError: out of luck")
