"""A folder is bound to the configuration that fills it, and says what it holds."""

import json

import pyarrow as pa
import pytest

from rayseg.store import DamagedError, claim, kind_of, read_facts, read_run, write_run, write_shard
from tests.store.tables import rows


def test_a_folder_is_claimed_once_and_found_again(folder):
    claim(folder, {"cam": {"scales": (1.0, 0.5)}})
    claim(folder, {"cam": {"scales": (1.0, 0.5)}})
    assert read_run(folder)["config"] == {"cam": {"scales": [1.0, 0.5]}}


def test_another_configuration_is_refused_with_all_that_differs(folder):
    claim(folder, {"advcam": {"num_steps": 27, "flip": True}, "weights": "aa"})
    write_shard(folder, rows("a"))
    with pytest.raises(ValueError, match="another configuration") as caught:
        claim(folder, {"advcam": {"num_steps": 10, "flip": True}, "weights": "bb"})
    assert "advcam.num_steps is 27 there, 10 here" in str(caught.value)
    assert "weights is aa there, bb here" in str(caught.value)
    assert "flip" not in str(caught.value)


def test_a_claim_that_nothing_came_of_can_be_mended(folder):
    claim(folder, {"voc": {"root": "/nope"}})
    claim(folder, {"voc": {"root": "/data"}})
    assert read_run(folder)["config"] == {"voc": {"root": "/data"}}


def test_shards_that_nobody_claimed_are_refused(folder):
    write_shard(folder, rows("a"))
    with pytest.raises(ValueError, match=r"holds part-.* but no run.json"):
        claim(folder, {})


def test_run_json_keeps_what_is_not_written_anew_and_names_versions(folder):
    write_run(folder, {"a": 1, "b": 2})
    write_run(folder, {"b": 3})
    run = json.loads(folder.read("run.json"))
    assert (run["a"], run["b"]) == (1, 3)
    assert run["versions"]["pyarrow"] == pa.__version__


@pytest.mark.parametrize(("before", "after"), [(b'"ok": 10', b'"ok": 18'), (b"seeds", b"seedz")])
def test_a_run_json_that_says_something_else_than_was_written_is_known(folder, before, after):
    claim(folder, {}, "seeds")
    write_run(folder, {"counts": {"ok": 10}})
    good = read_run(folder)
    folder.write("run.json", folder.read("run.json").replace(before, after))
    with pytest.raises(DamagedError, match="what it says is not what was written"):
        read_facts(folder)
    assert read_run(folder) == good


def test_a_run_json_that_is_gone_is_read_from_its_copy(folder):
    claim(folder, {"a": 1}, "seeds")
    write_shard(folder, rows("a"))
    good = read_run(folder)
    folder.delete("run.json")
    assert read_run(folder) == good
    claim(folder, {"a": 1})
    assert read_facts(folder)["config"] == {"a": 1}


def test_drafts_and_the_lock_are_no_products(folder):
    for name in (".lock.json", ".part-1.parquet.0a1b.tmp", "_index.pq"):
        folder.write(name, b"")
    claim(folder, {"a": 1})
    claim(folder, {"a": 2})
    assert read_run(folder)["config"] == {"a": 2}


def test_a_folder_says_its_kind(folder):
    assert kind_of(folder) == ""
    claim(folder, {"box_maps": {}}, "analyses")
    assert kind_of(folder) == read_run(folder)["kind"] == "analyses"
    claim(folder, {"box_maps": {}})
    assert kind_of(folder) == "object_masks"


OLD = [
    ("manifest", {"data": "voc", "voc": {}, "files": {}}),
    ("classifier", {"split": "train", "classifier": {}}),
    ("ficklenet", {"split": "train", "ficklenet": {}, "weights": "aa"}),
    ("seam", {"split": "train", "seam": {}, "weights": "aa"}),
    ("detector", {"split": "train", "detector": {}}),
    ("segmenter", {"labels": {"seeds": {}}, "split": "train", "segmenter": {}, "trained_on": {}}),
    ("mask_rcnn", {"labels": {"box_maps": {}}, "split": "train", "mask_rcnn": {}}),
    ("seeds", {"cam": {}, "weights": "aa"}),
    ("seeds", {"ficklenet": {}, "weights": "aa"}),
    ("masks", {"crf": {}, "seeds": {"cam": {}}, "saliency": {}}),
    ("object_masks", {"box-crf": {}, "box_maps": {"bbam": {}}, "semantic_masks": {}}),
    ("predictions", {"weights": "aa", "predict": {}, "segmenter_crf": {}}),
    ("box_maps", {"bbam": {}, "weights": "aa", "boxes": "predicted", "min_score": 0.7}),
    ("instances", {"weights": "aa", "instances": {}}),
    ("analyses", {"variants": [], "weights": "aa", "refiner": {}, "seed": 0}),
    ("bottleneck", {"toy": {}}),
    ("tuning", {"images": "aa", "slice_images": 8, "seeds": {}, "method": {}}),
]
"""Configurations as they stood in run.json before it named the kind."""


@pytest.mark.parametrize(("kind", "config"), OLD)
def test_the_kind_of_a_folder_of_before_is_known_by_its_configuration(folder, kind, config):
    write_run(folder, {"config": config})
    assert kind_of(folder) == kind
