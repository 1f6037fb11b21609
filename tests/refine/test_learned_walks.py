"""Refiners irnet and psa against the dense walk in float64, and on images that are odd."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from rayseg.nets.affinity import AffinityNet
from rayseg.nets.inputs import DEVIATION_RGB, MEAN_RGB
from rayseg.nets.irnet import IRNet
from rayseg.refine.learned_walks import OFFICIAL_WALKS, IRNetRefinement, PSARefinement
from rayseg.store import VIEW_STRIDES
from tests.reference import walk_literal

EXACT = {"precision": "fp32"}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {
        IRNetRefinement: IRNet("mobilenet_v2").eval(),
        PSARefinement: AffinityNet("mobilenet_v2", 8).eval(),
    }


def scene(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width]
    blobs = [np.hypot(rows - height * a, columns - width * a) for a in (0.3, 0.7)]
    maps = np.stack([(1 - blob / min(height, width)).clip(0, 1) for blob in blobs])
    return image, maps.astype(np.float32)


def normalised(image):
    planes = (image / 255.0 - np.array(MEAN_RGB)) / np.array(DEVIATION_RGB)
    return torch.from_numpy(planes.transpose(2, 0, 1).astype(np.float32))[None]


def enlarged(planes, factor):
    grown = functional.interpolate(
        torch.from_numpy(planes)[None], scale_factor=factor, mode="bilinear", align_corners=False
    )
    return grown[0].numpy()


def test_irnet_is_the_authors_inference_with_a_dense_walk(networks):
    """On sides that divide by 16, where the authors' cells and ours are the same."""
    image, maps = scene(48, 64)
    network = networks[IRNetRefinement]
    refiner = IRNetRefinement(cam_power=1.5, background_threshold=0.3, log_steps=5, **EXACT)
    both = torch.cat([normalised(image), normalised(image[:, ::-1].copy())])
    with torch.no_grad():
        first, second = network(both)[0][:, 0].double().numpy()
    edge = 1 / (1 + np.exp(-(first / 2 + second[:, ::-1] / 2)))
    # the maps' values between the two pixels in the middle of each cell
    small = (maps[:, 1::4] + maps[:, 2::4]) / 2
    small = ((small[..., 1::4] + small[..., 2::4]) / 2).astype(np.float64)
    walked = walk_literal.edge_walk(small**1.5, edge, 5, 10, 5)
    grown = enlarged(walked, 4)
    planes = np.concatenate([np.full((1, 48, 64), 0.3), grown / grown.max()])
    prepared = refiner.prepare(network)
    assert np.abs(prepared.scores(image, maps) - planes).max() < 2e-5
    values = np.array([0, 8, 3])[planes.argmax(0)]
    labels, view = prepared.viewed(image, maps, [7, 2])
    assert (labels != values).mean() < 1e-3
    assert np.array_equal(labels, prepared(image, maps, [7, 2]))
    assert np.abs(view - edge).max() < 1e-5


@pytest.mark.parametrize(("borders", "distance"), [("quirk", "mean"), ("clipped", "sum")])
def test_psa_is_the_authors_inference_with_a_dense_walk(networks, borders, distance):
    image, maps = scene(77, 100)
    network = networks[PSARefinement]
    network.distance = distance
    settings = {"borders": borders, "log_steps": 4}
    refiner = PSARefinement(alpha=6.0, **settings, **EXACT)
    padded = functional.pad(normalised(image), (0, 4, 0, 3))
    with torch.no_grad():
        features = network(padded)[0].double().numpy()
    planes = np.concatenate([(1 - maps.max(0, keepdims=True)) ** 6, maps]).astype(np.float64)
    planes = np.pad(planes, ((0, 0), (0, 3), (0, 4)))
    small = planes.reshape(3, 10, 8, 13, 8).mean((2, 4))
    affinity = walk_literal.feature_affinity(features, 5, borders == "quirk", distance == "sum")
    expected = enlarged(walk_literal.walk(small, affinity, 8, 4), 8)[:, :77, :100]
    found = refiner.prepare(network).scores(image, maps)
    assert np.abs(found - expected).max() < 2e-5
    labels, view = refiner.prepare(network).viewed(image, maps, [7, 2])
    assert (labels != np.array([0, 8, 3])[expected.argmax(0)]).mean() < 1e-3
    assert np.abs(view - walk_literal.mean_affinity(features, 8, distance == "sum")).max() < 1e-5


