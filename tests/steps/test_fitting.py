"""A run on few images: trainings that fit them, and one that has learnt nothing; no Ray."""

from dataclasses import replace

import pytest

from rayseg.attribution import CAM
from rayseg.config import RunConfig
from rayseg.datasets.synthetic import Synthetic
from rayseg.learn import ClassifierTraining, Crops
from rayseg.plain import PlainEngine
from rayseg.progress import speaking
from rayseg.steps.recipe import run
from rayseg.steps.status import read_plan
from rayseg.store import Folder, read_run

ENGINE = PlainEngine()


@pytest.fixture
def config(tmp_path):
    crops = Crops(crop=32, long_side=(32, 40))
    return RunConfig(
        run=str(tmp_path / "run"),
        engine="plain",
        synthetic=Synthetic(count=6, size=32),
        methods=("cam",),
        cam=CAM(scales=(1.0,)),
        until="masks",
        classifier=ClassifierTraining(
            "none", trunk="mobilenet_v2", least_steps=7, crops=crops, batch_size=16
        ),
    )


def test_a_training_on_few_images_takes_more_epochs_of_smaller_batches_and_says_so(config, capsys):
    with speaking("run"):
        run(config, ENGINE)
    line = "classifier: 6 images, so batch_size 6 in place of 16, epochs 7 in place of 5"
    assert line in capsys.readouterr().err.splitlines()
    folder = Folder(config.run)
    facts = read_run(folder / "classifier")
    assert facts["curve"][-1]["iteration"] == read_plan(folder)["classifier"]["total"] == 7
    assert facts["fitted"] == "batch_size 6 in place of 16, epochs 7 in place of 5"


def test_a_classifier_at_chance_stops_the_run_before_seeds_are_made(config, monkeypatch):
    monkeypatch.setattr("rayseg.learn.classifier.MANY", 6)
    monkeypatch.setattr("rayseg.learn.classifier.chance_precision", lambda targets: 1.0)
    folder = Folder(config.run)
    said = (
        r"^classifier: mAP \S+ on 6 images of train is no better than chance, which reaches 1\.0+; "
        r"try another --classifier\.schedule\.lr .*, once \S+/classifier is deleted; to go on with "
        r"it all the same, --weights \S+/classifier/classifier\.safetensors"
    )
    for _ in range(2):  # the network is there the second time
        with pytest.raises(ValueError, match=said):
            run(config, ENGINE)
        assert not (folder / "seeds").folders()
    weights = folder.path("classifier/classifier.safetensors")
    run(replace(config, weights=weights), ENGINE)
    assert (folder / "seeds").folders() == ["cam"]
