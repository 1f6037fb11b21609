"""Masks are judged without truth, and `run` and `score` end with what is most likely wrong."""

import json

import numpy as np
import pytest

from rayseg.config import Compute, ScoreConfig
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.scores import quality
from rayseg.steps import judging
from rayseg.steps.judging import judge_masks
from rayseg.steps.recipe import run as run_all
from rayseg.steps.score import score
from rayseg.store import (
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    pack_maps,
    rows_to_table,
    write_manifest,
    write_shard,
)
from tests.reference.quality_literal import counted

ENGINE = PlainEngine()
CLASSES = ("cat", "dog", "emu")
SIZE_HW = (12, 16)
TAGS = [(0,), (0, 1), (1,), (0, 2), (1,), (), (0,), (1,)]
MAPS, MASKS = "seeds/advcam+rib", "masks/advcam+rib+label_crf"


def labels_of(n):
    """Cats cover nearly all of their images; of dogs half the masks have none."""
    labels = np.zeros(SIZE_HW, np.uint8)
    labels[11:] = 255
    if 0 in TAGS[n]:
        labels[:11] = 1
    if 1 in TAGS[n] and n % 4 == 0:
        labels[:3] = 2
    return labels


@pytest.fixture
def run(tmp_path):
    """A run without truth: the masks of eight images in three shards, one of an image that failed.

    The maps' name begins with that of other maps, whose logits would say something else.
    """
    run = Folder(str(tmp_path / "run"))
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = [
        Sample(f"i{n}", f"{tmp_path}/i{n}.png", *SIZE_HW, tags, *none, split="train")
        for n, tags in enumerate(TAGS)
    ]
    write_manifest(run / "manifest", samples, CLASSES)
    base = {"height": SIZE_HW[0], "width": SIZE_HW[1]}
    rows = [
        base | {"id": f"i{n}", "status": "ok", "labels": encode_labels(labels_of(n))}
        for n in range(len(TAGS))
    ]
    rows[7] = base | {"id": "i7", "status": "error", "error": "cut short"}
    for part in (rows[:1], rows[1:5], rows[5:]):
        write_shard(run / MASKS, rows_to_table(part, MASKS_SCHEMA))
    for name, logit in ((MAPS, 2.0), ("seeds/advcam", -9.0)):
        seeds = [
            base
            | {"id": f"i{n}", "status": "ok", "classes": list(tags), "scores": [logit] * len(tags)}
            | {"maps": pack_maps(np.zeros((len(tags), 3, 4), np.float32))}
            for n, tags in enumerate(TAGS)
            if tags
        ]
        write_shard(run / name, rows_to_table(seeds, SEEDS_SCHEMA))
    return run


def config(run, **changed):
    return ScoreConfig(run=run.location, compute=Compute(num_gpus=0, block_rows=2), **changed)


@pytest.mark.parametrize("rows", [1, 3, 256])
def test_counts_are_those_of_a_literal_loop_however_rows_are_shared_out(run, monkeypatch, rows):
    monkeypatch.setattr(judging, "COUNTED_ROWS", rows)
    (found,) = judge_masks(run, config(run), ENGINE).values()
    whole = [(labels_of(n), tags) for n, tags in enumerate(TAGS) if tags and n != 7]
    for index, one in enumerate(found):
        assert one.name == CLASSES[index]
        assert [one.images, one.lacking, one.pixels, one.covered] == counted(whole, index)
    assert [(one.asked, one.unrecognised) for one in found] == [(4, 0), (4, 0), (1, 0)]


def test_only_the_images_that_are_asked_for_count(run):
    (found,) = judge_masks(run, config(run), ENGINE, ["i0", "i2"]).values()
    assert [(one.name, one.images, one.asked) for one in found] == [("cat", 1, 1), ("dog", 1, 1)]


def test_score_warns_without_truth_and_stores_what_it_counted(run):
    *_, cats, dogs, page = score(config(run), ENGINE).lines
    assert cats.startswith("cat: masks cover 92 % of the images with its tag; ")
    assert dogs.startswith("dog: 2 of its 3 masks do not have it; ")
    assert page.startswith("report: ")
    stored = json.loads(run.read("scores.json"), parse_constant=pytest.fail)
    assert stored.keys() == {"quality"}
    emu = stored["quality"][MASKS]["emu"]  # in one image only
    assert (emu["images"], emu["lacking"], emu["sign"], emu["warning"]) == (1, 1, "", "")
    assert stored["quality"][MASKS]["cat"]["warning"] in cats
    assert "Doubtful masks" in run.read("report.html").decode()


def test_masks_are_of_the_maps_with_the_longest_name_that_theirs_begins_with(run):
    assert judging._maps_of(run, "advcam+rib+label_crf") == run / MAPS
    assert judging._maps_of(run, "advcam+label_crf") == run / "seeds/advcam"
    assert judging._maps_of(run, "cam+label_crf") is None
    (run / MAPS).remove()
    (found,) = judge_masks(run, config(run), ENGINE).values()
    assert {(one.asked, one.unrecognised) for one in found} == {(4, 4), (1, 1)}
    assert "recognise it in 4 of 4 images" in found[1].warning


def test_the_last_lines_of_run_warn(learned_copy, monkeypatch):
    monkeypatch.setattr(quality, "WIDE", 0.0)
    monkeypatch.setattr(quality, "LEAST_IMAGES", 1)
    *_, line, page = run_all(learned_copy, ENGINE).lines
    assert page.startswith("report: ")
    assert "the classifier has most likely learned the background" in line
