"""Cues: the confident pixels of maps, or masks as they are."""

from dataclasses import replace

import numpy as np
import pytest

from rayseg.labels import ConfidentPixels, Cues, enlarge
from rayseg.labels.cues import sure_labels
from rayseg.records import Sample, Seeds
from rayseg.store import SEEDS_SCHEMA, Folder, claim, pack_maps, rows_to_table, write_shard

SIZE_HW = (10, 13)


@pytest.fixture
def folder(tmp_path):
    """Maps of two images; of the second there are none."""
    rng = np.random.default_rng(0)
    maps = rng.random((2, 3, 4)).astype(np.float32)
    row = {"id": "a", "status": "ok", "height": 10, "width": 13, "classes": [1, 4]}
    rows = [row | {"maps": pack_maps(maps)}, row | {"id": "b", "status": "empty", "maps": []}]
    seeds = Folder(str(tmp_path)) / "seeds" / "cam"
    claim(seeds, {"cam": {}})
    write_shard(seeds, rows_to_table(rows, SEEDS_SCHEMA))
    return seeds


def literal(maps, classes, foreground, background):
    labels = np.full(maps.shape[1:], 255, np.uint8)
    for place in np.ndindex(*labels.shape):
        values = {classes[i] + 1: maps[(i, *place)] for i in range(len(classes))}
        best = max(values, key=values.get)
        if values[best] > foreground:
            labels[place] = best
        elif values[best] <= background:
            labels[place] = 0
    return labels


@pytest.mark.parametrize(("foreground", "background"), [(0.8, 0.5), (0.6, 0.6), (1.0, 0.0)])
def test_labels_are_what_brute_force_finds(foreground, background):
    rng = np.random.default_rng(1)
    seeds = Seeds("a", (0, 7, 253), rng.random((3, 3, 4)).astype(np.float32), SIZE_HW)
    found = sure_labels(seeds, foreground, background)
    expected = literal(enlarge(seeds), (0, 7, 253), foreground, background)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


def test_an_image_of_no_class_is_background_everywhere():
    none = Seeds("a", (), np.zeros((0, 3, 4), np.float32), SIZE_HW)
    found = sure_labels(none, 0.3, 0.1)
    assert (found.shape, found.dtype) == (SIZE_HW, np.uint8)
    assert not found.any()


def test_maps_of_a_run_are_read_at_the_thresholds_that_are_asked_for(folder):
    cues = Cues(ConfidentPixels(folder))
    assert set(cues.ids) == {"a"}
    wide, narrow = (cues.sure(*both).read("a", SIZE_HW) for both in ((0.3, 0.3), (0.9, 0.05)))
    assert set(np.unique(wide)) <= {0, 2, 5, 255}
    assert (wide != 255).all()
    assert (narrow == 255).any()
    assert (wide[narrow != 255] == narrow[narrow != 255]).all()


def test_maps_of_another_size_or_none_are_named(folder):
    cues = Cues(ConfidentPixels(folder))
    with pytest.raises(ValueError, match=r"^map of 'a' in .*part-.* must be of \(9, 13\), got"):
        cues.read("a", (9, 13))
    with pytest.raises(ValueError, match=r"^map of 'b' in .*cam is missing$"):
        cues.read("b", SIZE_HW)


def test_tags_are_part_of_what_is_learnt(folder):
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    sample = Sample("a", "a.png", 10, 13, (1, 4), *none, "train")
    cues = Cues(ConfidentPixels(folder))
    assert cues.content(sample) == cues.content(replace(sample))
    assert cues.content(sample) != cues.content(replace(sample, tags=(1,)))


def test_masks_know_no_thresholds():
    cues = Cues("any source")
    assert cues.sure(0.5, 0.1) is cues
