"""A run with damaged files: `check` names each, and what mends it brings back what was there."""

# ruff: noqa: F401, F811 - fixtures of another file

import json
import os

import numpy as np
import pytest
import torch

from rayseg.config import CheckConfig
from rayseg.learn import load_state
from rayseg.learn.state import STATE, TrainingState, forget_damaged_state
from rayseg.nets.weights import read_tensors
from rayseg.steps.check import check
from rayseg.steps.masks import refine_seeds
from rayseg.steps.preparing import prepare
from rayseg.steps.recipe import run
from rayseg.steps.seeds import make_seeds
from rayseg.steps.trials import _read_counts, _write_counts, stored_trials
from rayseg.store import (
    SEEDS_SCHEMA,
    DamagedError,
    Folder,
    check_shards,
    claim,
    read_facts,
    read_run,
    read_shard,
    rows_to_table,
    shard_names,
    write_shard,
)
from tests.learn.tiny import tiny
from tests.steps.test_stale import ENGINE, MASKS, config, data, rows
from tests.store.test_damage import DAMAGES


@pytest.fixture
def whole(data):
    """A run that is done, and its rows."""
    make(data)
    return data, {name: rows(data, name) for name in ("seeds/cam", MASKS)}


def make(data):
    """The jobs of the run one after the other, without scores and report."""
    outcomes = [job(config(data), ENGINE) for job in (prepare, make_seeds, refine_seeds)]
    return [line for outcome in outcomes for line in outcome.lines]


def said(data, repair=False):
    outcome = check(CheckConfig(run=str(data / "run"), repair=repair), ENGINE)
    return "\n".join(outcome.lines), outcome.left_out


def a_shard(data, name):
    return min((data / "run" / name).glob("part-*.parquet"))


def test_a_sound_run_is_said_to_be_sound(whole):
    data, _ = whole
    lines, found = said(data)
    assert found == 0
    assert lines.count("sound") == 4  # the run's own files too
    (row,) = (line.split() for line in lines.splitlines() if line.startswith("seeds/cam"))
    assert row == ["seeds/cam", "10", "sound", "3"]


@pytest.mark.parametrize(
    ("name", "damage"), [("seeds/cam", "zeroed"), (MASKS, "zeroed"), (MASKS, "another file")]
)
def test_a_damaged_shard_is_found_and_its_rows_are_made_again(whole, name, damage):
    data, before = whole
    shard = a_shard(data, name)
    shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    lines, found = said(data)
    assert found == 1
    assert f"{shard} is damaged: " in lines
    assert "--repair sets aside what is damaged" in lines
    assert shard.exists()
    said(data, repair=True)
    assert not shard.exists()
    assert read_run(Folder(str(shard.parent)))["counts"] is None
    make(data)
    assert {folder: rows(data, folder) for folder in before} == before
    assert said(data)[1] == 0


def test_a_bit_anywhere_in_a_shard_is_found_or_changes_nothing(whole):
    data, _ = whole
    shard, folder = a_shard(data, "seeds/cam"), Folder(str(data / "run" / "seeds/cam"))
    good, table = shard.read_bytes(), read_shard(folder, shard.name)
    found = 0
    for place in range(0, len(good), 101):
        shard.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        if check_shards(folder, SEEDS_SCHEMA).damaged:
            found += 1
        else:
            assert read_shard(folder, shard.name).equals(table), place
    assert found > 20


def test_a_cut_shard_is_made_again_by_the_same_command_which_says_so(whole):
    data, before = whole
    shard = a_shard(data, "seeds/cam")
    shard.write_bytes(shard.read_bytes()[:-9])
    lines = make(data)
    (line,) = (line for line in lines if "damaged" in line)
    assert line.startswith(f"shard {shard} is damaged (")
    assert line.endswith("): its 4 images are made again")
    assert {folder: rows(data, folder) for folder in before} == before
    assert len(list(shard.parent.glob(".damaged-*"))) == 1


