"""Ray stores the rows of the plain loop, whatever the job; a bad image costs its own row only."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rayseg.attribution import BBAM, CAM
from rayseg.config import (
    Compute,
    MakeBoxMapsConfig,
    MakeBoxMasksConfig,
    MakeSeedsConfig,
    PredictConfig,
    PredictInstancesConfig,
    RefineSeedsConfig,
)
from rayseg.nets.detectors import load_detector
from rayseg.nets.prediction import Prediction
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.engine import RayEngine
from rayseg.plain import PlainEngine
from rayseg.refine import BoxThreshold
from rayseg.stages import InstancePrediction
from rayseg.steps.boxes import make_box_maps, make_box_masks
from rayseg.steps.masks import refine_seeds
from rayseg.steps.predictions import predict, predict_instances
from rayseg.steps.seeds import make_seeds
from rayseg.store import Folder, read_rows
from tests.learn.tiny import scenes, store, tiny, trained

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]
PLAIN = PlainEngine()
COMPUTE = Compute(actors=1, threads=1, num_gpus=0, block_rows=4)
FP32 = {"precision": "fp32"}
BROKEN = ("i03", "i11")

FAMILIES = {
    "seeds/cam": (make_seeds, MakeSeedsConfig(methods=("cam",), cam=CAM(scales=(1.0,), **FP32))),
    "masks/cam+threshold": (
        refine_seeds,
        RefineSeedsConfig(methods=("cam",), refiners=("threshold",)),
    ),
    "box_maps/bbam": (
        make_box_maps,
        MakeBoxMapsConfig(
            bbam=BBAM(num_jitters=40, iou_levels=(0.0,), steps=2, stride_base=8, **FP32)
        ),
    ),
    "masks/bbam+box_threshold": (
        make_box_masks,
        MakeBoxMasksConfig(
            box_refiners=("box_threshold",), box_threshold=BoxThreshold(foreground=0.5, crf=False)
        ),
    ),
    "predictions/truth+crf": (
        predict,
        PredictConfig(labels=("truth",), crf=True, predict=Prediction(**FP32)),
    ),
    "instances/truth": (
        predict_instances,
        PredictInstancesConfig(
            labels=("truth",), instances=InstancePrediction(min_score=0.0, max_objects=20)
        ),
    ),
}
"""What a job fills: the job and its settings, in the order in which they need each other."""


def let_speak(address):
    """Lets a detector that has learnt nothing see class 0 everywhere, and no background."""
    network = load_detector(address)
    scores = network.boxes.box_predictor.cls_score
    scores.weight.data.mul_(10)
    scores.bias.data[0] = -1000
    scores.bias.data[1] = 5
    Path(address).write_bytes(to_safetensors(network, network.design.facts))


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory):
    """Two equal runs with networks, filled by the plain loop and by Ray, where 2 images are bad."""
    plain, ray = (tmp_path_factory.mktemp("runs") / name for name in ("plain", "ray"))
    samples = scenes(plain / "images")
    store(plain, samples)
    for kind in ("classifier", "detector", "segmenter", "mask_rcnn"):
        length = {"epochs": 1} if kind == "classifier" else {"iterations": 1}
        trained(plain, kind, PLAIN, tiny(kind, judge_images=0, **length))
    let_speak(str(plain / "detector" / "detector.safetensors"))
    for one in samples:
        if one.id in BROKEN:
            Path(one.path).write_text("<html>")
    shutil.copytree(plain, ray)
    for run, engine in ((plain, PLAIN), (ray, RayEngine())):
        for job, config in FAMILIES.values():
            job(replace(config, run=str(run), compute=COMPUTE), engine)
    return plain, ray


def rows_of(run, name):
    rows = read_rows(Folder(str(run)) / name)
    return {row["id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


@pytest.mark.parametrize("name", FAMILIES)
def test_ray_stores_the_rows_of_the_plain_loop(runs, name):
    expected, found = (rows_of(run, name) for run in runs)
    statuses = {row["status"] for row in expected.values()}
    assert statuses == {"ok", "error"}
    assert {id_ for id_, row in found.items() if row["status"] == "error"} <= set(BROKEN)
    assert found == expected
