"""Seeds and masks: a row for each image, bound to their configuration, resumed."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.attribution import CAM
from rayseg.config import Compute, MakeSeedsConfig, RefineSeedsConfig
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.stages import MakeSeeds
from rayseg.steps.engine import Images, Pool
from rayseg.steps.masks import refine_seeds
from rayseg.steps.seeds import make_seeds
from rayseg.store import (
    SEEDS_SCHEMA,
    Folder,
    read_manifest,
    read_rows,
    read_run,
    write_manifest,
    write_run,
)

ENGINE = PlainEngine()
CLASSES = ("cat", "dog")
METHOD = CAM(scales=(1.0,), precision="fp32")
COMPUTE = Compute(threads=1, num_gpus=0, block_rows=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 17 images of two sizes (one bad, one black-cornered, one untagged) and 3 of val."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    samples = []
    for n in range(20):
        size_hw = (48, 48) if n % 3 else (48, 64)
        pixels = rng.integers(1, 256, (*size_hw, 3), np.uint8)
        if n == 9:
            pixels[0, 0] = 0
        path = folder / f"i{n:02d}.png"
        Image.fromarray(pixels).save(path)
        if n == 5:
            path.write_bytes(path.read_bytes()[:200])
        tags = ((), (0,), (0, 1), (1,))[n % 4 if n in (4, 1, 2) else n % 3 + 1]
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        split = "val" if n >= 17 else "train"
        samples.append(Sample(f"i{n:02d}", str(path), *size_hw, tags, *none, split=split))
    write_manifest(Folder(str(folder / "manifest")), samples, CLASSES)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    data = to_safetensors(CamClassifier("resnet18", 2), facts)
    (folder / "classifier").mkdir()
    (folder / "classifier" / "classifier.safetensors").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def weights(run):
    return str(run / "classifier" / "classifier.safetensors")


@pytest.fixture(scope="module")
def made(run):
    """Seeds of the train images by the job, and what it said."""
    outcome = make_seeds(config(run), ENGINE)
    return Folder(str(run / "seeds" / "cam")), outcome


def config(run, **changed):
    return MakeSeedsConfig(
        **{"run": str(run), "methods": ("cam",), "cam": METHOD, "compute": COMPUTE} | changed
    )


def by_id(rows):
    return {row["id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


def test_each_image_has_a_row_and_a_bad_one_costs_its_own_only(made):
    rows = by_id(read_rows(made[0]))
    assert sorted(rows) == [f"i{n:02d}" for n in range(17)]
    statuses = {id_: row["status"] for id_, row in rows.items() if row["status"] != "ok"}
    assert statuses == {"i04": "empty", "i05": "error"}
    assert "i05.png" in rows["i05"]["error"]


def test_the_job_says_what_came_out(made):
    folder, outcome = made
    assert outcome.failed == {"i05"}
    assert outcome.lines == ["seeds cam: 1 empty, 1 error, 15 ok"]
    assert read_run(folder)["counts"] == {"empty": 1, "error": 1, "ok": 15}


@dataclass(frozen=True)
class PickyCAM(CAM):
    """CAM that fails on a batch in which an image starts with a black pixel."""

    def run(self, network, images, classes, map_stride=1, ids=None):
        if (images[:, 0, 0] == 0).all(-1).any():
            raise RuntimeError("black corner")
        return super().run(network, images, classes, map_stride, ids)


def test_a_method_that_fails_on_one_image_costs_no_neighbour(run, weights, tmp_path):
    table = read_manifest(Folder(str(run / "manifest"))).select("train").table
    method = PickyCAM(scales=(1.0,), precision="fp32")
    make = partial(MakeSeeds, method, weights, CLASSES, "cpu", 1)
    out = Folder(str(tmp_path))
    compute = replace(COMPUTE, block_rows=8)
    ENGINE.fill(Images(table, untagged=False), Pool(make), out, SEEDS_SCHEMA, "picky", compute)
    rows = by_id(read_rows(out))
    assert rows["i09"]["error"] == "RuntimeError: black corner"
    assert sum(row["status"] == "ok" for row in rows.values()) == 14


def test_a_second_run_computes_nothing(run, made):
    before = read_run(made[0])["seconds"], made[0].names(".parquet")
    assert make_seeds(config(run), ENGINE).lines == made[1].lines
    assert (read_run(made[0])["seconds"], made[0].names(".parquet")) == before


def test_another_configuration_is_refused_naming_what_differs(run, made):
    with pytest.raises(ValueError, match=r"another configuration \(cam.flip is True there, False"):
        make_seeds(config(run, cam=replace(METHOD, flip=False)), ENGINE)


def test_other_weights_are_refused(run, made, tmp_path):
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    other = tmp_path / "other.safetensors"
    other.write_bytes(to_safetensors(CamClassifier("resnet18", 2), facts))
    with pytest.raises(ValueError, match=r"\(weights\); --compute.remake-stale makes it anew"):
        make_seeds(config(run, weights=str(other)), ENGINE)


def test_how_widely_a_job_runs_may_change(run, made):
    compute = replace(COMPUTE, block_rows=1)
    changed = config(run, cam=replace(METHOD, max_pairs=3), compute=compute)
    assert make_seeds(changed, ENGINE).lines == made[1].lines


def test_failed_images_are_tried_again_when_asked_and_other_splits_join(run, made):
    path = run / "i05.png"
    broken = path.read_bytes()
    Image.new("RGB", (48, 48), (9, 9, 9)).save(path)
    manifest = read_manifest(Folder(str(run / "manifest")))
    write_manifest(Folder(str(run / "manifest")), list(manifest.samples()), manifest.classes)
    once_more = replace(COMPUTE, retry_failed=True)
    outcome = make_seeds(config(run, split="", compute=once_more), ENGINE)
    path.write_bytes(broken)
    assert not outcome.failed
    rows = [row["id"] for row in read_rows(made[0])]
    assert sorted(rows) == [f"i{n:02d}" for n in range(20)]


def test_masks_follow_their_seeds_row_by_row(run, made):
    refine = RefineSeedsConfig(
        run=str(run), methods=("cam",), refiners=("threshold",), compute=COMPUTE
    )
    outcome = refine_seeds(refine, ENGINE)
    seeds = {row["id"]: row["status"] for row in read_rows(made[0])}
    masks = {row["id"]: row["status"] for row in read_rows(Folder(f"{run}/masks/cam+threshold"))}
    assert {id_ for id_ in masks if masks[id_] == "empty"} == {"i04"}
    assert masks.keys() == seeds.keys()
    assert refine_seeds(refine, ENGINE).lines == outcome.lines
    write_run(made[0], {"counts": None})  # as a job that was killed leaves it
    with pytest.raises(
        ValueError,
        match=r"seeds/cam is not complete; run `rayseg make-seeds --run .* --methods cam` once",
    ):
        refine_seeds(refine, ENGINE)
