import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rayseg.records.pairs import pixel_pairs
from rayseg.refine.affinities import edge_affinities, feature_affinities, mean_affinity
from rayseg.refine.chebyshev import chebyshev_series
from rayseg.refine.walk import EdgeWalk, FeatureWalk
from tests.reference import walk_literal as literal

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, CUDA])]


@pytest.fixture
def reference():
    root = Path(__file__).parents[2] / ".." / "shared"
    if "RAYSEG_DATA" in os.environ:
        root = Path(os.environ["RAYSEG_DATA"]) / ".."
    path = root / "reference" / "irn_walk_24x32.npz"
    if not path.exists():
        pytest.skip(f"no reference arrays: {path} is missing")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def draw(size=(13, 11), images=1, classes=2, channels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(images, classes, *size, generator=generator, dtype=torch.float64)
    edges = torch.rand(images, *size, generator=generator, dtype=torch.float64) ** 3
    features = torch.randn(images, channels, *size, generator=generator, dtype=torch.float64)
    return maps, edges, features


def dense(walk, maps, beside):
    """The literal walk of one image."""
    maps, beside = maps[0].numpy(), beside[0].numpy()
    if isinstance(walk, EdgeWalk):
        return literal.edge_walk(maps, beside, walk.radius, walk.beta, walk.log_steps)
    quirk, summed = walk.borders == "quirk", walk.distance == "sum"
    affinity = literal.feature_affinity(beside, walk.radius, quirk, summed)
    return literal.walk(maps, affinity, walk.beta, walk.log_steps)


@pytest.mark.data
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_the_walk_is_irns(reference, precision):
    maps, expected = reference["x"][None], reference["out"][:, 0]
    found = EdgeWalk(precision=precision)(maps, reference["edge"])[0]
    assert (found.dtype, found.shape) == (torch.float32, expected.shape)
    torch.testing.assert_close(found, expected, rtol=4e-4, atol=0)


@pytest.mark.parametrize(
    "walk",
    [
        EdgeWalk(),
        EdgeWalk(radius=3, beta=2.5, log_steps=5),
        EdgeWalk(log_steps=0),
        EdgeWalk(log_steps=11),
        FeatureWalk(),
        FeatureWalk(borders="clipped", log_steps=6),
        FeatureWalk(distance="sum", beta=1, radius=3),
        FeatureWalk.as_written(),
    ],
)
@pytest.mark.parametrize("device", DEVICES)
def test_the_walk_equals_a_dense_one(walk, device):
    maps, edges, features = draw()
    beside = edges if isinstance(walk, EdgeWalk) else features
    found = walk(maps.to(device), beside.to(device)).cpu().numpy()[0]
    np.testing.assert_allclose(found, dense(walk, maps, beside), rtol=0, atol=1e-9)


@pytest.mark.parametrize("walk", [EdgeWalk(precision="fp32"), FeatureWalk(precision="fp32")])
def test_the_walk_in_float32_is_close(walk):
    maps, edges, features = draw((24, 20))
    beside = edges if isinstance(walk, EdgeWalk) else features
    found = walk(maps, beside)[0].numpy()
    np.testing.assert_allclose(found, dense(walk, maps, beside), rtol=5e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3), (4, 4), (3, 20), (20, 3)])
@pytest.mark.parametrize("walk", [EdgeWalk(), FeatureWalk(), FeatureWalk(borders="clipped")])
def test_an_image_smaller_than_the_radius_is_walked_on(size, walk):
    maps, edges, features = draw(size)
    beside = edges if isinstance(walk, EdgeWalk) else features
    found = walk(maps, beside).numpy()[0]
    np.testing.assert_allclose(found, dense(walk, maps, beside), rtol=0, atol=1e-9)


@pytest.mark.parametrize("walk", [EdgeWalk(), FeatureWalk()])
def test_images_and_classes_do_not_change_each_other(walk, monkeypatch):
    maps, edges, features = draw(images=5, classes=3)
    beside = edges if isinstance(walk, EdgeWalk) else features
    together = walk(maps, beside)
    for i in range(5):
        alone = [walk(maps[i : i + 1, k : k + 1], beside[i : i + 1]) for k in range(3)]
        torch.testing.assert_close(together[i : i + 1], torch.cat(alone, 1), rtol=1e-12, atol=0)
    monkeypatch.setattr("rayseg.refine.walk._BATCH_BYTES", 2 * 34 * 13 * 11 * 8)
    torch.testing.assert_close(walk(maps, beside), together, rtol=1e-12, atol=0)


