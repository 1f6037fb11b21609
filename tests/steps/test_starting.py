"""What a run will lack hours later is said at its start, all at once, with the ways out."""

import io
import urllib.error
from dataclasses import replace

import pytest
import torch

from rayseg.config import Compute, DoctorConfig, RunConfig
from rayseg.datasets.synthetic import Synthetic
from rayseg.learn import ClassifierTraining, SegmenterTraining
from rayseg.nets import published
from rayseg.nets.published import PublishedFile, published_file
from rayseg.plain import PlainEngine
from rayseg.steps.doctor import doctor
from rayseg.steps.preparing import prepare
from rayseg.steps.recipe import recipe, run
from rayseg.steps.starting import needed_weights, proposal, refuse
from rayseg.steps.training import train
from rayseg.store import Folder, write_run

ENGINE = PlainEngine()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No host answers, and nothing is cached."""

    def fail(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(published.urllib.request, "urlopen", fail)
    monkeypatch.setattr(PublishedFile.unreachable, "__defaults__", (fail,))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def config(tmp_path, kind=RunConfig, **changed):
    given = {
        "run": str(tmp_path / "run"), "engine": "plain", "methods": ("cam",),
        "synthetic": Synthetic(count=4, val_count=2, ood_count=0, size=32),
        "classifier": ClassifierTraining(trunk="resnet18", batch_size=2),
        "segmenter": SegmenterTraining(trunk="resnet34", batch_size=2),
    }  # fmt: skip
    return kind(**given | changed)


def test_a_run_without_network_names_every_file_with_the_ways_out(tmp_path, offline):
    with pytest.raises(ExceptionGroup) as caught:
        run(config(tmp_path), ENGINE)
    first, second = map(str, caught.value.exceptions)
    file = published_file("resnet18", "IMAGENET1K_V1")
    assert first == (
        f"--classifier.weights IMAGENET1K_V1: {file.name} is not in {offline} and cannot be "
        f"fetched from {file.address} (no route to host); put it there, or give a path "
        "(--classifier.weights FILE.pth), or start from random weights (--classifier.weights none)"
    )
    assert second.startswith("--segmenter.weights IMAGENET1K_V1: resnet34-")
    assert not (tmp_path / "run/classifier").exists()


def test_the_doctor_says_the_same(tmp_path, offline):
    with pytest.raises(OSError, match=r"--classifier.weights none"):
        doctor(config(tmp_path, DoctorConfig, until="masks"), ENGINE)


def test_a_training_alone_says_the_same(tmp_path, offline):
    given = config(tmp_path)
    prepare(given, ENGINE)
    with pytest.raises(OSError, match="cannot be fetched from"):
        train("classifier", given, ENGINE)


def test_a_cached_file_is_taken(tmp_path, offline):
    offline.mkdir(parents=True)
    file = published_file("resnet18", "IMAGENET1K_V1")
    (offline / file.name).touch()
    lines = doctor(config(tmp_path, DoctorConfig, until="masks"), ENGINE).lines
    assert f"--classifier.weights: IMAGENET1K_V1, in {offline}" in lines


def test_a_network_that_is_trained_needs_no_weights(tmp_path, offline):
    given = config(tmp_path, until="masks")
    parts = recipe(given, judged=False)
    assert [one.flag for one in needed_weights(given, parts)] == ["--classifier.weights"]
    write_run(Folder(given.run) / "classifier", {"done": True})
    assert needed_weights(given, parts) == []


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    broken = config(
        tmp_path, labels=("cam+lable_crf",), saliency_maps=str(tmp_path / "none"),
        classifier=ClassifierTraining(trunk="resnet18", weights="weights/mine.pth"),
        segmenter=SegmenterTraining(weights="IMAGENET"), ids=str(tmp_path / "ids.txt"),
        compute=Compute(workers=5),
    )  # fmt: skip
    one = {"classifier": none(), "compute": Compute(), "until": "masks"}
    with pytest.raises(FileNotFoundError, match="ids"):
        run(replace(broken, labels=(), saliency_maps="", **one), ENGINE)
    with pytest.raises(ExceptionGroup) as caught:
        run(broken, ENGINE)
    said = "\n".join(map(str, caught.value.exceptions))
    for part in (
        "labels must be of", "--classifier.weights must be a file that is there",
        "--segmenter.weights must be none, IMAGENET1K_V1", "ids.txt does not exist",
        "--saliency-maps must be a folder that is there",
        "classifier: batch size must be at most the 4 images, got 5",
    ):  # fmt: skip
        assert part in said


def none():
    return ClassifierTraining(trunk="resnet18", weights="none", batch_size=2)


def test_a_host_that_does_not_answer_costs_seconds(monkeypatch):
    monkeypatch.setattr(published, "ANSWER_SECONDS", 0.05)
    held = published.threading.Event()
    why = PublishedFile("https://weights.example/a-1.pth").unreachable(
        lambda *_, **__: held.wait() and io.BytesIO()
    )
    held.set()
    assert why == "no answer in 0 s"


def test_one_wrong_thing_is_raised_as_itself():
    with pytest.raises(ValueError, match="one"):
        refuse([ValueError("one"), ValueError("one")])
    refuse([])


# What fits the machine


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classifier": ClassifierTraining()}, "this machine has no GPU, and resnet50 takes hours"),
        ({}, ""),
        ({"classifier": ClassifierTraining(), "compute": Compute(device="cpu")}, ""),
        ({"classifier": ClassifierTraining(), "address": "ray-head:6379"}, ""),
        ({"weights": "given.safetensors", "classifier": ClassifierTraining()}, ""),
    ],
)
def test_without_gpu_the_preset_for_a_laptop_is_proposed(tmp_path, monkeypatch, changed, said):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = config(tmp_path, until="masks", **changed)
    found = proposal(given, recipe(given, judged=False))
    assert found.startswith(said)
    assert bool(found) == bool(said) == ("--preset laptop" in found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert proposal(given, recipe(given, judged=False)) == ""
