"""DSRG on a run's seeds and masks: what it learns from, what comes out, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from rayseg.config import Compute, PredictConfig, thresholds_of
from rayseg.config.seeds import Thresholds
from rayseg.nets.deeplab import load_segmenter
from rayseg.nets.prediction import Prediction
from rayseg.plain import PlainEngine
from rayseg.steps.predictions import predict
from rayseg.steps.training import train
from rayseg.store import (
    SEEDS_SCHEMA,
    Folder,
    claim,
    pack_maps,
    read_manifest,
    read_run,
    sign_rows,
    write_run,
    write_shard,
)
from tests.learn.tiny import CLASSES, job, scenes, store, tiny, trained

ENGINE = PlainEngine()
TRAINING = tiny("dsrg", judge_images=0, iterations=3)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("images"))


@pytest.fixture
def run(tmp_path, samples):
    store(tmp_path, samples)
    store_seeds(tmp_path, samples[:10])
    return tmp_path


def store_seeds(run, samples, unsure=()):
    """Maps that are high in the squares; those of some images are everywhere in between."""
    seeds = Folder(str(run)) / "seeds" / "cam"
    seeds.remove()
    claim(seeds, {"cam": {}})
    rows = []
    for sample in samples:
        left, top, right, bottom = (sample.boxes_xyxy[0] / 4).astype(int)
        maps = np.full((1, 16, 16), 0.25 if sample.id in unsure else 0.05, np.float32)
        if sample.id not in unsure:
            maps[:, top:bottom, left:right] = 0.9
        row = {"id": sample.id, "status": "ok", "height": 64, "width": 64, "digest": ""}
        rows.append(row | {"classes": list(sample.tags), "maps": pack_maps(maps)})
    write_shard(seeds, sign_rows(rows, SEEDS_SCHEMA))
    write_run(seeds, {"counts": {"ok": len(rows)}})


def facts(run, name="cam+dsrg"):
    return read_run(Folder(str(run)) / "segmenters" / name)


def test_seeds_make_a_segmenter_that_predicts_as_any(run):
    outcome = trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",))
    assert outcome.lines[0].startswith("segmenter cam+dsrg: loss ")
    assert {"loss_seeds", "loss_boundary"} <= facts(run)["curve"][0].keys()
    path = Folder(str(run)) / "segmenters/cam+dsrg"
    assert load_segmenter(path.path("segmenter.safetensors"), CLASSES).num_labels == 3
    compute = Compute(threads=1, num_gpus=0, actors=1)
    config = PredictConfig(run=str(run), predict=Prediction(precision="fp32"), compute=compute)
    assert predict(config, ENGINE).lines == ["predictions cam+dsrg: 3 ok"]
    assert predict(replace(config, labels=("cam+dsrg",)), ENGINE).failed == frozenset()


def test_the_name_is_the_same_with_its_ending_and_without(run):
    first = trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",))
    assert trained(run, "dsrg", ENGINE, TRAINING, labels=("cam+dsrg",)) == first


def test_cues_of_true_squares_learn_what_true_masks_do_in_the_squares(run):
    """The thresholds reach the maps: between them nothing is a cue."""
    strict = replace(TRAINING, cues=(0.95, 0.1))
    trained(run, "dsrg", ENGINE, strict, labels=("cam",))
    trained(run, "dsrg", ENGINE, strict, labels=("truth",))
    seeds, truth = (facts(run, name)["curve"][0] for name in ("cam+dsrg", "truth+dsrg"))
    # of background alone there is one mean in place of two
    assert seeds["loss_seeds"] < 0.7 * truth["loss_seeds"]


def test_maps_are_read_at_their_methods_thresholds_where_none_are_given(run):
    """Those at which label_crf reads the same maps; masks know none."""
    plain, own = replace(TRAINING, cues=()), replace(Thresholds(), cam=(0.8, 0.1))
    trained(run, "dsrg", ENGINE, plain, labels=("cam", "truth"), thresholds=own)
    made = {name: facts(run, f"{name}+dsrg")["config"]["dsrg"] for name in ("cam", "truth")}
    assert made["cam"]["cues"] == [0.8, 0.1]
    assert not made["truth"].get("cues")
    with pytest.raises(ValueError, match=r"was made under another configuration .*cues"):
        trained(run, "dsrg", ENGINE, plain, labels=("cam",))


def test_thresholds_that_are_given_come_before_those_of_the_method(run):
    trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",), thresholds=Thresholds(cam=(0.8, 0.1)))
    assert facts(run)["config"]["dsrg"]["cues"] == [0.35, 0.15]


def test_maps_of_no_method_have_no_thresholds(run):
    with pytest.raises(ValueError, match=r"^'mine' must be a method .*--dsrg.cues 0.3 0.05"):
        thresholds_of(Thresholds(), "mine")


def test_an_image_without_a_cue_is_left_out_and_named(run, samples):
    store_seeds(run, samples[:10], unsure=("i03",))
    outcome = trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",))
    assert outcome.left_out == 1
    assert outcome.lines[1].startswith("left out: 1 images' cues, such as those of i03: map of 'i0")
    assert facts(run)["images"] == 9


def test_no_cue_at_all_is_an_error(run, samples):
    store_seeds(run, samples[:10], unsure=[sample.id for sample in samples])
    with pytest.raises(ValueError, match=r"split 'train' has cues to grow from: 10 have labels, 1"):
        trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",))


def test_other_seeds_or_tags_than_it_has_learnt_from_are_refused(run, samples):
    trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",))
    store_seeds(run, samples[:10], unsure=("i03",))
    with pytest.raises(ValueError, match="was trained on other images or cues than there are now"):
        trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",))
    store_seeds(run, samples[:10])
    trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",))
    store(run, [replace(samples[0], tags=(0, 1)), *samples[1:]])
    with pytest.raises(ValueError, match="was trained on other images or cues than there are now"):
        trained(run, "dsrg", ENGINE, TRAINING, labels=("cam",))
    assert read_manifest(Folder(str(run)) / "manifest").table.num_rows == 16


def test_labels_that_are_not_there_or_not_named_are_refused(run):
    with pytest.raises(FileNotFoundError, match=r"masks/rib holds no masks; .* has: none"):
        trained(run, "dsrg", ENGINE, TRAINING, labels=("rib",))
    with pytest.raises(ValueError, match=r"^labels must name seeds, masks or truth, got none; "):
        train("dsrg", job(run, "dsrg", TRAINING, labels=()), ENGINE)
