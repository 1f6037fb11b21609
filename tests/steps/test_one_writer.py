"""Two commands on one folder: the second is refused, and takes over when the first is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.records import Sample
from rayseg.store import Folder, count_status, write_manifest

HELD = """
import pathlib, sys, time
from rayseg.cli import main
from rayseg.stages import MakeSeeds

def hold(stage, rows):
    pathlib.Path(sys.argv.pop()).touch()
    time.sleep(10_000)

MakeSeeds.__call__ = hold
main(sys.argv[1:-1])
"""


@pytest.fixture
def command(tmp_path):
    """The flags of a job on two images."""
    samples = []
    for name in "ab":
        Image.new("RGB", (32, 32), (90, 120, 30)).save(tmp_path / f"{name}.png")
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        samples.append(Sample(name, str(tmp_path / f"{name}.png"), 32, 32, (0,), *none))
    write_manifest(Folder(str(tmp_path / "run/manifest")), samples, ("cat", "dog"))
    torch.manual_seed(0)
    facts = {"trunk": "mobilenet_v2", "stride": 16, "classes": ["cat", "dog"]}
    weights = to_safetensors(CamClassifier("mobilenet_v2", 2), facts)
    (tmp_path / "w.safetensors").write_bytes(weights)
    flags = ["--run", f"{tmp_path}/run", "--weights", f"{tmp_path}/w.safetensors"]
    return ["make-seeds", *flags, "--engine", "plain", "--methods", "cam", "--cam.scales", "1"]


@pytest.fixture
def first(command, tmp_path):
    """The job, amid its first image."""
    mark = tmp_path / "begun"
    job = subprocess.Popen([sys.executable, "-c", HELD, *command, str(mark)])
    while not mark.exists():
        assert job.poll() is None
        time.sleep(0.05)
    yield job
    job.kill()
    job.wait()


def start(command):
    return subprocess.run(
        [sys.executable, "-m", "rayseg.cli", *command], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_second_writer_is_refused_in_a_line_and_takes_over_from_one_that_was_killed(
    command, first, tmp_path
):
    folder = Folder(str(tmp_path / "run/seeds/cam"))
    refused = start(command)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert f"{folder} is being written by seeds cam of" in line
    assert f"(process {first.pid} on " in line
    assert not folder.names(".parquet")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    taken = start(command)
    assert taken.returncode == 0, taken.stderr
    assert f"process {first.pid}" in taken.stderr
    assert "is taken over" in taken.stderr
    assert count_status(folder) == {"ok": 2}
    assert not Path(folder.path(".lock.json")).exists()
