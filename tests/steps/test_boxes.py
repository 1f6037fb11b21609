"""From boxes to instances by the jobs: drawn scenes, in the least that each job can do."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rayseg.analyses.boxes import THRESHOLDS
from rayseg.attribution import BBAM, BOX_METHODS
from rayseg.cli import run_job
from rayseg.config import (
    AnalyseBoxesConfig,
    Compute,
    ExportConfig,
    MakeBoxMapsConfig,
    RunConfig,
    as_toml,
)
from rayseg.datasets import DATASETS
from rayseg.learn import DetectorSGD, DetectorTraining, MaskRCNNTraining
from rayseg.nets.detectors import load_detector
from rayseg.nets.weights import to_safetensors
from rayseg.plain import PlainEngine
from rayseg.records.rle import mask_area
from rayseg.refine import BoxThreshold
from rayseg.stages import ANALYSES, DecodeImages, InstancePrediction, MakeBoxMaps
from rayseg.steps.box_analysis import analyse_boxes
from rayseg.steps.boxes import make_box_maps, make_box_masks
from rayseg.steps.exporting import export
from rayseg.steps.preparing import prepare
from rayseg.steps.recipe import run
from rayseg.steps.score import score
from rayseg.steps.training import train
from rayseg.store import (
    Folder,
    count_status,
    read_manifest,
    read_rows,
    read_run,
    read_shard,
    unpack_grid,
    write_run,
    write_shard,
)

pytestmark = pytest.mark.slow
CLASSES = DATASETS["synthetic"]().classes
ENGINE = PlainEngine()
TINY = {
    "trunk": "mobilenet_v2",
    "weights": "none",
    "batch_norm": "frozen",
    "channels": 16,
    "width": 32,
    "min_sides": (64,),
    "test_side": 64,
    "max_side": 64,
    "iterations": 4,
    "batch_size": 2,
    "schedule": DetectorSGD(warmup_steps=2),
    "precision": "fp32",
    "judge_images": 2,
}
ASKED = {"num_jitters": 40, "iou_levels": (0.0,), "precision": "fp32"}
METHOD = BBAM(**ASKED, steps=2, stride_base=8, stride_range=8)
MASKS = "bbam+box_threshold"
COMPUTE = Compute(actors=1, threads=1, num_gpus=0, block_rows=4)
MADE = ("*/*/*.parquet", "*/*.safetensors", "mask_rcnn/*/*.safetensors")


def let_speak(address):
    """Lets a detector that has learnt nothing see cats everywhere, and no background."""
    network = load_detector(address)
    scores = network.boxes.box_predictor.cls_score
    scores.weight.data.mul_(10)
    scores.bias.data[0] = -1000
    scores.bias.data[1 + CLASSES.index("cat")] = 5
    Path(address).write_bytes(to_safetensors(network, network.design.facts))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The configuration of a finished run, and what it said."""
    config = RunConfig(
        run=str(tmp_path_factory.mktemp("boxes")),
        engine="plain",
        supervision="boxes",
        synthetic=DATASETS["synthetic"](count=8, val_count=4, size=96),
        detector=DetectorTraining(**TINY),
        bbam=METHOD,
        box_refiners=("box_threshold",),
        box_threshold=BoxThreshold(foreground=0.5, crf=False),
        mask_rcnn=MaskRCNNTraining(**TINY),
        instances=InstancePrediction(min_score=0.0, max_objects=1000, mask_threshold=0.0),
        labels=(MASKS, "truth"),
        compute=COMPUTE,
        size_bounds_px=(400, 1600),
    )
    prepare(config, ENGINE)
    train("detector", config, ENGINE)
    let_speak(f"{config.run}/detector/detector.safetensors")
    return config, run(config, ENGINE)


@pytest.fixture(scope="module")
def folder(made):
    return Folder(made[0].run)


def maps_config(made, **changed):
    return MakeBoxMapsConfig(**{"run": made[0].run, "bbam": METHOD, "compute": COMPUTE} | changed)


