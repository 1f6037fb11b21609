"""Segmenters by stored and by true masks, what they predict, and the ratio of their scores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.config import TRAIN_CONFIGS, Compute, PredictConfig, RunConfig, ScoreConfig
from rayseg.learn import SegmentationCrops, SegmenterSGD, SegmenterTraining
from rayseg.nets.deeplab import load_segmenter
from rayseg.nets.prediction import Prediction
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.records.palette import decode_labels, encode_labels
from rayseg.refine.segmenter_crf import SegmenterCRF
from rayseg.steps.predictions import predict
from rayseg.steps.recipe import wrong_labels
from rayseg.steps.score import score
from rayseg.steps.scoring import _add_ratios
from rayseg.steps.starting import refuse
from rayseg.steps.training import train as train_on
from rayseg.store import (
    MASKS_SCHEMA,
    Folder,
    claim,
    read_rows,
    read_run,
    rows_to_table,
    write_manifest,
    write_run,
    write_shard,
)

ENGINE = PlainEngine()
pytestmark = pytest.mark.slow
CROPS = {"crop": 40, "scales": (0.75, 1.0)}
CONFIG = SegmenterTraining(
    trunk="mobilenet_v2",
    stride=16,
    weights="none",
    batch_norm="frozen",
    iterations=12,
    batch_size=4,
    accumulate=2,
    loss="cross_entropy",
    crops=SegmentationCrops(**CROPS),
    schedule=SegmenterSGD(lr=0.002),
    precision="fp32",
    log_every=2,
    save_every=5,
)


def new_run(folder, **changed):
    """A run of 10 train and 4 val images; a green square on grey is class 0, a red one class 1."""
    rng = np.random.default_rng(0)
    samples, masks = [], []
    (folder / "images").mkdir(parents=True)
    for n in range(14):
        pixels = rng.integers(90, 120, (48, 48, 3), np.uint8)
        labels = np.zeros((48, 48), np.uint8)
        top, left = rng.integers(0, 28, 2)
        pixels[top : top + 20, left : left + 20, 1 - n % 2] = 220
        labels[top : top + 20, left : left + 20] = 1 + n % 2
        path, mask = folder / "images" / f"i{n:02d}.png", folder / "images" / f"m{n:02d}.png"
        Image.fromarray(pixels).save(path)
        mask.write_bytes(encode_labels(labels))
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        split = "val" if n >= 10 else "train"
        samples.append(Sample(f"i{n:02d}", str(path), 48, 48, (n % 2,), *none, split, str(mask)))
        masks.append({"id": f"i{n:02d}", "status": "ok", "height": 48, "width": 48})
        masks[-1]["labels"] = encode_labels(labels)
    run = Folder(str(folder))
    claim(run / "manifest", {"data": "drawn"})
    write_manifest(run / "manifest", samples, ("green", "red"))
    store_masks(run, masks[:10])
    compute = Compute(threads=1, num_gpus=0)
    options = {"labels": ("made",), "segmenter": CONFIG, "compute": compute} | changed
    return TRAIN_CONFIGS["segmenter"](run=str(folder), **options)


def store_masks(run, rows):
    masks = run / "masks" / "made"
    masks.remove()
    claim(masks, {"made": "by hand"})
    write_shard(masks, rows_to_table(rows, MASKS_SCHEMA))
    write_run(masks, {"counts": {"ok": len(rows)}})


def facts(config, name="made"):
    return read_run(Folder(config.run) / "segmenters" / name)


def curve(config, name="made"):
    return [entry["loss"] for entry in facts(config, name)["curve"]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Twelve iterations by one worker on stored and on true masks, without any incident."""
    config = new_run(tmp_path_factory.mktemp("one"), labels=("made", "truth"))
    return config, train_on("segmenter", config, ENGINE)


def test_training_leaves_weights_that_load_and_cleans_up(trained):
    folder = Path(trained[0].run) / "segmenters" / "made"
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".run-copy.json", "run.json", "segmenter.safetensors"]
    network = load_segmenter(str(folder / "segmenter.safetensors"), ["green", "red"])
    assert network.num_labels == 3


def test_the_curve_has_the_mean_of_every_two_losses_and_val_is_judged_at_checkpoints(trained):
    told = facts(trained[0])
    assert [entry["iteration"] for entry in told["curve"]] == [2, 4, 6, 8, 10, 12]
    assert [entry["iteration"] for entry in told["judged"]] == [5, 10, 12]
    assert {entry["images"] for entry in told["judged"]} == {4}
    assert curve(trained[0])[-1] < 0.9 * curve(trained[0])[0]


def test_stored_masks_that_equal_the_truth_give_its_training_to_the_bit(trained):
    assert curve(trained[0], "made") == curve(trained[0], "truth")


def test_the_job_says_what_came_out(trained):
    lines = trained[1].lines
    assert len(lines) == 2
    assert lines[0].startswith("segmenter made: loss ")
    assert " after 12 iterations on 10 images, val mIoU " in lines[0]


def test_a_training_on_fewer_masks_is_not_taken_for_one_on_all(trained, tmp_path):
    copy = shutil.copytree(trained[0].run, tmp_path / "copy")
    config = replace(trained[0], run=str(copy), labels=("made",))
    masks = Folder(config.run) / "masks" / "made"
    store_masks(Folder(config.run), list(read_rows(masks))[:7])
    with pytest.raises(
        ValueError, match=r"trained_on.images is 10 there, 7 here.*; --compute.remak"
    ):
        train_on("segmenter", config, ENGINE)


