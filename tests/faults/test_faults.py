"""A few rounds of faults; and that the harness finds what is wrong."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.commands import Ended, without_bars
from tests.faults.compare import compare
from tests.faults.rounds import bad_message

ROOT = Path(__file__).resolve().parents[2]
FORGETTING = """
import sys
from rayseg.steps import step
from tests.faults.__main__ import main

plain = step.stored_ids

def stored_ids(folder):
    return plain(folder) | {"i6"} if plain(folder) else plain(folder)

step.stored_ids = stored_ids
sys.exit(main())
"""
"""A program in which a step takes an image for stored that is not."""


def program(*arguments):
    """A program of its own, since what faults do to a process cannot be taken back."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Flags by which the undisturbed chain is carried out once for all."""
    return "--chain", str(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
def test_a_few_rounds_lose_double_and_change_nothing(chain):
    done = program("-m", "tests.faults", "--engine", "plain", "--rounds", "12", "--workers", "1",
                   *chain, "--kinds", "SIG", "power", "cut", "disk", "at once")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_planted_bug_is_found(chain):
    flags = (
        *chain,
        "--rounds",
        "12",
        "--seed",
        "5",
        "--workers",
        "1",
        "--kinds",
        "SIGKILL between",
    )
    done = program("-c", FORGETTING, *flags)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "lost" in done.stderr
    assert ": i6" in done.stderr


# What counts as a difference


@pytest.fixture
def runs(tmp_path):
    """Two runs with two rows each."""
    for name in ("now", "before"):
        folder = tmp_path / name / "seeds" / "cam"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"counts": {"ok": 2}, "seconds": 1.0}')
        store(folder, "part-0.parquet", [("a", 1), ("b", 2)])
    return tmp_path / "now", tmp_path / "before"


def store(folder, name, rows):
    columns = {"id": [id_ for id_, _ in rows], "value": [value for _, value in rows]}
    pq.write_table(pa.table(columns | {"seconds": [hash(name) / 1e9] * len(rows)}), folder / name)


def test_runs_that_differ_in_times_alone_are_alike(runs):
    (runs[0] / "seeds/cam/run.json").write_text('{"counts": {"ok": 2}, "seconds": 7.0}')
    shutil.move(runs[0] / "seeds/cam/part-0.parquet", runs[0] / "seeds/cam/part-1.parquet")
    assert not compare(*runs)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([("a", 1)], "lost ['seeds/cam: b']"),
        ([("a", 1), ("b", 2), ("b", 2)], "doubled ['seeds/cam: b']"),
        ([("a", 1), ("b", 3)], "wrong ['seeds/cam: b']"),
        ([("a", 1), ("b", 2), ("c", 3)], "wrong ['seeds/cam: c is new']"),
    ],
)
def test_rows_that_are_lost_doubled_or_changed_are_named(runs, rows, what):
    store(runs[0] / "seeds/cam", "part-0.parquet", rows)
    assert str(compare(*runs)) == what


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("seeds/cam/run.json", '{"counts": {"ok": 1}}', "wrong ['seeds/cam/run.json']"),
        ("seeds/cam/.x.tmp", "", "wrong ['seeds/cam/.x.tmp is new']"),
        ("seeds/cam/run.json", None, "lost ['seeds/cam/run.json']"),
    ],
)
def test_files_that_are_lost_changed_or_left_behind_are_named(runs, name, content, what):
    if content is None:
        (runs[0] / name).unlink()
    else:
        (runs[0] / name).write_text(content)
    assert str(compare(*runs)) == what


# What counts as a bad message


def ended(status, *errors):
    return Ended(["prepare"], status, "", list(errors))


@pytest.mark.parametrize(
    ("status", "errors", "wrong"),
    [
        (0, [], ""),
        (1, ["rayseg: cannot write /r/run/x: full"], ""),
        (1, ["rayseg: no space left"], "no file"),
        (1, ["rayseg: /r/run/x", "and more"], "not one line"),
        (1, [], "not one line"),
        (1, ["Traceback (most recent call last):", "KeyError: 'x'"], "a traceback"),
        (0, ["rayseg: /r/run/x"], "/r/run/x"),
        (-15, [], "-15"),
        (-9, [], ""),
        (143, ["rayseg: ended by SIGTERM"], ""),
    ],
)
def test_a_message_is_one_line_that_names_the_file(status, errors, wrong):
    said = bad_message(ended(status, *errors), errors, "/r/run", names=True)
    assert (wrong in said) if wrong else not said


def test_bars_of_progress_are_no_lines_of_errors():
    bars = (
        "seeds cam:   0%|          | 0/7 [00:00<?, ?image/s]\rseeds cam: 100%|##| 7/7 [00:01<00:00]"
    )
    lines = (
        "/r/run: 6 train images, 5 classes; to be made, in this order:",
        "  seeds/cam: 6 images, 2 of them there",
        "masks cam+threshold: 3 of 3 images after 0 s",
        "classifier: 3 of 216 steps, 4.2 s a step, 15 min left, loss 0.69",
        "score: 2 min so far",
        "seeds cam: 437 images in 28 min",
    )
    said = "rayseg: cannot write x: 3 of 5 images"
    assert without_bars("\n".join([bars, *lines, said, ""])) == [said]
