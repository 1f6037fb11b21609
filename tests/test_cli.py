"""The command line: one line for each mistake, no traceback, an exit status that tells."""

import os
import subprocess
import sys
from dataclasses import fields, is_dataclass

import pytest

from rayseg.attribution import AdvCAM
from rayseg.cli import JOBS, main, parse, run_job
from rayseg.config import MakeSeedsConfig
from rayseg.config.job_list import Job
from rayseg.steps.outcome import Outcome


def refused(capsys, arguments):
    """Exit status and the one line on stderr of a command that must fail."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return ending.value.code, captured.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["make-seed"], 2, "got 'make-seed'; did you mean 'make-seeds'?"),
        (["nothing"], 2, "job must be one of prepare, train-classifier"),
        (
            ["make-seeds", "--advcam.num-step", "3"],
            2,
            "unknown flag --advcam.num-step; did you mean --advcam.num-steps?",
        ),
        (["make-seeds", "--advcam.num-steps", "many"], 2, "many"),
        (["make-seeds", "--advcam.num-steps", "-1"], 2, "num_steps must be 0 or more, got -1"),
        (["make-seeds", "--methods", "advcan"], 2, "did you mean 'advcam'?"),
        (["make-seeds", "--compute.block-rows", "0"], 2, "block_rows must be 1 or more, got 0"),
        (
            ["make-seeds", "--run", "/nowhere/run"],
            1,
            "make one with `rayseg prepare --run /nowhere/run`",
        ),
        (["refine-seeds", "--refiners", "labelcrf"], 2, "did you mean 'label_crf'?"),
        (["train-classifier", "--classifier.trunk", "resnet51"], 2, "did you mean 'resnet50'?"),
        (["train-classifier", "--classifier.stride", "12"], 2, "12"),
        (["prepare", "--data", "vok"], 2, "did you mean 'voc'?"),
        (["prepare", "--data", "folder", "--folder.tags", "/no.csv"], 1, "not found at /no.csv"),
        (["export", "--format", "vok"], 2, "did you mean 'voc'?"),
        (["make-box-maps", "--box-methods", "bam"], 2, "did you mean 'bbam'?"),
        (["make-box-masks", "--box-refiners", "boxcrf"], 2, "did you mean 'box_crf'?"),
        (["make-box-maps", "--bbam.steps", "-1"], 2, "steps must be 0 or more, got -1"),
        (
            ["train-detector", "--detector.kind", "yolo"],
            2,
            "--detector.kind must be one of faster_rcnn",
        ),
        (["train-mask-rcnn", "--run", "/nowhere/run"], 1, "labels must name masks or truth"),
        (
            ["analyse-boxes", "--run", "/nowhere/run"],
            1,
            "make one with `rayseg prepare --run /nowhere/run`",
        ),
        (["analyse-boxes", "--analyses", "head"], 2, "did you mean 'heads'?"),
        (["score", "--threshold-step", "0"], 2, "threshold_step must lie in (0, 0.5], got 0"),
        (["score", "--compute.remake-stale", "[-1]"], 2, "remake-stale takes no value, got ["),
        (["score", "--compute.remake-stale=yes"], 2, "--compute.remake-stale takes no value"),
        (["score", "--compute.no-remake-stale", "5"], 2, "no-remake-stale takes no value, got 5"),
        (["score", "--run", "a", "a"], 2, "Unrecognized options: a"),
        (["score", "--config", "nowhere.toml"], 1, "nowhere.toml does not exist"),
        (["score", "--config"], 2, "--config must be followed by a value"),
        (["score", "--preset", "offical"], 2, "got 'offical'; did you mean 'official'?"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(capsys, tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    code, line = refused(capsys, arguments)
    assert said in line
    assert code == status


def test_an_unknown_key_in_a_file_is_one_line(capsys, tmp_path):
    (tmp_path / "a.toml").write_text("[advcam]\nnum_step = 3\n")
    code, line = refused(capsys, ["make-seeds", "--config", str(tmp_path / "a.toml")])
    assert (code, "did you mean 'num_steps'?" in line) == (1, True)


def test_an_output_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    command = ["prepare", "--run", str(tmp_path / "file" / "run"), "--synthetic.count", "1"]
    code, line = refused(capsys, command)
    assert (code, "cannot write" in line) == (1, True)


def test_a_mistake_has_no_traceback_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "rayseg.cli", "make-seeds", "--run", str(tmp_path / "none")]
    command[1:3] = ["-c", "from rayseg.cli import main; main()"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr


# What is taken from where


def test_flags_beat_files_beat_the_preset_beats_defaults(tmp_path):
    (tmp_path / "a.toml").write_text("[advcam]\nnum_steps = 5\nrestrict_weight = 2.0\n")
    command = ["--config", str(tmp_path / "a.toml"), "--preset", "as_written"]
    config = parse(MakeSeedsConfig, [*command, "--advcam.num-steps", "3"], "test")
    assert config.advcam.num_steps == 3  # flag
    assert config.advcam.restrict_weight == 2.0  # file
    assert config.advcam.step_size == AdvCAM.as_written().step_size  # preset
    assert config.advcam.suppress_weight == AdvCAM().suppress_weight  # default
    assert AdvCAM.as_written().step_size != AdvCAM().step_size


def test_a_later_file_beats_an_earlier_one(tmp_path):
    for name, steps in (("a", 5), ("b", 6)):
        (tmp_path / f"{name}.toml").write_text(f"[advcam]\nnum_steps = {steps}\n")
    command = [f"--config={tmp_path}/a.toml", f"--config={tmp_path}/b.toml"]
    assert parse(MakeSeedsConfig, command, "test").advcam.num_steps == 6


def test_an_empty_value_resets_a_text(tmp_path):
    (tmp_path / "a.toml").write_text('split = "val"\n')
    command = ["--config", str(tmp_path / "a.toml"), "--split="]
    assert parse(MakeSeedsConfig, command, "test").split == ""


def leaves(config, prefix=""):
    for part in fields(config):
        value = getattr(config, part.name)
        name = f"{prefix}{part.name}".replace("_", "-")
        if is_dataclass(value):
            yield from leaves(value, f"{name}.")
        else:
            yield f"--{name}"


@pytest.mark.parametrize("name", JOBS)
def test_every_field_is_a_flag(name, capsys):
    with pytest.raises(SystemExit) as ending:
        main([name, "--help-all"])
    assert ending.value.code == 0
    shown = capsys.readouterr().out
    missing = [flag for flag in leaves(JOBS[name].config()) if flag not in shown]
    assert not missing


def test_help_lists_every_job(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["--help"])
    assert ending.value.code == 0
    assert all(f"  {name} " in shown for shown in [capsys.readouterr().out] for name in JOBS)


# Exit status


@pytest.mark.parametrize(("failed", "left_out", "status"), [("", 0, 0), ("ab", 0, 3), ("", 2, 3)])
def test_the_status_says_whether_images_failed(monkeypatch, capsys, failed, left_out, status):

    def done(job, config):
        return Outcome([f"split {config.split}"], frozenset(failed), left_out)

    monkeypatch.setattr(Job, "run", done)
    assert run_job("run", ["--split", "val"]) == status
    said = capsys.readouterr().out
    assert said.startswith("split val\n")
    assert ("2 images have no result" in said) == bool(failed)


def test_an_image_that_fails_in_two_stages_is_one_image():
    both = Outcome(["cam"], frozenset("ab")) + Outcome(["advcam"], frozenset("bc"))
    assert (both.lines, both.failed) == (["cam", "advcam"], frozenset("abc"))


def test_a_traceback_comes_when_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("RAYSEG_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        run_job("make-seeds", ["--run", os.devnull + "/none"])