@pytest.mark.parametrize("kind", [IRNetRefinement, PSARefinement])
class TestOddImages:
    @pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 19), (61, 45)])
    def test_images_of_any_size_have_a_label_everywhere(self, networks, kind, size):
        image, maps = scene(*size)
        labels = kind(**EXACT).prepare(networks[kind])(image, maps, [7, 2])
        assert labels.shape == size
        assert set(labels.flat) <= {0, 3, 8}

    def test_maps_of_zeros_are_background(self, networks, kind):
        image, maps = scene(40, 40)
        assert not kind(**EXACT).prepare(networks[kind])(image, 0 * maps, [7, 2]).any()

    def test_a_class_without_a_seed_takes_nothing(self, networks, kind):
        image, maps = scene(40, 40)
        maps[1] = 0
        labels = kind(**EXACT).prepare(networks[kind])(image, maps, [7, 2])
        assert set(labels.flat) <= {0, 8}

    def test_a_large_image_is_seen_smaller(self, networks, kind):
        image, maps = scene(96, 128)
        refiner = kind(**EXACT)
        seen = []
        hook = (
            networks[kind]
            .trunk[0]
            .register_forward_pre_hook(
                lambda module, given: seen.append(given[0].shape[2] * given[0].shape[3])
            )
        )
        try:
            refiner.prepare(networks[kind])(image, maps, [7, 2])
            small = replace(refiner, max_pixels=3000).prepare(networks[kind])
            scores = small.scores(image, maps)
        finally:
            hook.remove()
        assert seen[0] == 96 * 128
        assert seen[1] < 3000 * 1.5  # filled up to whole cells
        assert scores.shape == (3, 96, 128)
        assert set(small(image, maps, [7, 2]).flat) <= {0, 3, 8}

    def test_what_it_walks_by_covers_the_image_in_cells(self, networks, kind):
        image, maps = scene(61, 45)
        for prepared in (
            kind(**EXACT).prepare(networks[kind]),
            kind(**EXACT, max_pixels=700).prepare(networks[kind]),
        ):
            _, view = prepared.viewed(image, maps, [7, 2])
            height, width = (61, 45) if prepared.refiner.max_pixels > 61 * 45 else (30, 22)
            cell = VIEW_STRIDES[kind.viewed_as]
            assert view.shape == (-(-height // cell), -(-width // cell))
            assert 0 <= view.min() < view.max() <= 1

    def test_without_a_class_nothing_is_looked_at(self, networks, kind):
        image, maps = scene(40, 40)
        labels, view = kind(**EXACT).prepare(networks[kind]).viewed(image, maps[:0], [])
        assert view is None
        assert not labels.any()

    def test_it_must_be_prepared(self, networks, kind):
        with pytest.raises(TypeError, match="prepare"):
            kind()(*scene(8, 8), [7, 2])


def test_an_image_is_smoothed_before_it_is_made_smaller(networks):
    """Stripes of four pixels, of which plain interpolation meets the bright ones alone."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 1::4] = image[:, 2::4] = 255
    prepared = PSARefinement(**EXACT | {"max_pixels": 256}).prepare(networks[PSARefinement])
    seen, planes = prepared.given(image, image[None, :, :, 0].astype(np.float32) / 255)
    assert seen.shape == (1, 3, 16, 16)
    assert (planes[..., 1:-1] - 0.5).abs().max() < 0.05


def test_what_is_done_to_a_large_image_is_noted(networks):
    prepared = IRNetRefinement(**EXACT).prepare(networks[IRNetRefinement])
    assert prepared.note((375, 500)) == ""
    note = prepared.note((3000, 4000))
    assert note == "resized from 4000x3000 to 2309x1732 for its network (max_pixels)"


def test_the_walk_spreads_a_seed_up_to_an_edge():
    """A network that sees one wall lets a seed fill its own side."""

    class Wall:
        stride, canvas = 16, 0

        def parameters(self):
            yield torch.zeros(1)

        def to(self, device):
            return self

        eval = lambda self: self  # noqa: E731

        def edges(self, images):
            n, _, height, width = images.shape
            logits = torch.full((n, 1, height // 4, width // 4), -20.0)
            logits[0, ..., width // 8] = 40.0
            logits[1, ..., width // 4 - 1 - width // 8] = 40.0
            return logits

    image, maps = np.zeros((64, 64, 3), np.uint8), np.zeros((1, 64, 64), np.float32)
    maps[0, 24:40, 8:24] = 1
    labels = IRNetRefinement(**EXACT).prepare(Wall())(image, maps, [4])
    assert (labels[:, :28] == 5).mean() > 0.9
    assert not labels[:, 36:].any()


def test_the_authors_canvas_changes_what_is_normalised(networks):
    image, _ = scene(48, 64)
    network = networks[IRNetRefinement].requires_grad_(False)
    plain, padded = (
        IRNetRefinement(pad=pad, **EXACT).edges(network, normalised(image)) for pad in (0, 96)
    )
    assert plain.shape == padded.shape == (1, 12, 16)
    assert float((plain - padded).abs().max()) > 1e-3
    large = IRNetRefinement(pad=32, **EXACT).edges(network, normalised(image))
    assert torch.equal(plain, large)  # no part of a larger image is cut away


def test_presets_are_those_of_the_public_codes():
    assert IRNetRefinement.official("advcam") == IRNetRefinement(cam_power=1.5)
    rib = IRNetRefinement.official("rib")
    assert (rib.cam_power, rib.background_threshold) == OFFICIAL_WALKS["rib"] == (1.3, 0.27)
    with pytest.raises(ValueError, match="no official walk for 'ficklenet'"):
        IRNetRefinement.official("ficklenet")
    assert PSARefinement.official("rib") == PSARefinement(alpha=16, beta=8, log_steps=8)


def test_maps_of_seam_walk_by_its_constants():
    for method, walk in (("seam", (1.0, 0.25)), ("advcam_seam", (1.5, 0.25))):
        assert PSARefinement.official(method) == PSARefinement(alpha=6, beta=8, log_steps=6)
        irnet = IRNetRefinement.official(method)
        assert (irnet.cam_power, irnet.background_threshold) == walk


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        (IRNetRefinement, {"cam_power": 0}, "cam_power must be positive"),
        (IRNetRefinement, {"background_threshold": 1.5}, r"lie in \[0, 1\]"),
        (IRNetRefinement, {"beta": 0}, "beta must be positive"),
        (IRNetRefinement, {"pad": -1}, "pad must be 0 or more"),
        (PSARefinement, {"alpha": 0}, "alpha must be positive"),
        (PSARefinement, {"log_steps": 99}, "log_steps must lie from 0 to 14"),
        (PSARefinement, {"max_pixels": 1}, "max_pixels must be 64 or more"),
    ],
)
def test_values_that_make_no_sense_are_refused(kind, changed, message):
    with pytest.raises(ValueError, match=message):
        kind(**changed)