@pytest.mark.parametrize("text", [b"", b"{", b"cat", b"[1]", b'{"config": 3}', bytes(99)])
def test_a_damaged_run_json_is_taken_from_its_copy(whole, text, caplog):
    data, before = whole
    file = data / "run" / "seeds/cam/run.json"
    file.write_bytes(text)
    assert f"{file} is damaged: " in said(data)[0]
    make(data)
    assert f"{file} was damaged (" in caplog.text
    assert rows(data, "seeds/cam") == before["seeds/cam"]
    assert said(data)[1] == 0


def test_a_run_json_with_another_digit_is_taken_from_its_copy(whole, caplog):
    data, before = whole
    file = data / "run" / "seeds/cam/run.json"
    digest = read_run(Folder(str(file.parent)))["config"]["weights"]
    file.write_text(file.read_text().replace(digest, digest[::-1]))
    assert f"{file} is damaged: what it says is not what was written" in said(data)[0]
    make(data)
    assert f"{file} was damaged (what it says is not what was written)" in caplog.text
    assert rows(data, "seeds/cam") == before["seeds/cam"]
    assert said(data)[1] == 0


def test_without_a_copy_all_of_the_folder_is_made_again_after_the_repair(whole):
    data, before = whole
    folder = data / "run" / "seeds/cam"
    (folder / ".run-copy.json").unlink()
    (folder / "run.json").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"run.json cannot be read: the file is empty; `rayseg"):
        make(data)
    said(data, repair=True)
    make(data)
    assert rows(data, "seeds/cam") == before["seeds/cam"]


def test_a_damaged_manifest_is_made_again_after_the_repair(whole):
    data, before = whole
    file = data / "run" / "manifest/manifest.parquet"
    file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(DamagedError, match=r"manifest.parquet cannot be read: .*; `rayseg check "):
        make(data)
    assert "after a repair `rayseg prepare` with the same flags makes it again" in said(data)[0]
    said(data, repair=True)
    make(data)
    assert {folder: rows(data, folder) for folder in before} == before


def test_rows_that_are_there_twice_or_of_no_image_are_found(whole):
    data, _ = whole
    folder = Folder(str(data / "run" / "seeds/cam"))
    write_shard(folder, read_shard(folder, shard_names(folder)[0]).slice(0, 1))
    write_shard(folder, rows_to_table([{"id": "stranger", "status": "ok"}], SEEDS_SCHEMA))
    lines, _ = said(data)
    assert "has 1 rows twice" in lines
    assert "has 1 rows that the manifest has not ('stranger')" in lines


def test_what_dead_processes_left_is_found_and_swept(whole):
    data, _ = whole
    folder = data / "run" / "seeds/cam"
    old = folder / ".part-1.parquet.0a1b2c3d.tmp"
    for file in (old, folder / ".lock.json"):
        file.write_bytes(b"half")
        os.utime(file, (1e9, 1e9))
    lines, found = said(data)
    assert found == 2
    assert f"{old} is the draft of a process that is gone" in lines
    assert ".lock.json is of somebody unknown" in lines
    make(data)
    assert not old.exists()
    assert said(data)[1] == 0


def test_shards_with_a_row_that_was_changed_in_place_are_found(whole):
    data, _ = whole
    folder = Folder(str(data / "run" / MASKS))
    name = shard_names(folder)[0]
    table = read_shard(folder, name)
    place = table.column_names.index("note")
    changed = table.set_column(place, table.schema.field(place), [["changed"] * len(table)])
    assert write_shard(folder, changed) == name
    assert "it does not have the digest that it had" in said(data)[0]


def test_damaged_weights_are_found_by_their_checksum(tmp_path, data):
    file = data / "drawn.safetensors"
    good = file.read_bytes()
    place = len(good) // 2
    file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    with pytest.raises(ValueError, match=r"drawn.safetensors .*: the file is damaged"):
        read_tensors(str(file))


