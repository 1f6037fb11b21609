"""Every kind of method from tags to scores: one network each, companions, a combination."""

import json

import pytest

from rayseg.attribution import CAM, METHODS, RIB, SEAM, AdvCAM
from rayseg.config import Compute, RunConfig
from rayseg.datasets import DATASETS
from rayseg.learn import ClassifierTraining, Crops, FickleNetTraining, JitteredCrops, SEAMTraining
from rayseg.plain import PlainEngine
from rayseg.stages import CompanionBank
from rayseg.steps.recipe import run
from rayseg.store import Folder, count_status, read_run

pytestmark = pytest.mark.slow
CROPS = Crops(crop=48, long_side=(40, 64))
NAMES = ("cam", "rib", "advcam+rib", "ficklenet", "seam", "advcam_seam")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of six drawn scenes, in the least that each method can do."""
    folder = tmp_path_factory.mktemp("methods")
    network = {"trunk": "resnet18", "weights": "none", "epochs": 1, "batch_size": 3, "crops": CROPS}
    config = RunConfig(
        run=str(folder),
        synthetic=DATASETS["synthetic"](count=6, val_count=0, ood_count=0, size=64),
        methods=NAMES,
        until="seeds",
        classifier=ClassifierTraining(**network),
        ficklenet_classifier=FickleNetTraining(**network, stride=16, kernel=3, dilated=False),
        seam_classifier=SEAMTraining(
            **network | {"crops": JitteredCrops(crop=72, long_side=(40, 64))},
            stride=8,
            second_scale=0.9,
        ),
        cam=CAM(scales=(1.0,)),
        advcam=AdvCAM(scales=(1.0,), num_steps=1),
        rib=RIB(scales=(1.0,), num_steps=2, num_companions=2),
        ficklenet=METHODS["ficklenet"](num_passes=4),
        seam=SEAM(scales=(1.0,)),
        advcam_seam=METHODS["advcam_seam"](scales=(1.0,), num_steps=2),
        companions=CompanionBank(images=4, crops=CROPS),
        compute=Compute(actors=1, threads=1, num_gpus=0),
    )
    return config, run(config, PlainEngine())


@pytest.mark.parametrize("name", NAMES)
def test_every_scene_has_maps_and_the_maps_are_scored(made, name):
    folder = Folder(made[0].run)
    assert count_status(folder / "seeds" / name) == {"ok": 6}
    assert json.loads(folder.read("scores.json"))[f"seeds/{name}"]["images"] == 6


def test_each_method_is_bound_to_the_network_of_its_kind(made):
    folder = Folder(made[0].run) / "seeds"
    weights = {name: read_run(folder / name)["config"]["weights"] for name in NAMES}
    assert weights["cam"] == weights["rib"] == weights["advcam+rib"]
    assert weights["seam"] == weights["advcam_seam"]
    assert len({weights[name] for name in ("cam", "ficklenet", "seam")}) == 3


def test_the_run_says_both_trainings_and_every_method_in_order(made):
    said = [line.partition(":")[0] for line in made[1].lines]
    wanted = ["classifier", "ficklenet", "seam", *(f"seeds {name}" for name in NAMES)]
    assert [line for line in dict.fromkeys(said) if line in wanted] == wanted