def test_rows_of_box_maps_are_those_of_each_image_by_itself(made, folder):
    manifest = read_manifest(folder / "manifest")
    stage = MakeBoxMaps(METHOD, folder.path("detector/detector.safetensors"), manifest.classes)
    decode = DecodeImages(untagged=True)
    stored = {row["id"]: row for row in read_rows(folder / "box_maps" / "bbam")}
    statuses = Counter()
    for row in manifest.select("train").table.to_pylist():
        (expected,) = stage(decode([row]))
        found = stored.pop(row["id"])
        for name in ("status", "boxes_xyxy", "classes", "object_status", "positives"):
            assert found[name] == expected[name], name
        assert found["box_loss"] == pytest.approx(expected["box_loss"], rel=1e-3)
        for one, other in zip(found["maps"], expected["maps"], strict=True):
            np.testing.assert_allclose(unpack_grid(one), unpack_grid(other), atol=1.5 / 255)
        statuses.update(found["object_status"])
    assert not stored
    assert statuses.keys() == {"ok", "missed"}


def times(folder):
    paths = [path for pattern in MADE for path in Path(folder.location).glob(pattern)]
    return {str(path): os.stat(path).st_mtime_ns for path in paths}


def test_a_second_start_repeats_nothing(made, folder):
    before = times(folder)
    again = run(made[0], ENGINE)
    assert len(before) > 6
    assert times(folder) == before
    assert again == made[1]


@pytest.mark.parametrize(
    ("job", "changed", "said"),
    [
        (make_box_maps, {"bbam": replace(METHOD, steps=3)}, "bbam.steps is 2 there, 3 here"),
        (make_box_maps, {"boxes": "predicted"}, "boxes is given there, predicted here"),
        (make_box_masks, {"box_threshold": BoxThreshold(crf=False)}, "box_threshold.foreground is"),
        (partial(train, "detector"), {"train_split": "val"}, "split is train there, val here"),
    ],
)
def test_another_configuration_on_the_folder_is_refused(made, job, changed, said):
    with pytest.raises(ValueError, match=f"was made under another configuration .*{said}"):
        job(replace(made[0], **changed), ENGINE)


@pytest.fixture
def copied(made, tmp_path):
    """The finished run once more, to be changed."""
    shutil.copytree(made[0].run, tmp_path / "copy")
    return replace(made[0], run=str(tmp_path / "copy"), labels=(MASKS,))


def test_a_training_on_fewer_masks_is_not_taken_for_one_on_all(copied):
    masks = Folder(copied.run) / "masks" / MASKS
    masks.delete(masks.names(".parquet")[0])
    with pytest.raises(
        ValueError, match=r"trained_on.images is \d there, \d here.*; --compute.rem"
    ):
        train("mask_rcnn", copied, ENGINE)


def test_a_training_on_images_that_were_not_recorded_is_refused(copied):
    network = Folder(copied.run) / "mask_rcnn" / MASKS
    config = read_run(network)["config"]
    del config["trained_on"]
    write_run(network, {"config": config})
    with pytest.raises(
        ValueError, match=r"trained_on is None there, .* here\); --compute.remake-s"
    ):
        train("mask_rcnn", copied, ENGINE)


def test_maps_that_a_killed_job_left_unfinished_make_no_masks(copied):
    write_run(Folder(copied.run) / "box_maps" / "bbam", {"counts": None})
    with pytest.raises(
        ValueError, match=r"box_maps/bbam is not complete; run `rayseg make-box-maps "
    ):
        make_box_masks(copied, ENGINE)


def test_labels_that_the_run_will_not_have_are_refused_at_the_start(made):
    with pytest.raises(ValueError, match=r"labels must be of .*got 'bbam\+box_crf'"):
        run(replace(made[0], labels=("bbam+box_crf",)), ENGINE)


def forget_places(folder, name):
    """Makes a shard one of before rows had places."""
    assert write_shard(folder, read_shard(folder, name).drop_columns(["places"])) == name


