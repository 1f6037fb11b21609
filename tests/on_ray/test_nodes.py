"""Several nodes, really: one dies in the middle of a job and another takes its place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rayseg.store import Folder, read_rows
from tests.on_ray.fakes import computed, manifest_table
from tests.on_ray.node_job import ROWS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What a job left that lost a node and won one: its folder, its facts."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "marks").mkdir()
    command = [sys.executable, "-m", "tests.on_ray.node_job", str(folder)]
    with (folder / "said").open("wb") as said:
        subprocess.run(command, cwd=ROOT, stdout=said, stderr=said, check=False)
    facts = folder / "facts.json"
    assert facts.exists(), (folder / "said").read_text()[-3000:]
    return folder, json.loads(facts.read_text())


def test_no_image_is_lost_and_none_is_stored_twice(done):
    rows = [row["id"] for row in read_rows(Folder(str(done[0] / "seeds")))]
    assert sorted(rows) == manifest_table(ROWS).column("id").to_pylist()


def test_no_image_that_was_stored_is_computed_again(done):
    folder, facts = done
    assert len(facts["stored_before"]) >= 12
    counts = computed(folder / "marks")
    assert {id_: counts[id_] for id_ in facts["stored_before"] if counts[id_] != 1} == {}


def test_a_node_that_joins_is_worked_on(done):
    folder, facts = done
    actors = {row["note"] for row in read_rows(Folder(str(folder / "seeds")))}
    assert actors & set(facts["joined"])
