"""What seeds by companions say, and what they and others follow from."""

from dataclasses import replace
from functools import partial

import pytest

from rayseg.attribution import CAM
from rayseg.config import Compute
from rayseg.plain import PlainEngine
from rayseg.steps.seeds import identity, make_seeds
from rayseg.steps.weights import find_weights
from rayseg.store import Folder, read_run
from tests import companion_run
from tests.companion_run import BANK, CROPS, TINY_RIB, stored, write_run
from tests.on_ray.fakes import CountedCrops

ENGINE = PlainEngine()
COMPUTE = Compute(threads=1, num_gpus=0, block_rows=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """RIB, and AdvCAM on its weights, by the job: its outcome and how many crops were cut."""
    marks = tmp_path_factory.mktemp("cut")
    crops = CountedCrops(CROPS.crop, CROPS.long_side, marks=str(marks))
    outcome = make_seeds(config(run, companions=replace(BANK, crops=crops)), ENGINE)
    return outcome, len(list(marks.iterdir()))


config = partial(companion_run.config, compute=COMPUTE)


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


@pytest.mark.parametrize("kind", ["classifier", "ficklenet", "seam"])
def test_missing_weights_say_how_to_make_them(tmp_path, kind):
    with pytest.raises(
        FileNotFoundError, match=f"{kind} holds no {kind}.safetensors; make it with `rayseg train-"
    ):
        find_weights(config(tmp_path), kind)