@pytest.mark.parametrize("old", [0, 1])
def test_a_run_of_before_rows_had_places_is_resumed_and_scored_the_same(copied, scores, old):
    maps, masks = (Folder(copied.run) / name for name in ("box_maps/bbam", f"masks/{MASKS}"))
    assert len(masks.names(".parquet")) == 2
    before = {row["id"]: row for row in read_rows(masks)}
    for row in before.values():
        assert row["places"] == list(range(len(row["classes"])))
    forget_places(maps, maps.names(".parquet")[old])
    forget_places(masks, masks.names(".parquet")[old])
    masks.delete(masks.names(".parquet")[1 - old])
    make_box_masks(copied, ENGINE)
    after = {row["id"]: row for row in read_rows(masks)}
    for id_, row in before.items():
        assert (after[id_].get("places") or row["places"]) == row["places"]
        assert after[id_]["foreground"] == row["foreground"]
    assert any(row.get("places") for row in after.values())
    assert not all(row.get("places") for row in after.values())
    score(copied, ENGINE)
    again = json.loads(Folder(copied.run).read("scores.json"))
    assert again[f"objects/{MASKS}"] == scores[f"objects/{MASKS}"]


@pytest.fixture(scope="module")
def scores(folder):
    return json.loads(folder.read("scores.json"), parse_constant=pytest.fail)


def test_masks_of_objects_are_scored_by_the_objects_own_truth(made, folder, scores):
    entry = scores[f"objects/{MASKS}"]
    boxes = read_manifest(folder / "manifest").select("train").table.column("boxes_xyxy")
    assert entry["objects"] == sum(map(len, boxes.to_pylist()))
    assert 0 < entry["mean_iou"] < 1
    assert scores[f"masks/{MASKS}"]["images"] == 8


def test_instances_are_scored_and_held_against_full_supervision(scores):
    weak, full = scores[f"instances/{MASKS}"], scores["instances/truth"]
    assert (weak["images"], weak["images_with_masks"]) == (4, 4)
    assert 0 < weak["abo"] < 1
    assert weak["of_full_supervision"]["abo"] == weak["abo"] / full["abo"]
    assert "of_full_supervision" not in full


def test_a_share_of_full_supervision_on_other_images_is_told(made, scores):
    told = [line for line in made[1].lines if "trained on other images" in line]
    assert bool(told) == ("trained_on" in scores[f"instances/{MASKS}"])


def test_the_run_says_each_training_and_the_table(made):
    said = [line.split()[0].rstrip(":") for line in made[1].lines]
    for name in ("detector", "box", "masks", "mask", f"objects/{MASKS}", f"instances/{MASKS}"):
        assert name in said, name
    assert any("AP50 of full" in line or "ABO of full" in line for line in made[1].lines)
    assert not made[1].failed


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
@pytest.mark.parametrize("name", [MASKS, f"instances/{MASKS}"])
def test_an_export_loads_in_pycocotools(made, folder, name, tmp_path):
    export(ExportConfig(run=made[0].run, masks=name, format="coco", out=str(tmp_path)), ENGINE)
    (path,) = tmp_path.glob("instances_*.json")
    read = COCO(str(path))
    stored = name if name.startswith("instances/") else f"masks/{name}"
    areas = [
        mask_area(counts, (row["height"], row["width"]))
        for row in read_rows(folder / stored)
        for counts in row["foreground"]
    ]
    assert any(areas)
    assert sorted(one["area"] for one in read.anns.values()) == sorted(filter(None, areas))
    assert all(read.annToMask(one).sum() == one["area"] for one in read.anns.values())


def test_the_report_has_a_section_of_objects(folder):
    page = folder.read("report.html").decode()
    section = page.partition('<section id="objects">')[2]
    assert MASKS in section
    assert "Mask R-CNN" in section


