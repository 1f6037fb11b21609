import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from rayseg.records.boxes import mask_extent
from rayseg.records.rle import decode_mask
from rayseg.refine.tag_instances import TagInstances, displacement_groups
from rayseg.refine.walk import EdgeWalk
from tests.reference import tag_instances_literal as literal

DISCS = [(6, 6, 5), (6, 20, 5), (17, 13, 4)]
"""Row, column and radius in cells; the first two are of one class."""
GRID, SIZE = (23, 28), (91, 110)


def discs():
    """Maps, edges and displacements as a perfect IRNet would give them."""
    rows, columns = np.mgrid[: GRID[0], : GRID[1]].astype(float)
    maps, edges = np.zeros((2, *GRID)), np.zeros(GRID)
    displacements = np.full((2, *GRID), 9.0)  # of background: strong and towards a corner
    for number, (row, column, radius) in enumerate(DISCS):
        distance = np.hypot(rows - row, columns - column)
        inside = distance <= radius
        maps[number // 2][inside] = 1 - distance[inside] / (2 * radius)
        displacements[:, inside] = np.stack([row - rows, column - columns])[:, inside]
        edges[(distance > radius) & (distance <= radius + 1.5)] = 1
    return maps, edges, displacements


def noise(seed):
    rng = np.random.default_rng(seed)
    maps = gaussian_filter(rng.random((2, *GRID)), (0, 2, 2)) ** 4
    edges = rng.random(GRID) ** 3
    displacements = gaussian_filter(rng.normal(size=(2, *GRID)), (0, 3, 3)) * 60
    return maps / maps.max(), edges, displacements


def find(settings, arrays, classes=(5, 3), size=SIZE):
    maps, edges, displacements = (torch.from_numpy(one) for one in arrays)
    return settings(maps, classes, edges, displacements, size)


def pixels(found, size=SIZE):
    masks = (decode_mask(counts, size) for counts in found.masks)
    return [{tuple(map(int, cell)) for cell in np.argwhere(mask)} for mask in masks]


def test_two_objects_of_one_class_are_told_apart():
    found = find(TagInstances(), discs())
    assert found.classes.tolist() == [5, 5, 3]
    for (row, column, radius), mask in zip(DISCS, found.masks, strict=True):
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
        disc = np.hypot(rows - 4 * row - 1.5, columns - 4 * column - 1.5) <= 4 * radius + 2
        made = decode_mask(mask, SIZE)
        assert (made & disc).sum() / (made | disc).sum() > 0.8
    assert found.scores.max() == 1
    assert found.scores.min() > 0.5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [
        TagInstances(),
        TagInstances(
            walk=EdgeWalk(log_steps=4, beta=6), rounds=20, weak_displacement=4,
            background=0.1, fragment_share=0.03,
        ),
    ],
)  # fmt: skip
def test_instances_equal_the_literal_ones(seed, settings):
    arrays = noise(seed)
    found = find(settings, arrays)
    expected = literal.instances(arrays[0], (5, 3), *arrays[1:], SIZE, settings)
    assert len(expected) > 1
    assert found.classes.tolist() == [index for index, _, _ in expected]
    np.testing.assert_allclose(found.scores, [score for _, score, _ in expected], rtol=1e-5)
    assert pixels(found) == [part for *_, part in expected]


@pytest.mark.parametrize("rounds", [0, 1, 7, 300])
def test_groups_equal_the_literal_ones(rounds):
    *_, displacements = noise(5)
    found = displacement_groups(displacements, rounds)
    expected = literal.groups(displacements, rounds, 2.5)
    np.testing.assert_array_equal(found, np.unique(expected, return_inverse=True)[1])


def test_boxes_are_around_masks_and_columns_hold_one_entry_an_object():
    found = find(TagInstances(), noise(0))
    for box, counts in zip(found.boxes_xyxy, found.masks, strict=True):
        np.testing.assert_array_equal(box, mask_extent(decode_mask(counts, SIZE)))
    columns = found.columns()
    assert {len(values) for values in columns.values()} == {len(found.masks)}
    assert columns["foreground"] == list(found.masks)


def test_fragments_are_left_out_of_what_is_scored():
    found = find(TagInstances(fragment_share=0.05), noise(1))
    small = np.array([len(part) < 0.05 * SIZE[0] * SIZE[1] for part in pixels(found)])
    assert small.any()
    np.testing.assert_array_equal(found.scores == 0, small)
    assert len(found.scored().masks) == len(found.scored().boxes_xyxy) == (~small).sum()


def test_pieces_that_walk_by_themselves_change_nothing(monkeypatch):
    together = find(TagInstances(), noise(2))
    monkeypatch.setattr("rayseg.refine.tag_instances._WALKED", 1)
    alone = find(TagInstances(), noise(2))
    assert alone.masks == together.masks
    np.testing.assert_allclose(alone.scores, together.scores, rtol=1e-6)


@pytest.mark.parametrize("which", ["no class", "empty maps", "all edges"])
def test_nothing_to_find_gives_no_instance(which):
    maps, edges, displacements = discs()
    arrays = {
        "no class": (maps[:0], edges, displacements),
        "empty maps": (maps * 0, edges, displacements),
        "all edges": (maps, edges * 0 + 1, displacements),
    }[which]
    found = find(TagInstances(), arrays, (5, 3)[: len(arrays[0])])
    assert (len(found.masks), found.boxes_xyxy.shape) == (0, (0, 4))
    assert not any(found.columns().values())


def test_a_class_without_a_cell_has_no_instance():
    maps, edges, displacements = discs()
    maps[1] = 0
    assert find(TagInstances(), (maps, edges, displacements)).classes.tolist() == [5, 5]


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (16, 4)])
def test_an_image_smaller_than_the_radius_has_instances(size):
    grid = tuple(-(-side // 4) for side in size)
    arrays = (np.ones((1, *grid)), np.zeros(grid), np.zeros((2, *grid)))
    found = find(TagInstances(), arrays, (4,), size)
    assert pixels(found, size) == [set(np.ndindex(*size))]
    np.testing.assert_allclose(found.scores, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rounds": -1}, "rounds must not be negative"),
        ({"weak_displacement": 0}, "weak_displacement be positive"),
        ({"background": 1}, r"background must lie in \[0, 1\)"),
        ({"fragment_share": 2}, "fragment_share in"),
    ],
)
def test_wrong_settings_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        TagInstances(**fields)


def test_wrong_arguments_are_refused():
    maps, edges, displacements = discs()
    with pytest.raises(ValueError, match=r"maps must be floating \(1, 23, 28\)"):
        find(TagInstances(), (maps, edges, displacements), (5,))
    with pytest.raises(ValueError, match=r"edges must be floating \(23, 28\)"):
        find(TagInstances(), (maps, edges[1:], displacements))
    with pytest.raises(ValueError, match=r"displacements must be floating \(2, 23, 28\)"):
        find(TagInstances(), (maps, edges, displacements[:1]))
    with pytest.raises(ValueError, match=r"maps must be floating \(2, 24, 28\)"):
        find(TagInstances(), (maps, edges, displacements), size=(93, 110))
    with pytest.raises(ValueError, match="displacements finite"):
        find(TagInstances(), (maps, edges, displacements * np.nan))
    with pytest.raises(ValueError, match="maps must be finite and not negative"):
        find(TagInstances(), (-maps, edges, displacements))
    with pytest.raises(ValueError, match="size_hw and stride must be 1 or more"):
        find(TagInstances(), (maps, edges, displacements), size=(0, 110))
