"""The toy experiment as a job: its files, and a second call that computes nothing."""

import io
import json
from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from rayseg.analyses.bottleneck import ToyBottleneck
from rayseg.analyses.bottleneck.figures import table
from rayseg.config import ToyBottleneckConfig
from rayseg.plain import PlainEngine
from rayseg.steps.toy_bottleneck import toy_bottleneck
from rayseg.store import Folder, read_run

TINY = {"num_train": 40, "epochs": 1, "num_images": 4, "num_iterations": 1, "rib_batch": 3}


@dataclass(frozen=True)
class Counted(ToyBottleneck):
    """The experiment, and how often it was made."""

    def __call__(self):
        calls.append(self)
        return super().__call__()


calls: list[Counted] = []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = ToyBottleneckConfig(run=str(tmp_path_factory.mktemp("toy")), toy=Counted(**TINY))
    return config, toy_bottleneck(config, PlainEngine())


@pytest.fixture(autouse=True)
def _one_thread():
    """The job computes on one, since layers so small round differently on each number of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_job_says_the_table_and_where_the_picture_is(made):
    config, outcome = made
    assert outcome.lines[:-1] == table(ToyBottleneck(**TINY)())
    assert outcome.lines[-1] == f"picture: {config.run}/bottleneck/bottleneck.png"


def test_picture_and_figures_lie_in_the_run(made):
    folder = Folder(made[0].run) / "bottleneck"
    assert Image.open(io.BytesIO(folder.read("bottleneck.png"))).format == "PNG"
    assert json.loads(folder.read("bottleneck.json")) == ToyBottleneck(**TINY)().figures()


def test_a_second_call_computes_nothing_and_says_the_same(made):
    before = len(calls)
    assert toy_bottleneck(made[0], PlainEngine()).lines == made[1].lines
    assert len(calls) == before
    assert read_run(Folder(made[0].run) / "bottleneck")["seconds"] > 0


def test_other_settings_in_the_same_run_are_refused(made):
    other = ToyBottleneckConfig(run=made[0].run, toy=ToyBottleneck(**TINY | {"num_images": 5}))
    with pytest.raises(ValueError, match=r"toy.num_images is 4 there, 5 here"):
        toy_bottleneck(other, PlainEngine())