def test_a_run_refuses_labels_that_it_will_not_have(tmp_path):
    config = new_run(tmp_path / "typo")
    given = RunConfig(run=config.run, labels=("advcam+label_crff",))
    with pytest.raises(ValueError, match=r"got 'advcam\+label_crff'; did you mean 'advcam\+label_"):
        refuse(wrong_labels(given))
    refuse(wrong_labels(RunConfig(run=config.run, labels=("truth", "made"))))


# Prediction


def predict_config(config, **changed):
    prediction = Prediction(precision="fp32")
    compute = replace(config.compute, block_rows=2, actors=1)
    return PredictConfig(**{"run": config.run, "predict": prediction, "compute": compute} | changed)


def labels_of(config, name):
    rows = read_rows(Folder(config.run) / "predictions" / name)
    return {row["id"]: decode_labels(row["labels"]) for row in rows}


@pytest.fixture(scope="module")
def predicted(trained):
    return predict(predict_config(trained[0]), ENGINE)


def test_every_val_image_gets_labels_of_its_size(trained, predicted):
    assert predicted.lines == ["predictions made: 4 ok", "predictions truth: 4 ok"]
    labels = labels_of(trained[0], "made")
    assert sorted(labels) == [f"i{n}" for n in range(10, 14)]
    assert {one.shape for one in labels.values()} == {(48, 48)}


def test_a_crf_after_it_fills_a_folder_of_its_own(trained, predicted):
    outcome = predict(predict_config(trained[0], labels=("made",), crf=True), ENGINE)
    assert outcome.lines == ["predictions made+crf: 4 ok"]
    smooth = labels_of(trained[0], "made+crf")
    assert smooth.keys() == labels_of(trained[0], "made").keys()
    weights = Path(trained[0].run) / "segmenters" / "made" / "segmenter.safetensors"
    prediction = Prediction(precision="fp32")
    network = prediction.prepare(load_segmenter(str(weights)), torch.device("cpu"))
    for id_, labels in smooth.items():
        pixels = np.array(Image.open(Path(trained[0].run) / "images" / f"{id_}.png"))
        planes = prediction(network, torch.from_numpy(pixels[None]))[0].numpy()
        assert np.mean(labels == SegmenterCRF()(pixels, planes)) > 0.99  # planes travel as float16


def test_scores_have_the_share_of_full_supervision(trained, predicted):
    config = ScoreConfig(run=trained[0].run, compute=trained[0].compute)
    score(config, ENGINE)
    entries = json.loads(Folder(config.run).read("scores.json"))
    made, truth = entries["predictions/made"], entries["predictions/truth"]
    assert (made["split"], made["images"]) == ("val", 4)
    ratios = made["of_full_supervision"]
    assert ratios["miou"] == pytest.approx(made["miou"] / truth["miou"])
    assert ratios["over"] is None
    assert "of_full_supervision" not in truth
    assert entries["masks/made"]["split"] == "train"


def test_a_ratio_is_taken_only_between_equal_settings(trained, predicted):
    run = Folder(trained[0].run)

    def entry(miou, images=4):
        means = {"miou": miou}
        return {"images": images, "miou": miou, "over": {"miou": None}, "present": means}

    entries = {"predictions/made": entry(0.3), "predictions/truth": entry(0.4)}
    _add_ratios(run, entries)
    ratios = entries["predictions/made"]["of_full_supervision"]
    assert ratios == {"miou": pytest.approx(0.75), "over": None, "present": pytest.approx(0.75)}
    assert "of_full_supervision" not in entries["predictions/truth"]
    fewer = {"predictions/made": entry(0.3), "predictions/truth": entry(0.4, images=3)}
    _add_ratios(run, fewer)
    assert "of_full_supervision" not in fewer["predictions/made"]
    apart = {"predictions/made+crf": entry(0.3), "predictions/truth": entry(0.4)}
    _add_ratios(run, apart)
    assert "of_full_supervision" not in apart["predictions/made+crf"]


def test_a_ratio_of_trainings_on_other_images_says_so(tmp_path):
    run, means = Folder(str(tmp_path)), {"miou": 0.4}
    for name, number in (("made", 4), ("truth", 9)):
        config = {"trained_on": {"images": number, "list": name}}
        write_run(run / "segmenters" / name, {"config": config})
    entries = {
        f"predictions/{name}": {"images": 4, "miou": 0.4, "over": means, "present": means}
        for name in ("made", "truth")
    }
    _add_ratios(run, entries)
    made = entries["predictions/made"]
    assert made["of_full_supervision"]["miou"] == 1
    assert made["trained_on"] == {"images": 4, "full": 9}


def test_a_segmenter_of_other_classes_is_refused(trained, tmp_path):
    run = Folder(str(tmp_path))
    source = Folder(trained[0].run)
    data = (source / "segmenters" / "made").read("segmenter.safetensors")
    (run / "segmenters" / "made").write("segmenter.safetensors", data)
    write_run(run / "segmenters" / "made", {"done": True})
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    write_manifest(run / "manifest", [Sample("a", "a.png", 8, 8, (), *none, "val")], ("green",))
    with pytest.raises(ValueError, match=r"segmenter.safetensors was trained on 2 classes"):
        predict(PredictConfig(run=str(tmp_path)), ENGINE)


def test_predicting_without_a_segmenter_says_what_to_do(tmp_path):
    config = new_run(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"has no segmenter; train one with train-segment"):
        predict(predict_config(config), ENGINE)
    with pytest.raises(FileNotFoundError, match=r"segmenters/made holds no trained segmenter; the"):
        predict(predict_config(config, labels=("made",)), ENGINE)
