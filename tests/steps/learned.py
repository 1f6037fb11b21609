"""A run whose refiners learn: drawn scenes, walks and the networks that they walk by."""

from pathlib import Path

from rayseg.attribution import CAM
from rayseg.config import Compute, RefineSeedsConfig, RunConfig
from rayseg.datasets import DATASETS
from rayseg.learn import (
    AffinityTraining,
    ClassifierTraining,
    Crops,
    IRNetTraining,
    PairCrops,
    PolySGD,
)
from rayseg.nets.classifier import load_classifier
from rayseg.nets.weights import read_facts, to_safetensors
from rayseg.plain import PlainEngine
from rayseg.steps.preparing import prepare
from rayseg.steps.recipe import run
from rayseg.steps.training import train

ENGINE = PlainEngine()
TINY = {
    "trunk": "mobilenet_v2", "weights": "none", "batch_size": 4, "precision": "fp32",
    "log_every": 1, "judge_images": 2,
}  # fmt: skip
PAIRS = TINY | {"iterations": 2, "radius": 3, "crops": PairCrops(64), "schedule": PolySGD(lr=0.01)}


def let_speak(address):
    """Lets a classifier that has learnt nothing see classes where there is something."""
    network = load_classifier(address)
    network.head.weight.data.abs_()
    Path(address).write_bytes(to_safetensors(network, read_facts(address)))


def make_learned(folder):
    """The configuration of a finished run on drawn scenes, and what it said."""
    config = RunConfig(
        run=str(folder),
        engine="plain",
        synthetic=DATASETS["synthetic"](count=8, val_count=3, size=72),
        methods=("cam",),
        refiners=("irnet", "psa", "label_crf"),
        until="masks",
        classifier=ClassifierTraining(
            **TINY, epochs=1, crops=Crops(crop=64, long_side=(64, 72)), batch_norm="frozen"
        ),
        irnet_network=IRNetTraining(**PAIRS),
        affinity_network=AffinityTraining(**PAIRS, batch_norm="frozen"),
        cam=CAM(scales=(1.0,), precision="fp32"),
        compute=Compute(actors=1, threads=1, num_gpus=0),
    )
    prepare(config, ENGINE)
    train("classifier", config, ENGINE)
    let_speak(f"{config.run}/classifier/classifier.safetensors")
    return config, run(config, ENGINE)


def refining(config, **changed):
    settings = {"run": config.run, "methods": ("cam",), "refiners": ("irnet",)}
    return RefineSeedsConfig(**settings | {"compute": config.compute} | changed)