@pytest.mark.parametrize("block", [7, 50, 10**6])
def test_blocks_of_pixels_do_not_change_the_walk(block, monkeypatch):
    maps, edges, _ = draw()
    expected = EdgeWalk()(maps, edges)
    monkeypatch.setattr("rayseg.refine.chebyshev._BLOCK", block)
    torch.testing.assert_close(EdgeWalk()(maps, edges), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("walk", [EdgeWalk(), FeatureWalk()])
def test_a_course_has_every_number_of_steps(walk):
    maps, edges, features = draw()
    beside = edges if isinstance(walk, EdgeWalk) else features
    course = walk.course(maps, beside, [8, 0, 5])
    for found, log_steps in zip(course, [8, 0, 5], strict=True):
        alone = replace(walk, log_steps=log_steps)(maps, beside)
        torch.testing.assert_close(found, alone, rtol=1e-12, atol=0)


def test_arguments_are_not_changed_and_the_type_of_the_maps_is_kept():
    maps, edges, features = (one.float() for one in draw())
    before = [one.clone() for one in (maps, edges, features)]
    assert EdgeWalk()(maps, edges).dtype == FeatureWalk()(maps, features).dtype == torch.float32
    for one, was in zip((maps, edges, features), before, strict=True):
        assert torch.equal(one, was)


def test_between_edges_of_one_nothing_moves_and_without_edges_a_constant_stays():
    maps, edges, _ = draw()
    assert not EdgeWalk()(maps, torch.ones_like(edges)).any()
    constant = EdgeWalk()(torch.ones_like(maps), torch.zeros_like(edges))
    torch.testing.assert_close(constant, torch.ones_like(maps), rtol=1e-10, atol=0)


def test_a_wall_of_edges_keeps_both_sides_apart():
    maps = torch.zeros(1, 1, 12, 21, dtype=torch.float64)
    maps[..., :8] = 1
    edges = torch.zeros(1, 12, 21, dtype=torch.float64)
    edges[..., 10] = 1
    found = EdgeWalk()(maps, edges)[0, 0]
    assert found[:, :10].min() > 0.7
    assert not found[:, 10:].any()


def test_a_class_without_a_pixel_stays_without():
    maps, edges, _ = draw()
    maps[:, 1] = 0
    found = EdgeWalk()(maps, edges)
    assert found[:, 0].min() > 0
    assert not found[:, 1].any()


@pytest.mark.parametrize(
    ("borders", "counts"),
    [("quirk", {"middle": 69, "left": 3, "corner": 1}), ("clipped", {"left": 39, "corner": 22})],
)
def test_pixels_at_the_border_have_as_many_neighbours_as_in_psas_code(borders, counts):
    features = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    planes = torch.cat(list(feature_affinities(features, 5, borders)))
    dense_matrix = literal.feature_affinity(features[0].numpy(), 5, borders == "quirk", False)
    neighbours = dense_matrix.sum(0).reshape(20, 20)
    assert planes.sum() == (dense_matrix.sum() - 400) / 2
    places = {"middle": (10, 10), "left": (10, 0), "corner": (0, 0)}
    assert {name: neighbours[places[name]] for name in counts} == counts


@pytest.mark.parametrize("size", [(7, 5), (1, 4), (3, 1), (1, 1)])
@pytest.mark.parametrize("distance", ["mean", "sum"])
def test_the_mean_affinity_is_that_of_all_pixels_around(size, distance):
    features = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (2, 40, *size)))
    found = mean_affinity(features, distance, 3.0).numpy()
    for one, values in zip(features.numpy(), found, strict=True):
        expected = literal.mean_affinity(one, 3.0, distance == "sum")
        assert np.abs(values - expected).max() < 1e-12


