"""One walk an image counts what refiners of their own would, one for each value read off."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from rayseg.nets.affinity import AffinityNet
from rayseg.nets.irnet import IRNet
from rayseg.records import Seeds
from rayseg.refine import IRNetRefinement, PSARefinement
from rayseg.stages import MaskTrial, TrialImage, WalkTrial

SIZE = 56, 76
READ_OFF = {
    IRNetRefinement: {"log_steps": [0, 7, 3], "background_threshold": [0.1, 0.45, 0.8]},
    PSARefinement: {"log_steps": [5, 0, 2]},
}
GIVEN = {
    IRNetRefinement: {"precision": "fp32"},
    # small images have no other pairs, and features that have learnt nothing differ little
    PSARefinement: {"precision": "fp32", "borders": "clipped", "beta": 400.0},
}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {
        IRNetRefinement: IRNet("mobilenet_v2").eval(),
        PSARefinement: AffinityNet("mobilenet_v2", 8).eval(),
    }


def image(classes=(1, 0)):
    """Two blobs as maps, the rectangles around them as truth."""
    rng, truth = np.random.default_rng(0), np.zeros(SIZE, np.uint8)
    truth[4:30, 8:30], truth[24:50, 40:70], truth[:2] = 2, 1, 255
    rows, columns = np.mgrid[: SIZE[0] // 4, : SIZE[1] // 4]
    maps = [
        (1 - np.hypot(rows - y, columns - x) / 15).clip(0, 1).astype(np.float32)
        for y, x in ((4, 5), (9, 14))[: len(classes)]
    ]
    stacked = np.array(maps, np.float32).reshape(len(classes), SIZE[0] // 4, SIZE[1] // 4)
    pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    return TrialImage("a", pixels, classes, truth, Seeds("a", classes, stacked, SIZE))


def trial_of(refiner, network):
    """The trial, and a prepared refiner of its own for each value that it reads off."""
    off = READ_OFF[type(refiner)]
    read = [dict(zip(off, combined, strict=True)) for combined in product(*off.values())]
    variants = [replace(refiner, **one) for one in read]
    trial = WalkTrial(refiner.prepare(network), variants, read, 2)
    return trial, [one.prepare(network) for one in variants]


@pytest.mark.parametrize("kind", READ_OFF)
@pytest.mark.parametrize("max_pixels", [4_000_000, 3000])
@pytest.mark.parametrize("classes", [(1, 0), (1,), ()])
def test_each_value_counts_as_a_refiner_of_its_own(networks, kind, max_pixels, classes):
    refiner = kind(**GIVEN[kind], max_pixels=max_pixels)
    trial, alone = trial_of(refiner, networks[kind])
    counts = trial.count(image(classes))
    assert counts.shape == trial.zeros().shape
    singles = [MaskTrial(one, 2) for one in alone]
    for own, single in zip(counts, singles, strict=True):
        assert np.array_equal(own, single.count(image(classes)))
    figures = trial.figures(counts + trial.zeros())
    for figure, read, own, single in zip(figures, trial.read, counts, singles, strict=True):
        assert figure == read | single.figures(own)[0]
    if len(classes) > 1:
        assert len({own.tobytes() for own in counts}) > 2  # the values matter


@pytest.mark.parametrize("kind", READ_OFF)
def test_the_network_is_called_once_an_image(networks, kind):
    trial, alone = trial_of(kind(**GIVEN[kind]), networks[kind])
    calls = []
    hook = networks[kind].trunk[0].register_forward_pre_hook(lambda *given: calls.append(1))
    try:
        trial.count(image())
        assert len(calls) == 1
        for one in alone:
            MaskTrial(one, 2).count(image())
        assert len(calls) == 1 + len(alone)
    finally:
        hook.remove()


@pytest.mark.parametrize("kind", READ_OFF)
def test_a_variant_that_no_walk_of_the_refiner_has_is_refused(networks, kind):
    refiner = kind(**GIVEN[kind])
    trial = WalkTrial(refiner.prepare(networks[kind]), [replace(refiner, beta=3.0)], [{}], 2)
    with pytest.raises(ValueError, match="variants must differ in log_steps"):
        trial.count(image())


def test_an_image_without_maps_is_refused(networks):
    trial, _ = trial_of(PSARefinement(precision="fp32"), networks[PSARefinement])
    with pytest.raises(ValueError, match="image 'a' must come with stored maps, got none"):
        trial.count(replace(image(), seeds=None))
