"""Which images an analysis takes, what it is bound to and what it counts; no Ray."""

import json

import numpy as np
import pytest

from rayseg.analyses.boxes import THRESHOLDS
from rayseg.attribution import BBAM
from rayseg.config import AnalyseBoxesConfig
from rayseg.records import Sample
from rayseg.records.rle import encode_mask
from rayseg.refine import BoxCRF
from rayseg.stages import TrueObjects
from rayseg.steps.box_analysis import _identity, _write, spread_objects
from rayseg.steps.weights import ChosenDetector
from rayseg.store import (
    ANALYSES_SCHEMA,
    Folder,
    read_manifest,
    read_run,
    rows_to_table,
    write_manifest,
    write_shard,
)

NUMBER = 15


def told_of(folder, chosen):
    (line,) = _write("methods", ["bbam"], chosen, folder).lines
    return line


@pytest.fixture
def folder(tmp_path):
    """A manifest of images a to o with an object each, and one without."""
    boxes, none = np.array([[1, 1, 20, 20]], np.float32), np.zeros((0, 4), np.float32)
    mask = (encode_mask(np.ones((24, 24), bool)),)
    samples = [
        Sample(name, "a.png", 24, 24, (0,), boxes, np.array([0]), true_masks=mask)
        for name in "abcdefghijklmno"
    ]
    samples.append(Sample("z", "a.png", 24, 24, (0,), none, np.zeros(0, np.int64)))
    write_manifest(Folder(str(tmp_path)), samples, ["cow"])
    return Folder(str(tmp_path))


def spread(folder, wanted):
    chosen = spread_objects(read_manifest(folder), TrueObjects(folder), wanted)
    return chosen.table.column("id").to_pylist()


@pytest.mark.parametrize("wanted", [1, 4, 10, 14])
def test_so_many_images_as_are_wanted_lie_evenly_over_all(folder, wanted):
    places = ["abcdefghijklmno".index(name) for name in spread(folder, wanted)]
    assert len(places) == wanted
    gaps = np.diff([*places, NUMBER])  # the last one ends the list
    assert set(gaps) <= {NUMBER // wanted, NUMBER // wanted + 1}


@pytest.mark.parametrize("wanted", [0, NUMBER, 99])
def test_all_images_with_objects_are_taken_where_there_are_no_more(folder, wanted):
    assert spread(folder, wanted) == list("abcdefghijklmno")


def identity(analysis, **changed):
    return _identity(AnalyseBoxesConfig(**changed), analysis, ChosenDetector("a", ()), "f00")


def test_a_table_is_bound_to_its_maps_but_not_to_what_only_rounds():
    plain = identity("strides")
    assert identity("strides", bbam=BBAM(max_pixels=9)) == plain
    assert identity("strides", bbam=BBAM(steps=9)) != plain


@pytest.mark.parametrize("changed", [{"box_crf": BoxCRF(foreground=0.7)}, {"noise_seed": 4}])
def test_only_noise_is_bound_to_its_refiner_and_seed(changed):
    assert identity("noise", **changed) != identity("noise")
    assert identity("heads", **changed) == identity("heads")


def row(id_, iou):
    objects = [{"share": 0.1, "told": {"bbam": [iou] * len(THRESHOLDS)}}]
    return {"id": id_, "status": "ok", "error": "", "note": "", "objects": json.dumps(objects)}


def test_rows_of_images_that_are_not_chosen_do_not_count(folder):
    own = folder / "methods"
    rows = [row("a", 0.25), row("b", 0.75), row("c", 0.5)]
    write_shard(own, rows_to_table(rows, ANALYSES_SCHEMA))
    chosen = read_manifest(folder).select(ids=["a", "b", "c"])
    assert "bbam 50.0, 3 objects" in told_of(own, chosen)
    assert "bbam 25.0, 1 objects" in told_of(own, chosen.select(ids=["a"]))
    assert read_run(own)["objects"] == 1


def test_no_object_at_all_is_said_with_the_first_reason(folder):
    own, bad = folder / "methods", {"id": "b", "status": "error", "error": "cut short"}
    write_shard(own, rows_to_table([row("a", 0.5) | {"objects": "[]"}, bad], ANALYSES_SCHEMA))
    chosen = read_manifest(folder).select(ids=["a", "b"])
    with pytest.raises(ValueError, match=r"methods found no object .*; b: cut short"):
        told_of(own, chosen)
