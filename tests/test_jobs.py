"""The scripts in jobs/: short, the same flags as the command, and they run."""

import csv
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayseg.cli import JOBS, main
from rayseg.config.job_list import TrainingJob

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {path.stem.replace("_", "-"): path for path in sorted((ROOT / "jobs").glob("*.py"))}


def said(capsys, function, *arguments, **options):
    with pytest.raises(SystemExit) as ending:
        function(*arguments, **options)
    assert ending.value.code == 0
    return capsys.readouterr().out


def test_every_job_has_a_script_and_every_script_a_job():
    """A new training comes with its network, without a script: `rayseg submit` needs none."""
    missing = set(JOBS) - set(SCRIPTS)
    assert all(isinstance(JOBS[name], TrainingJob) for name in missing)
    assert set(SCRIPTS) <= set(JOBS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_under_60_lines_and_shows_its_submission(name):
    text = SCRIPTS[name].read_text()
    assert len(text.splitlines()) < 60
    assert re.search(rf"ray job submit .*\\\n +python jobs/{SCRIPTS[name].name} --run ", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_the_flags_of_its_command(name, capsys, monkeypatch):
    expected = said(capsys, main, [name, "--help"])
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS[name]), "--help"])
    shown = said(capsys, runpy.run_path, str(SCRIPTS[name]), run_name="__main__")
    assert "--run" in shown
    assert shown == expected


def test_a_script_runs(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    with (tmp_path / "tags.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "tags"], ["a.png", "cow"]])
    flags = ["--run=here", "--data=folder", "--folder.images=photos", "--folder.tags=tags.csv"]
    done = subprocess.run(
        [sys.executable, SCRIPTS["prepare"], *flags],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("manifest: 1 train; 1 classes\n")
    assert (tmp_path / "here/manifest/manifest.parquet").is_file()