def test_affinities_are_those_of_the_literal_matrix():
    _, edges, features = draw()
    offsets = [(0, 1), (4, 2), (2, -4)]
    for planes, matrix in (
        (edge_affinities(edges), literal.edge_affinity(edges[0].numpy(), 5)),
        (feature_affinities(features), literal.feature_affinity(features[0].numpy(), 5, 1, 0)),
    ):
        by_offset = dict(zip(map(tuple, pixel_pairs(5).offsets_yx.tolist()), planes, strict=True))
        square = matrix.reshape(13, 11, 13, 11)
        for down, right in offsets:
            found = by_offset[down, right][0].numpy()
            for y, x in np.ndindex(13, 11):
                inside = y + down < 13 and 0 <= x + right < 11
                expected = square[y, x, y + down, x + right] if inside else 0
                assert found[y, x] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("exponent", [1, 2, 4, 64, 256, 2048])
def test_the_series_is_the_power(exponent):
    places = np.linspace(-1, 1, 501)
    factors = chebyshev_series(exponent, 1e-11)
    found = np.polynomial.chebyshev.chebval(places, factors)
    np.testing.assert_allclose(found, places**exponent, atol=1.1e-11)
    assert len(factors) <= min(exponent, 7.2 * exponent**0.5) + 1


SCRIPT = """
import pathlib, torch
from rayseg.refine.walk import EdgeWalk
def status(line):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.partition(line + ":")[2].split()[0])
maps, edges = torch.rand(1, 2, {height}, {width}), torch.rand(1, {height}, {width}) ** 3
walk = EdgeWalk(log_steps={log_steps})
EdgeWalk(log_steps=1)(maps[..., :9, :9], edges[..., :9, :9])
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
assert walk(maps, edges).isfinite().all()
print((status("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("size", "log_steps", "megabytes"), [((94, 125), 8, 50), ((750, 1000), 1, 600)]
)
def test_memory_is_bounded(size, log_steps, megabytes):
    """At the quarter sizes of 375x500 and of 3000x4000."""
    code = SCRIPT.format(height=size[0], width=size[1], log_steps=log_steps)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True,
    )  # fmt: skip
    # at least the weights of 34 offsets are there: what is measured is the walk
    assert 34 * size[0] * size[1] * 8 / 2**20 < float(done.stdout) < megabytes


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (EdgeWalk, {"radius": 1}, "radius must be 2 or more"),
        (EdgeWalk, {"beta": 0}, "beta must be positive"),
        (EdgeWalk, {"beta": float("nan")}, "beta must be positive"),
        (EdgeWalk, {"log_steps": -1}, "log_steps must lie from 0 to 14"),
        (EdgeWalk, {"log_steps": 15}, "log_steps must lie from 0 to 14"),
        (EdgeWalk, {"precision": "bf16"}, "precision must be fp64 or fp32"),
        (FeatureWalk, {"borders": "wide"}, "borders must be 'quirk' or 'clipped'"),
        (FeatureWalk, {"distance": "l2"}, "distance must be 'mean' or 'sum'"),
    ],
)
def test_wrong_settings_are_refused(kind, fields, words):
    with pytest.raises(ValueError, match=words):
        kind(**fields)


def test_wrong_arguments_are_refused():
    maps, edges, features = draw()
    with pytest.raises(ValueError, match=r"maps must be floating \(n, k, h, w\)"):
        EdgeWalk()(maps[0], edges)
    with pytest.raises(ValueError, match=r"maps must be floating .* got torch.uint8"):
        EdgeWalk()(maps.byte(), edges)
    with pytest.raises(ValueError, match=r"edges must be floating \(1, 13, 11\)"):
        EdgeWalk()(maps, edges[:, :-1])
    with pytest.raises(ValueError, match=r"edges must lie in \[0, 1\]"):
        EdgeWalk()(maps, edges * 9)
    with pytest.raises(ValueError, match=r"edges must lie in \[0, 1\]"):
        EdgeWalk()(maps, edges * torch.nan)
    with pytest.raises(ValueError, match=r"features must be floating \(1, 5, 13, 11\)"):
        FeatureWalk()(maps, features[..., :-1])
    with pytest.raises(ValueError, match="features must have a channel and be finite"):
        FeatureWalk()(maps, features / 0)
    with pytest.raises(ValueError, match="log_steps must lie from 0 to 14"):
        EdgeWalk().course(maps, edges, [])
