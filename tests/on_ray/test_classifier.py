"""Training on Ray Train: the same losses whatever the workers or a death."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayseg.config import TRAIN_CONFIGS, Compute
from rayseg.learn import STATE, ClassifierTraining, Crops, FickleNetTraining, HalvedAdam, PolySGD
from rayseg.nets.classifier import load_classifier
from rayseg.nets.ficklenet import load_ficklenet
from rayseg.on_ray.engine import RayEngine
from rayseg.records import Sample
from rayseg.steps.training import train as train_on
from rayseg.store import Folder, read_run, write_manifest
from tests.on_ray.fakes import DeadlyCrops

ENGINE = RayEngine()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore"),  # Ray Train's own, about its future versions
    pytest.mark.timeout(500),
]
CONFIG = ClassifierTraining(
    trunk="mobilenet_v2",
    weights="none",
    batch_norm="frozen",
    epochs=3,
    batch_size=8,
    crops=Crops(crop=48, long_side=(40, 64)),
    schedule=PolySGD(lr=0.01),
    log_every=1,
)

FICKLE = FickleNetTraining(
    trunk="mobilenet_v2",
    weights="none",
    batch_norm="frozen",
    stride=16,
    kernel=5,
    epochs=2,
    batch_size=8,
    crops=CONFIG.crops,
    schedule=HalvedAdam(lr=1e-4, every=1),
)


def new_run(folder, workers=1, number=24):
    """A configuration for a run of its own with a manifest of 64-pixel images."""
    rng = np.random.default_rng(0)
    samples = []
    (folder / "images").mkdir(parents=True)
    for n in range(number):
        path = folder / "images" / f"i{n}.png"
        pixels = rng.integers(0, 128, (64, 64, 3), np.uint8)
        pixels[..., n % 2] += 127
        Image.fromarray(pixels).save(path)
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        samples.append(Sample(f"i{n}", str(path), 64, 64, (n % 2,), *none))
    write_manifest(Folder(str(folder / "manifest")), samples, ("green", "red"))
    compute = Compute(workers=workers, threads=1, num_gpus=0)
    return TRAIN_CONFIGS["classifier"](run=str(folder), classifier=CONFIG, compute=compute)


def losses(config, name="classifier"):
    return [entry["loss"] for entry in read_run(Folder(config.run) / name)["curve"]]


@pytest.fixture(scope="module")
def trained(cluster, tmp_path_factory):
    """Three epochs by one worker, without any incident."""
    config = new_run(tmp_path_factory.mktemp("one"))
    return config, train_on("classifier", config, ENGINE)


def test_training_leaves_weights_that_load(trained):
    path = Path(trained[0].run) / "classifier" / "classifier.safetensors"
    assert load_classifier(str(path), ["green", "red"]).head.out_channels == 2


def test_training_leaves_its_curve_and_the_figures_of_every_epoch(trained):
    told = read_run(Folder(trained[0].run) / "classifier")
    assert [entry["iteration"] for entry in told["curve"]] == list(range(1, 10))
    assert [entry["iteration"] for entry in told["judged"]] == [3, 6, 9]
    # without a split val, what it learnt from
    assert all(entry["judged_on"] == "train" for entry in told["judged"])
    assert trained[1].lines[0].endswith(" on train after 3 epochs")
    assert losses(trained[0])[-1] < losses(trained[0])[0]


def test_training_cleans_up_after_itself(trained):
    left = sorted(path.name for path in (Path(trained[0].run) / "classifier").iterdir())
    assert left == ["classifier.safetensors", "run.json"]


def test_a_finished_training_is_not_repeated(trained):
    config, outcome = trained
    assert train_on("classifier", config, ENGINE) == outcome


def test_another_training_into_the_same_run_is_refused(trained):
    other = replace(trained[0], classifier=replace(CONFIG, epochs=4))
    with pytest.raises(ValueError, match=r"classifier.epochs is 3 there, 4 here"):
        train_on("classifier", other, ENGINE)


def test_two_workers_see_together_what_one_sees(trained, tmp_path):
    config = new_run(tmp_path / "two", workers=2)
    train_on("classifier", config, ENGINE)
    assert losses(config) == pytest.approx(losses(trained[0]), rel=0.02)


def test_a_killed_worker_is_survived_with_the_same_losses(trained, tmp_path):
    config = deadly_run(tmp_path / "death", max_failures=1)
    train_on("classifier", config, ENGINE)
    assert not Path(config.classifier.crops.armed).exists()
    assert losses(config) == pytest.approx(losses(trained[0]), rel=1e-4)


def deadly_run(folder, max_failures):
    """A run whose worker is killed once, in its second epoch."""
    config = new_run(folder)
    return replace(
        config,
        classifier=replace(CONFIG, crops=deadly_crops(folder, "classifier")),
        compute=replace(config.compute, max_failures=max_failures),
    )


def deadly_crops(folder, name):
    (folder / "armed").touch()
    state, armed = str(folder / name / STATE), str(folder / "armed")
    return DeadlyCrops(**vars(CONFIG.crops), state=state, armed=armed)


def new_fickle(folder, workers=1):
    """As `new_run`, for the network of method ficklenet."""
    plain = new_run(folder, workers)
    return TRAIN_CONFIGS["ficklenet"](
        run=plain.run, compute=plain.compute, ficklenet_classifier=FICKLE
    )


@pytest.fixture(scope="module")
def trained_fickle(cluster, tmp_path_factory):
    config = new_fickle(tmp_path_factory.mktemp("fickle"))
    train_on("ficklenet", config, ENGINE)
    return config


def test_ficklenet_leaves_weights_that_load(trained_fickle):
    path = Path(trained_fickle.run) / "ficklenet" / "ficklenet.safetensors"
    network = load_ficklenet(str(path), ["green", "red"])
    assert network.head.weight.shape == (2, 1280, 5, 5)
    assert (network.drop_rate, network.stride, network.dilated) == (0.9, 16, True)
    assert not (Path(trained_fickle.run) / "classifier").exists()
