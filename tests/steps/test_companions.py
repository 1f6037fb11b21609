"""What seeds by companions say, and what they and others follow from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.attribution import CAM, RIB, AdvCAM
from rayseg.config import Compute, MakeSeedsConfig
from rayseg.learn import Crops
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.stages import CompanionBank
from rayseg.steps.seeds import identity, make_seeds
from rayseg.steps.weights import find_weights
from rayseg.store import Folder, read_rows, read_run, write_manifest
from tests.on_ray.fakes import CountedCrops

ENGINE = PlainEngine()
CLASSES = ("cat", "dog", "emu")
TINY_RIB = RIB(
    scales=(1.0,), unpooled_scales=(), num_steps=3, num_companions=2, precision="fp32",
    learning_rate=1e-3, explosion_share=1.0, margin=float("inf"),
)  # fmt: skip
TINY_ADVCAM = AdvCAM(scales=(1.0,), num_steps=1, precision="fp32")
CROPS = Crops(crop=32, long_side=(24, 40))
BANK = CompanionBank(images=6, crops=CROPS)
COMPUTE = Compute(threads=1, num_gpus=0, block_rows=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Nine train images of two sizes, one of them bad; two of val; a classifier."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = []
    for n in range(11):
        size_hw = (32, 32) if n % 2 else (32, 48)
        path = folder / f"i{n:02d}.png"
        Image.fromarray(rng.integers(0, 256, (*size_hw, 3), np.uint8)).save(path)
        if n == 4:
            path.write_bytes(b"no image")
        split = "train" if n < 9 else "val"
        tags = (0, 1, 2) if n == 8 else (n % 3,)
        samples.append(Sample(f"i{n:02d}", str(path), *size_hw, tags, *none, split=split))
    write_manifest(Folder(str(folder / "manifest")), samples, CLASSES)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    data = to_safetensors(CamClassifier("resnet18", 3), facts)
    Folder(str(folder / "classifier")).write("classifier.safetensors", data)
    return folder


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """RIB, and AdvCAM on its weights, by the job: its outcome and how many crops were cut."""
    marks = tmp_path_factory.mktemp("cut")
    crops = CountedCrops(CROPS.crop, CROPS.long_side, marks=str(marks))
    outcome = make_seeds(config(run, companions=replace(BANK, crops=crops)), ENGINE)
    return outcome, len(list(marks.iterdir()))


def config(run, **changed):
    given = {
        "run": str(run), "methods": ("rib", "advcam+rib"), "rib": TINY_RIB, "advcam": TINY_ADVCAM,
        "compute": COMPUTE, "companions": BANK,
    }  # fmt: skip
    return MakeSeedsConfig(**given | changed)


def stored(folder):
    return {row["id"]: row for row in read_rows(Folder(str(folder)))}


def test_a_bad_image_costs_its_own_row_and_none_of_the_bank(run, made):
    rows = stored(run / "seeds" / "rib")
    assert [id_ for id_ in sorted(rows) if rows[id_]["status"] != "ok"] == ["i04"]
    assert made[0].failed == {"i04"}


def test_the_bank_is_cut_once_for_all_methods_and_actors(made):
    assert made[1] == BANK.images


def test_the_job_says_how_many_images_had_companions_like_them(run, made):
    assert made[0].lines == [
        "seeds rib: 1 error, 8 ok",
        "seeds rib: 1 images had companions that share a class with them",
        "seeds advcam+rib: 1 error, 8 ok",
        "seeds advcam+rib: 1 images had companions that share a class with them",
    ]
    assert "share a class" in stored(run / "seeds" / "rib")["i08"]["note"]


def test_a_folder_is_bound_to_method_weights_and_bank(run, made):
    bound = read_run(Folder(str(run / "seeds" / "advcam+rib")))["config"]
    assert set(bound) == {"advcam", "rib", "weights", "companions"}
    assert bound["companions"]["images"] == 6
    crops = CountedCrops(CROPS.crop, CROPS.long_side, marks=bound["companions"]["crops"]["marks"])
    other = config(run, companions=replace(BANK, crops=crops, seed=1))
    with pytest.raises(ValueError, match=r"companions.seed is 0 there, 1 here"):
        make_seeds(other, ENGINE)


def test_a_job_without_need_of_companions_cuts_none(run, tmp_path):
    """The crops' marks would go to a folder that is not there."""
    crops = CountedCrops(CROPS.crop, CROPS.long_side, marks=str(tmp_path / "nowhere"))
    cam = CAM(scales=(1.0,), precision="fp32")
    asked = config(run, methods=("cam",), cam=cam, companions=replace(BANK, crops=crops))
    outcome = make_seeds(asked, ENGINE)
    assert outcome.lines == ["seeds cam: 1 error, 8 ok"]


# What a job works on


def test_only_methods_that_use_companions_are_bound_to_the_bank(run):
    settings = config(run, rib=replace(TINY_RIB, num_companions=0))
    assert set(identity(settings, "advcam", "f")) == {"advcam", "weights"}
    assert set(identity(settings, "rib", "f")) == {"rib", "weights"}
    assert set(identity(config(run), "rib", "f")) == {"rib", "weights", "companions"}


def test_what_changes_rounding_only_binds_nothing(run):
    one = config(run)
    other = config(run, rib=replace(TINY_RIB, max_pairs=7, graph_gb=3.0, cache_gb=0.1))
    assert identity(one, "advcam+rib", "f") == identity(other, "advcam+rib", "f")
    slower = config(run, rib=replace(TINY_RIB, num_steps=4))
    assert identity(one, "advcam+rib", "f") != identity(slower, "advcam+rib", "f")


def test_weights_are_the_runs_own_unless_others_are_given(run):
    own = str(run / "classifier" / "classifier.safetensors")
    assert find_weights(config(run), "classifier") == own
    assert find_weights(config(run, weights="/a/b"), "classifier") == "/a/b"
    given = config(run, weights="/a/b", ficklenet_weights="s3://a/c")
    assert find_weights(given, "ficklenet") == "s3://a/c"


@pytest.mark.parametrize("kind", ["classifier", "ficklenet"])
def test_missing_weights_say_how_to_make_them(tmp_path, kind):
    with pytest.raises(
        FileNotFoundError, match=f"{kind} holds no {kind}.safetensors; make it with `rayseg train-"
    ):
        find_weights(config(tmp_path), kind)