def test_what_is_bad_costs_its_own_row_or_object_and_is_said(made, folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = list(read_manifest(folder / "manifest").select("train").table.to_pylist())
    for name, row in zip(("good", "bare", "cut"), rows, strict=False):
        Image.open(row["path"]).save(photos / f"{name}.png")
    data = (photos / "cut.png").read_bytes()
    (photos / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "tags.csv").write_text("image,tags\ngood.png,cat\nbare.png,dog\ncut.png,cat\n")
    boxes = ["4,4,80,90", "200,200,260,260", "10,10,10,40", "60,60,20,20"]
    lines = [f"good.png,cat,{box}" for box in boxes] + [f"cut.png,cat,{boxes[0]}"]
    (tmp_path / "boxes.csv").write_text("\n".join(["image,class,x1,y1,x2,y2", *lines, ""]))
    own = DATASETS["folder"](
        images=photos, tags=tmp_path / "tags.csv", boxes=tmp_path / "boxes.csv", class_names=CLASSES
    )
    config = replace(
        made[0],
        run=str(tmp_path / "run"),
        data="folder",
        folder=own,
        until="masks",
        labels=(),
        detector_weights=folder.path("detector/detector.safetensors"),
    )
    (tmp_path / "run.toml").write_text(as_toml(config))
    assert run_job("run", ["--config", str(tmp_path / "run.toml")]) == 3
    said = capsys.readouterr().out
    assert "left out: 2 boxes: box has no area" in said
    assert "left out: 1 boxes: box lies outside its image" in said
    assert "1 images have no result" in said
    own = Folder(config.run)
    expected = {"empty": 1, "error": 1, "ok": 1}
    assert count_status(own / "box_maps" / "bbam") == expected
    assert count_status(own / "masks" / MASKS) == expected
    (row,) = [one for one in read_rows(own / "masks" / MASKS) if one["status"] == "ok"]
    assert [bool(counts) for counts in row["foreground"]] == [True]


def analysis_config(config, **changed):
    small = {
        "run": config.run,
        "max_images": 4,
        "amounts": (-0.1, 0.0),
        "fixed_strides": (12,),
        "noise_refiner": "box_threshold",
        "box_threshold": config.box_threshold,
        "compute": replace(COMPUTE, block_rows=2),
        **{name: replace(kind(), **ASKED) for name, kind in BOX_METHODS.items()},
    }
    return AnalyseBoxesConfig(**small | {"bbam": METHOD} | changed)


def test_each_analysis_leaves_a_table_and_a_picture(made, folder):
    config = analysis_config(made[0])
    outcome = analyse_boxes(config, ENGINE)
    said = [line.partition(":")[0] for line in outcome.lines]
    assert said == [part for name in config.analyses for part in (f"analysis {name}", name)]
    for name in config.analyses:
        own = folder / "analyses" / name
        assert Image.open(own.open(f"{name}.png")).size > (300, 300)
        assert {f"{name}.json", f"{name}.png", "run.json"} <= set(own.names())
    tables = {name: json.loads(folder.read(f"analyses/{name}/{name}.json")) for name in ANALYSES}
    assert tables["noise"]["amounts"] == [-0.1, 0.0]
    assert len(tables["heads"]["box_head"]["box_loss"]) == METHOD.steps
    for name in ("strides", "methods"):
        for one in tables[name]["kinds"].values():
            assert len(one["iou_by_threshold"]) == len(THRESHOLDS)
    assert list(tables["methods"]["kinds"]) == list(BOX_METHODS)
    assert list(tables["strides"]["kinds"]) == ["adaptive", "stride 12"]


def test_an_analysis_goes_on_where_it_was_stopped(made, folder):
    config, own = analysis_config(made[0], analyses=("heads",)), folder / "analyses/heads"
    analyse_boxes(config, ENGINE)
    before = {row["id"]: row["objects"] for row in read_rows(own)}
    kept, lost = sorted(own.names(".parquet"))
    time = Path(own.path(kept)).stat().st_mtime_ns
    own.delete(lost)
    analyse_boxes(config, ENGINE)
    assert {row["id"]: row["objects"] for row in read_rows(own)} == before
    assert Path(own.path(kept)).stat().st_mtime_ns == time
