"""Refiner irnet_instances against the same inference put together by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from rayseg.nets.inputs import normalise
from rayseg.nets.irnet import IRNet
from rayseg.records.boxes import mask_extent
from rayseg.records.rle import decode_mask
from rayseg.refine import REFINERS
from rayseg.refine.learned_instances import IRNetInstances
from rayseg.refine.tag_instances import TagInstances
from rayseg.refine.walk import EdgeWalk
from tests.reference import tag_instances_literal as literal

EXACT = {"precision": "fp32", "log_steps": 4}


@pytest.fixture(scope="module")
def network():
    """An IRNet before its first step whose displacements part the image."""
    torch.manual_seed(0)
    made = IRNet("mobilenet_v2").eval()
    made.displacement_head.last.weight.data *= 4
    return made


def scene(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width]
    blobs = [np.hypot(rows - height * a, columns - width * a) for a in (0.3, 0.7)]
    maps = np.stack([(1 - blob / min(height, width)).clip(0, 1) for blob in blobs])
    return image, maps.astype(np.float32)


def by_hand(network, image, maps):
    """What the grouping takes: maps on cells, edges of both images, displacements of the image."""
    pixels = normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
    with torch.no_grad():
        logits, displacements = network(pixels)
        mirrored, _ = network(pixels.flip(3))
    edges = (logits[0, 0] / 2 + mirrored[0, 0].flip(1) / 2).sigmoid()
    cells = functional.interpolate(
        torch.from_numpy(maps)[None], scale_factor=0.25, mode="bilinear", align_corners=False
    )[0]
    return cells, edges, displacements[0]


def test_objects_are_those_of_the_grouping_by_hand(network):
    size = (96, 128)
    image, maps = scene(*size)
    refiner = IRNetInstances(
        cam_power=1.5, background_threshold=0.3, weak_displacement=2.6, rounds=50,
        fragment_share=0.02, beta=6.0, radius=4, **EXACT,
    )  # fmt: skip
    cells, edges, displacements = by_hand(network, image, maps)
    how = TagInstances(
        walk=EdgeWalk(radius=4, beta=6, log_steps=4), rounds=50, weak_displacement=2.6,
        background=0.3, fragment_share=0.02,
    )  # fmt: skip
    expected = how(cells**1.5, (7, 2), edges, displacements, size)
    found = refiner.prepare(network).find(image, maps, (7, 2))
    assert len(found.masks) > 2
    assert found.classes.tolist() == expected.classes.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
    for own, other in zip(found.masks, expected.masks, strict=True):
        assert (decode_mask(own, size) != decode_mask(other, size)).mean() < 1e-3


def test_objects_are_the_literal_ones(network):
    image, maps = scene(48, 64, 1)
    cells, edges, displacements = (one.double().numpy() for one in by_hand(network, image, maps))
    refiner = IRNetInstances(**EXACT)
    found = refiner.prepare(network).find(image, maps, (7, 2))
    how = TagInstances(walk=EdgeWalk(log_steps=4))
    expected = literal.instances(cells, (7, 2), edges, displacements, (48, 64), how)
    assert found.classes.tolist() == [index for index, *_ in expected]
    np.testing.assert_allclose(found.scores, [score for _, score, _ in expected], rtol=1e-3)
    areas = [decode_mask(counts, (48, 64)).sum() for counts in found.masks]
    np.testing.assert_allclose(areas, [len(part) for *_, part in expected], atol=3)


@pytest.mark.parametrize("size", [(96, 128), (61, 45)])
def test_labels_are_of_all_objects_and_of_fragments(network, size):
    image, maps = scene(*size)
    prepared = IRNetInstances(fragment_share=0.2, **EXACT).prepare(network)
    found = prepared.find(image, maps, [7, 2])
    assert 0 in found.scores  # a fragment
    assert found.scored().scores.min(initial=1) > 0
    expected = np.zeros(size, np.uint8)
    for index, counts in zip(found.classes, found.masks, strict=True):
        expected[decode_mask(counts, size)] = index + 1
    assert np.array_equal(prepared(image, maps, [7, 2]), expected)


def test_a_large_image_has_the_objects_of_a_smaller_one(network):
    image, maps = scene(96, 128)
    small = IRNetInstances(max_pixels=48 * 64, **EXACT).prepare(network)
    found = small.find(image, maps, [7, 2])
    seen, planes = small.given(image, maps)
    assert seen.shape[2:] == (48, 64)
    with torch.no_grad():
        expected = small.refiner.objects(network, seen, planes, [7, 2])
    assert len(found.masks) == len(expected.masks) > 0
    for box, own, other in zip(found.boxes_xyxy, found.masks, expected.masks, strict=True):
        mask = decode_mask(own, (96, 128))
        assert np.array_equal(mask, decode_mask(other, (48, 64)).repeat(2, 0).repeat(2, 1))
        assert np.array_equal(box, mask_extent(mask))
    assert found.scores.tolist() == expected.scores.tolist()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 19)])
def test_small_images_pass(network, size):
    image, maps = scene(*size)
    for counts in IRNetInstances(**EXACT).prepare(network).find(image, maps, [7, 2]).masks:
        assert decode_mask(counts, size).any()


def test_maps_of_zeros_and_no_map_have_no_object(network):
    image, maps = scene(40, 40)
    prepared = IRNetInstances(**EXACT).prepare(network)
    for given, classes in ((0 * maps, [7, 2]), (maps[:0], [])):
        found = prepared.find(image, given, classes)
        assert found.boxes_xyxy.shape == (0, 4)
        assert found.columns()["foreground"] == []
        assert not prepared(image, given, classes).any()


def test_presets_have_the_exponent_of_the_method_and_the_authors_background():
    assert REFINERS["irnet_instances"] is IRNetInstances
    assert IRNetInstances.official("rib") == IRNetInstances(cam_power=1.3)
    own = IRNetInstances()
    assert (own.rounds, own.weak_displacement, own.fragment_share) == (300, 2.5, 0.01)
    assert own.background_threshold == 0.25
    with pytest.raises(ValueError, match="no official walk for 'ficklenet'"):
        IRNetInstances.official("ficklenet")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rounds": -1}, "rounds must not be negative"),
        ({"weak_displacement": 0}, "weak_displacement be positive"),
        ({"fragment_share": 1.5}, r"fragment_share in \[0, 1\]"),
        ({"background_threshold": 1.0}, r"background must lie in \[0, 1\)"),
        ({"cam_power": 0}, "cam_power must be positive"),
    ],
)
def test_values_that_make_no_sense_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        replace(IRNetInstances(), **changed)
