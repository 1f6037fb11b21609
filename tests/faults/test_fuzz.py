"""A few hundred cases of the fuzzer, those that were found once, and that it finds what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayseg.datasets import COCO, DatasetError
from rayseg.datasets.tally import Tally
from tests.faults.fuzz.borders import make_coco
from tests.faults.fuzz.cases import Case, Verdict, judged
from tests.faults.fuzz.mutations import csv_file, json_file, raw, xml_file
from tests.faults.fuzz.strange import JSON, strange_values

ROOT = Path(__file__).resolve().parents[2]
FOUND = Path(__file__).parent / "found"
DYING = """
import os, sys
from tests.faults.fuzz.__main__ import main

def plant():
    from rayseg.steps import preparing
    plain = preparing.prepare
    preparing.prepare = lambda config, engine: {what}

sys.exit(main(plant))
"""
"""A program in which prepare has a fault."""


def program(*arguments):
    """A program of its own, since limits on a process's memory cannot be taken back."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_few_hundred_cases_and_all_that_were_found_once(tmp_path):
    flags = ("--cases", "300", "--workers", "1", "--keep", str(tmp_path), "--replay", str(FOUND))
    done = program("-m", "tests.faults.fuzz", *flags)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("os.abort()", "died: 'exit -6'"),
        ("{}['x']", "unforeseen"),
        ("open('../escaped', 'w')", "outside"),
    ],
)
def test_planted_faults_are_found(tmp_path, what, said):
    flags = ("--cases", "3", "--workers", "1", "--keep", str(tmp_path), "--borders", "tables")
    done = program("-c", DYING.format(what=what), *flags)
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert list(tmp_path.glob("*.json"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True,
          database=None)  # fmt: skip
@given(st.randoms(use_true_random=False), JSON)
def test_an_annotation_costs_itself_whatever_it_holds(tmp_path, random, value):
    folder = tmp_path / str(random.randrange(10**9))
    folder.mkdir(exist_ok=True)
    if not (folder / "instances.json").exists():
        make_coco(folder)
    path = folder / "instances.json"
    path.write_bytes(json_file(path.read_bytes(), random))
    reader = COCO(images=folder / "images", annotations=path)
    try:
        samples = list(reader.samples(folder / "out", Tally()))
    except DatasetError as error:
        assert "instances.json" in str(error)
    else:
        assert len({sample.id for sample in samples}) == len(samples)


# Its own parts


def test_values_and_cases_are_the_same_for_the_same_seed():
    assert repr(strange_values(0)) == repr(strange_values.__wrapped__(0))
    assert len(strange_values(0)) > 250


@pytest.mark.parametrize(
    ("change", "content"),
    [
        (raw, b"\x89PNG some bytes"),
        (json_file, b'{"images": [{"id": 1}], "x": "y"}'),
        (csv_file, b"image,tags\na.png,cat\n"),
        (xml_file, b"<a><b>1</b><c>2</c></a>"),
    ],
)
def test_a_mutation_changes_content_and_is_repeated_by_its_seed(change, content):
    from random import Random

    made = [change(content, Random(number)) for number in range(40)]
    assert made == [change(content, Random(number)) for number in range(40)]
    assert sum(one != content for one in made) > 30


def test_a_case_is_kept_and_read_again():
    case = Case("tables", "1/2", {"a.csv": b"\xff\0", "b": "folder"}, [["prepare"]])
    assert Case.from_json(case.as_json()) == case
    assert Verdict(case)
    assert not Verdict(case, "died")


@pytest.mark.parametrize(
    ("status", "errors", "what"),
    [
        (0, [], ""),
        (3, [], ""),
        (1, ["rayseg: /f/a.csv:2: no class"], ""),
        (1, ["rayseg: no class"], "no name"),
        (1, ["rayseg: KeyError: 'x' (unforeseen; RAYSEG_TRACEBACK=1 shows where)"], "unforeseen"),
        (1, ["rayseg: a.csv", "more"], "lines"),
        (0, ["RuntimeWarning: overflow"], "lines"),
        (1, ["rayseg: a.csv " + "x" * 2000], "long"),
        (70, [], "status"),
    ],
)
def test_what_must_hold_of_a_command(status, errors, what):
    case = Case("tables", "1", {"a.csv": b""}, [["prepare"]])
    assert judged(case, Path("/f"), ["prepare"], status, errors)[0] == what
