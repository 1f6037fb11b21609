"""A few hundred cases of the fuzzer, those found once, and that it finds what is wrong."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayseg.datasets import COCO, DatasetError
from rayseg.datasets.tally import Tally
from tests.faults.fuzz.borders import make_coco
from tests.faults.fuzz.cases import Case, Verdict, judged
from tests.faults.fuzz.mutations import csv_file, json_file, raw, xml_file
from tests.faults.fuzz.strange import strange_values

ROOT = Path(__file__).resolve().parents[2]
FOUND = Path(__file__).parent / "found"
PLANTED = """
import os, sys
from pathlib import Path
from tests.faults.fuzz.__main__ import main

def prepare(config, engine):
    number = len(os.listdir({marks!r}))
    Path({marks!r}, str(number)).touch()
    [os.abort, lambda: {{}}["x"], lambda: open("../escaped", "w")][number % 3]()

def plant():
    from rayseg.steps import preparing
    preparing.prepare = prepare

sys.exit(main(plant))
"""
"""A program in which prepare has three faults, one after the other."""


def program(*arguments):
    """A program of its own, since limits on a process's memory cannot be taken back."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_few_cases_and_all_that_were_found_once(tmp_path):
    flags = ("--cases", "80", "--workers", "1", "--keep", str(tmp_path), "--replay", str(FOUND))
    done = program("-m", "tests.faults.fuzz", *flags)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_planted_faults_are_found(tmp_path):
    marks, kept = tmp_path / "marks", tmp_path / "kept"
    marks.mkdir()
    flags = ("--cases", "3", "--workers", "1", "--keep", str(kept), "--borders", "tables")
    done = program("-c", PLANTED.format(marks=str(marks)), *flags)
    assert done.returncode == 1, done.stdout + done.stderr
    for said in ("died: 'exit -6'", "unforeseen", "outside"):
        assert said in done.stdout
    assert len(list(kept.glob("*.json"))) == 3


@pytest.fixture
def coco(tmp_path):
    """A reader of a JSON that is still to be written, and a JSON that is right."""
    strange_values(0)  # drawn by hypothesis too, and not within another of its tests
    make_coco(tmp_path)
    reader = COCO(images=tmp_path / "images", annotations=tmp_path / "mutated.json")
    return reader, (tmp_path / "instances.json").read_bytes()


@settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True,
    database=None,
)  # fmt: skip
@given(st.randoms(use_true_random=False))
def test_a_json_is_read_or_refused_by_name_whatever_it_holds(coco, random):
    reader, content = coco
    reader.annotations.write_bytes(json_file(content, random))
    ids, said = [], "mutated.json"
    try:
        again = replace(reader)
        ids = [sample.id for sample in again.samples(again.images.parent / "out", Tally())]
    except DatasetError as error:
        said = str(error)
    assert "mutated.json" in said
    assert len({*ids}) == len(ids)


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