@pytest.fixture
def state(tmp_path):
    """A folder with the state of a training."""
    network = torch.nn.Linear(30, 30)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    folder = Folder(str(tmp_path / "classifier"))
    TrainingState({"step": 3}).save(folder, network, optimizer)
    return folder


STATES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-100],
    "zeroed": lambda data: bytes(len(data)),
    "the header": lambda data: data[:20] + b"\xff" + data[21:],
    "a bit is flipped": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
}


@pytest.mark.parametrize("damage", STATES)
def test_a_damaged_state_is_named_and_the_training_begins_anew(state, damage, caplog):
    assert load_state(state).facts == {"step": 3}
    state.write(STATE, STATES[damage](state.read(STATE)))
    with pytest.raises(DamagedError, match=r"state.safetensors cannot be read: "):
        load_state(state)
    forget_damaged_state(state)
    assert "is damaged" in caplog.text
    assert load_state(state).facts == {}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_trial_is_counted_again(tmp_path, damage, caplog):
    folder = Folder(str(tmp_path))
    counts = np.random.default_rng(0).integers(0, 9, 3000)
    _write_counts(folder, "a", counts, {"done": True})
    _write_counts(folder, "b", counts, {"done": True})
    trials = folder / "trials"
    trials.write("a.npz", DAMAGES[damage](trials.read("a.npz")))
    assert _read_counts(folder, "a") is None
    assert list(stored_trials(folder)) == [{"done": True}]
    assert "a.npz is damaged (" in caplog.text


def test_a_training_whose_weights_are_gone_is_trained_again(data):
    flags = {"weights": "", "until": "seeds", "classifier": tiny("classifier")}
    run(config(data, **flags), ENGINE)
    file = data / "run" / "classifier/classifier.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    lines, _ = said(data, repair=True)
    assert "`rayseg train-classifier` trains it again" in lines
    run(config(data, **flags), ENGINE)
    assert said(data)[1] == 0


def test_the_settings_of_the_trials_of_a_sweep_are_read_too(whole):
    data, _ = whole
    sweep = Folder(str(data / "run" / "tuning" / "cam"))
    for folder in (sweep, sweep / "trials"):
        claim(folder, {"slice_images": 2}, "tuning")
    (sweep / "trials").write("run.json", bytes(40))
    lines, found = said(data)
    assert found == 1
    assert "trials/run.json is damaged: the file holds zeros only; its copy is good" in lines
    said(data, repair=True)
    assert read_facts(sweep / "trials")["config"] == {"slice_images": 2}
    assert said(data)[1] == 0


@pytest.mark.parametrize(
    "facts",
    [{"kind": ["x"]}, {"counts": 5}, {"source": {"folder": "../../etc"}}, {"source": {"folder": 3}},
     {"source": {"folder": "/etc"}}, {"tally": [1]}],
)  # fmt: skip
def test_facts_that_nobody_wrote_so_are_damage(whole, facts):
    data, _ = whole
    file = data / "run" / "seeds/cam/run.json"
    found = json.loads(file.read_text()) | facts
    del found["digest"]
    file.write_text(json.dumps(found))
    assert f"{file} is damaged: it must hold a configuration" in said(data)[0]


def test_a_manifest_that_is_gone_is_found(whole):
    data, before = whole
    (data / "run" / "manifest/manifest.parquet").unlink()
    lines, found = said(data)
    assert found == 1
    assert "manifest.parquet is missing; `rayseg prepare` with the same flags" in lines
    make(data)
    assert {folder: rows(data, folder) for folder in before} == before


def test_there_must_be_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run .* does not exist"):
        check(CheckConfig(run=str(tmp_path / "none")), ENGINE)
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="is no run: it has no manifest"):
        check(CheckConfig(run=str(tmp_path)), ENGINE)
