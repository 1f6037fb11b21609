"""How far a run is, read while others write it, and by what it was stopped."""

import json

import pytest

from rayseg.config import RunConfig, StatusConfig
from rayseg.datasets.synthetic import Synthetic
from rayseg.learn import ClassifierTraining, Crops
from rayseg.plain import PlainEngine
from rayseg.steps.preparing import prepare
from rayseg.steps.status import status
from rayseg.steps.training import train
from rayseg.store import (
    MASKS_SCHEMA,
    Folder,
    ProgressFile,
    claim,
    lease,
    peek_index,
    progress_file,
    read_progress_file,
    write_run,
    write_shard,
)
from rayseg.store.shards import rows_to_table

ENGINE = PlainEngine()


def row(id_, state="ok", error=""):
    found = dict.fromkeys(MASKS_SCHEMA.names)
    return found | {"id": id_, "status": state, "error": error, "note": "", "seconds": 1.0}


@pytest.fixture
def run(tmp_path):
    """Five rows of eight, of which two failed alike and one otherwise; one folder not begun."""
    masks = Folder(str(tmp_path)) / "masks" / "cam+threshold"
    claim(masks, {}, "masks")
    rows = [row("a"), row("b"), *(row(i, "error", "file is cut short") for i in "cd")]
    write_shard(masks, rows_to_table(rows, MASKS_SCHEMA))
    write_shard(masks, rows_to_table([row("e", "poison", "it kills its process")], MASKS_SCHEMA))
    write_run(masks, {"counts": None, "under_way": {"since": 0.0, "rows": 0, "total": 8}})
    plan = {"place": "segmenters/cam+threshold", "total": 300, "unit": "step", "there": 0}
    (tmp_path / "plan.json").write_text(json.dumps([plan]))
    return tmp_path


def said(run):
    return [line.strip() for line in status(StatusConfig(run=str(run)), ENGINE).lines]


def test_a_stopped_folder_says_what_is_done_left_and_failed_by_reason(run):
    lines = said(run)
    (masks,) = [line for line in lines if line.startswith("masks/cam+threshold")]
    assert masks.endswith("stopped, 5 of 8 images, 3 failed, 3 left; the same command goes on")
    assert "2 failed: file is cut short" in lines
    assert "1 failed: it kills its process" in lines


def test_a_folder_at_work_says_its_pace_and_the_time_left(run):
    masks = Folder(str(run)) / "masks" / "cam+threshold"
    with lease(masks, "masks cam+threshold"):
        (line,) = [one for one in said(run) if one.startswith("masks/")]
    assert "at work, 5 of 8 images, 3 failed" in line
    assert " s an image, " in line
    assert line.endswith(" left")


def test_what_is_planned_and_not_begun_is_said(run):
    assert any(
        line.startswith("segmenters/cam+threshold") and line.endswith("not begun: 300 steps")
        for line in said(run)
    )


def test_a_look_changes_no_file(run):
    def files():
        return {p: p.stat().st_mtime_ns for p in run.rglob("*")}

    before = files()
    said(run)
    assert files() == before


def test_a_shard_that_goes_while_it_is_read_is_left_out(run, monkeypatch):
    masks = Folder(str(run)) / "masks" / "cam+threshold"
    monkeypatch.setattr("rayseg.store.index.shard_sizes", lambda folder: {"part-gone.parquet": 10})
    assert peek_index(masks).num_rows == 0


def test_a_training_says_steps_loss_and_the_last_judged_figure(tmp_path):
    folder = Folder(str(tmp_path)) / "classifier"
    claim(folder, {}, "classifier")
    facts = {
        "iteration": 120, "since_logged": [{"loss": 0.25}], "curve": [],
        "judged": [{"iteration": 100, "map": 0.7125}],
    }  # fmt: skip
    told = ProgressFile(folder, facts | {"iteration": 0}, 900)
    told.facts, told.began = facts, told.began - 60
    told.write(rate=0.01)
    with lease(folder, "classifier"):
        (line,) = [one for one in said(tmp_path) if one.startswith("classifier")]
    assert "at work, 120 of 900 steps, " in line
    assert line.endswith("left, loss 0.25, lr 0.01, map 0.713 at step 100")
    (line,) = [one for one in said(tmp_path) if one.startswith("classifier")]
    assert line.endswith("stopped, 120 of 900 steps; the same command goes on")


def test_the_file_of_a_training_is_written_now_and_then(tmp_path):
    facts = {"iteration": 1, "since_logged": [], "curve": [], "judged": []}
    told = ProgressFile(Folder(str(tmp_path)), facts, 9)
    told.write(0.1)
    facts["iteration"] = 2
    told.write(0.1)
    assert read_progress_file(Folder(str(tmp_path)))["step"] == 1
    told.write(0.1, "judging")
    assert read_progress_file(Folder(str(tmp_path)))["doing"] == "judging"


def test_a_training_says_from_its_start_how_far_it_is_and_leaves_nothing(tmp_path, monkeypatch):
    said, write = [], Folder.write

    def heard(folder, name, data, durable=True):
        said.extend([json.loads(data)] if name == ".progress.json" else [])
        write(folder, name, data, durable)

    monkeypatch.setattr(Folder, "write", heard)
    monkeypatch.setattr(progress_file, "LOCAL_SECONDS", 0.0)
    crops = Crops(crop=32, long_side=(32, 40))
    config = RunConfig(
        run=str(tmp_path / "run"),
        synthetic=Synthetic(count=6, val_count=2, ood_count=0, size=32),
        classifier=ClassifierTraining(
            "none", trunk="resnet18", epochs=2, batch_size=3, crops=crops
        ),
    )
    prepare(config, ENGINE)
    train("classifier", config, ENGINE)
    steps = [(one["step"], one["doing"]) for one in said]
    assert steps[:4] == [(0, "starting"), (1, ""), (2, ""), (2, "judging")]
    assert steps[-1] == (4, "judging")
    assert said[-1]["judged"][0]["iteration"] == 2
    assert not (tmp_path / "run/classifier/.progress.json").exists()


def test_no_run_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        said(tmp_path / "none")
