"""Trials count what a plain run would, for every value that is read off."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rayseg.attribution import CAM, RIB, AdvCAM
from rayseg.datasets.base import write_mask
from rayseg.nets.classifier import CamClassifier
from rayseg.records import IGNORE, Sample, Seeds
from rayseg.records.rle import encode_mask
from rayseg.refine import BoxThreshold, Threshold
from rayseg.scores import ThresholdSweep
from rayseg.stages import (
    MaskTrial,
    ObjectTrial,
    SeedTrial,
    TrialImage,
    TrueObjects,
    boxed_image,
    enlarge,
    lengthened,
)
from rayseg.store import MAP_STRIDE, Folder, write_manifest

THRESHOLDS = (0.1, 0.3, 0.5)
ADVCAM = AdvCAM(scales=(1.0,), precision="fp32")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CamClassifier("resnet18", 2).eval()


def image(id_="a", classes=(1,), **changed):
    rng = np.random.default_rng(len(id_))
    truth = np.zeros((32, 48), np.uint8)
    truth[8:24, 8:30] = 2
    pixels = rng.integers(0, 256, (32, 48, 3), np.uint8)
    return TrialImage(id_, pixels, classes, truth, **changed)


def test_each_number_of_steps_counts_as_a_run_of_its_own(network):
    one = image(classes=(1, 0))
    longest = replace(ADVCAM, num_steps=4)
    trial = SeedTrial(longest, longest.prepare(network), (1, 2, 4), THRESHOLDS, 2)
    counts = trial.count(one)
    for own, steps in zip(counts, (1, 2, 4), strict=True):
        alone = replace(ADVCAM, num_steps=steps)
        (found,) = alone.run(
            network, torch.from_numpy(one.pixels)[None], [one.classes], MAP_STRIDE, ["a"]
        )
        full = enlarge(Seeds("a", one.classes, found.maps.numpy().clip(0, 1), (32, 48)))
        expected = ThresholdSweep.of(one.truth, full, one.classes, 2, THRESHOLDS)
        assert np.array_equal(own, expected.counts)
    figures = trial.figures(counts + trial.zeros())
    assert [figure["num_steps"] for figure in figures] == [1, 2, 4]
    sweep = ThresholdSweep(THRESHOLDS, counts[2])
    assert figures[2]["miou"] == pytest.approx(sweep.mean_iou().max())
    assert figures[2]["background_threshold"] == sweep.best()


def test_a_method_without_a_course_is_scored_as_it_is(network):
    method = CAM(scales=(1.0,), precision="fp32")
    trial = SeedTrial(method, method.prepare(network), (), THRESHOLDS, 2, over=[0, 2])
    (figure,) = trial.figures(trial.count(image()))
    assert set(figure) == {"background_threshold", "miou"}


@dataclass(frozen=True)
class Diverging(AdvCAM):
    """Comes to no number."""

    def course(self, *arguments):
        raise FloatingPointError("the loss is no number")
        yield


def test_maps_of_no_number_count_as_background(network):
    method = Diverging(scales=(1.0,), num_steps=2)
    trial = SeedTrial(method, method.prepare(network), (1, 2), THRESHOLDS, 2)
    untagged = SeedTrial(ADVCAM, ADVCAM.prepare(network), (1, 2), THRESHOLDS, 2)
    assert np.array_equal(trial.count(image()), untagged.count(image(classes=())))
    assert [f["miou"] for f in trial.figures(trial.zeros())] == [0, 0]


@dataclass(frozen=True)
class DivergingLate(AdvCAM):
    """Comes to no number after its second map."""

    def course(self, *arguments):
        yield from itertools.islice(super().course(*arguments), 2)
        raise FloatingPointError("the loss is no number")


def test_what_precedes_no_number_counts(network):
    late = DivergingLate(scales=(1.0,), num_steps=4, precision="fp32")
    prepared = late.prepare(network)
    first, second, third = SeedTrial(late, prepared, (1, 2, 4), THRESHOLDS, 2).count(image())
    short = replace(ADVCAM, num_steps=2)
    expected = SeedTrial(short, prepared, (1, 2), THRESHOLDS, 2).count(image())
    assert np.array_equal([first, second], expected)
    assert np.array_equal(
        third, SeedTrial(short, prepared, (), THRESHOLDS, 2).count(image("a", ()))[0]
    )


def test_each_number_of_steps_of_rib_counts_as_a_run_of_its_own(network):
    rib = RIB(scales=(1.0,), learning_rate=3e-3, num_companions=0, margin=1e9, explosion_share=1.0)
    longest = lengthened(replace(rib, precision="fp32"), (2, 5))
    counts = SeedTrial(longest, longest.prepare(network), (2, 5), THRESHOLDS, 2).count(image())
    for own, steps in zip(counts, (2, 5), strict=True):
        alone = replace(longest, num_steps=steps)
        found = SeedTrial(alone, alone.prepare(network), (), THRESHOLDS, 2).count(image())
        assert np.array_equal(own, found[0])
    assert lengthened(rib, ()) == rib
    assert lengthened(replace(rib, power=0.0), (2, 5)).decay_steps == 0


def test_a_refiner_is_judged_on_stored_maps():
    maps = np.zeros((1, 8, 12), np.float32)
    maps[0, 2:6, 2:8] = 1
    stored = Seeds("a", (1,), maps, (32, 48))
    trial = MaskTrial(Threshold(0.5), 2)
    (figure,) = trial.figures(trial.count(image(seeds=stored)))
    assert 0.5 < figure["miou"] <= 1
    with pytest.raises(ValueError, match="image 'a' must come with stored maps, got none"):
        trial.count(image())


class Finder:
    """Stands in for a prepared BBAM: its map is 0.6 in the box."""

    def run(self, detector, pixels, objects, ids):
        assert detector == "detector"
        grid = torch.zeros(32, 48)
        grid[8:24, 8:30] = 0.6
        return [[type("Found", (), {"grid": grid})() for _ in objects[0].classes]]


def test_objects_are_judged_for_every_refiner_and_unknown_classes_left_out():
    mask = np.zeros((32, 48), bool)
    mask[8:24, 8:30] = True
    boxes = np.array([[8, 8, 30, 24], [0, 0, 9, 9]], np.float32)
    one = image(boxes_xyxy=boxes, box_classes=(1, 0), masks=(mask, ~mask))
    refiners = [BoxThreshold(foreground=t, background=0.1, crf=False) for t in (0.5, 0.7)]
    read = [{"t": 0.5}, {"t": 0.7}]
    trial = ObjectTrial(Finder(), "detector", [None, 4], refiners, read)
    counts = trial.count(one)
    assert counts[:, 1].tolist() == [1, 1]
    first, second = trial.figures(2 * counts)
    assert first == {"t": 0.5, "object_iou": pytest.approx(1)}
    assert second["object_iou"] == 0


def test_what_a_labelled_truth_ignores_counts_for_no_object(tmp_path):
    mask, border = np.zeros((2, 32, 48), bool)
    mask[8:24, 8:26], border[8:24, 26:30] = True, True
    write_mask(tmp_path / "a.png", np.where(border, IGNORE, mask.astype(np.uint8)))
    boxes = np.array([[8, 8, 30, 24]], np.float32)
    sample = Sample(
        "a", "a.jpg", 32, 48, (0,), boxes, np.zeros(1, np.int64),
        mask_path=str(tmp_path / "a.png"), true_masks=(encode_mask(mask),),
    )  # fmt: skip
    write_manifest(Folder(str(tmp_path)), [sample], ["x"])
    row = {
        "id": "a", "status": "", "height": 32, "width": 48, "classes": [0],
        "pixels": image().pixels.tobytes(), "boxes_xyxy": boxes.tolist(), "box_classes": [0],
    }  # fmt: skip
    one = boxed_image(row, TrueObjects(Folder(str(tmp_path))))
    refiner = BoxThreshold(foreground=0.5, background=0.1, crf=False)
    trial = ObjectTrial(Finder(), "detector", [4], [refiner], [{}])
    assert trial.figures(trial.count(one)) == [{"object_iou": 1}]
