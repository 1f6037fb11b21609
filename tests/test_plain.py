"""The engine that is a loop: one process, all of its threads, errors in a line."""

import os
from contextlib import suppress
from dataclasses import dataclass

import pytest
import torch

from rayseg.config import Compute, PredictConfig
from rayseg.plain import PlainEngine
from rayseg.steps import predictions
from rayseg.steps.engine import Images, Pool
from rayseg.steps.outcome import Outcome
from rayseg.store import MANIFEST_SCHEMA, MASKS_SCHEMA, Folder, read_rows, rows_to_table

ENGINE = PlainEngine()


def images(number):
    rows = [{"id": f"i{n}", "path": "nowhere", "height": 8, "width": 8} for n in range(number)]
    return Images(rows_to_table(rows, MANIFEST_SCHEMA), decoded=False)


@dataclass
class Threads:
    """Says the threads that it computes with; takes one when it is made, as stages do."""

    def __post_init__(self):
        torch.set_num_threads(1)

    def __call__(self, rows):
        note = str(torch.get_num_threads())
        return [{"id": row["id"], "status": "ok", "note": note} for row in rows]


@pytest.mark.parametrize(("threads", "taken"), [(0, "3"), (2, "2")])
def test_a_stage_has_all_threads_and_leaves_them_as_they_were(
    tmp_path, monkeypatch, threads, taken
):
    monkeypatch.setattr("rayseg.plain.count_cores", lambda: 3)
    before = torch.get_num_threads()
    out = Folder(str(tmp_path))
    given = (images(3), Pool(Threads, keeps_network=True), out, MASKS_SCHEMA, "masks")
    ENGINE.fill(*given, Compute(threads=threads, block_rows=2))
    assert {row["note"] for row in read_rows(out)} == {taken}
    assert len(out.names(".parquet")) == 2
    assert torch.get_num_threads() == before


def test_a_stage_that_fails_as_a_whole_is_one_line(tmp_path):
    def fail():
        raise RuntimeError("no\nstage")

    given = (Pool(fail), Folder(str(tmp_path)), MASKS_SCHEMA, "masks cam", Compute())
    with pytest.raises(ChildProcessError, match=r"^masks cam failed: RuntimeError: no stage$"):
        ENGINE.fill(images(1), *given)


def test_a_crf_on_many_cores_is_still_one_process(monkeypatch):
    taken = []

    def carry_out(steps, engine, compute):
        engine.check("predictions", compute)
        taken.append(compute.actors)
        return Outcome()

    monkeypatch.setattr(predictions, "carry_out", carry_out)
    monkeypatch.setattr(predictions, "_check", lambda config, kind: None)
    monkeypatch.setattr(predictions, "count_cores", lambda: 8)
    predictions.predict(PredictConfig(crf=True), ENGINE)
    assert taken == [0]


@pytest.mark.parametrize("name", ["actors", "workers"])
def test_several_processes_are_refused_with_the_engine_that_has_them(name):
    with pytest.raises(ValueError, match=f"one process, got compute.{name} 2; take --engine ray"):
        ENGINE.check("a job", Compute(**{name: 2}))


def test_no_cluster_is_joined():
    with pytest.raises(ValueError, match=r"joins no cluster, got address 10\.0\.0\.1:6379"):
        ENGINE.open("10.0.0.1:6379", "")


@dataclass
class Aborting:
    """Dies of one image."""

    def __call__(self, rows):
        if any(row["id"] == "i1" for row in rows):
            os.abort()
        return [{"id": row["id"], "status": "ok"} for row in rows]


def test_an_image_that_kills_its_process_is_given_up_by_a_later_start(tmp_path):
    out, ended = Folder(str(tmp_path)), []
    while not ended or ended[-1]:
        assert len(ended) < 5
        child = os.fork()
        if not child:
            with suppress(Exception):  # which the parent would wait for, for ever
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                given = (images(3), Pool(Aborting), out, MASKS_SCHEMA, "masks", Compute(threads=1))
                ENGINE.fill(*given)
                os._exit(0)
            os._exit(1)
        ended.append(os.waitpid(child, 0)[1])
    assert len(ended) == 4  # a death in company, two alone
    assert {row["id"]: row["status"] for row in read_rows(out)} == {
        "i0": "ok", "i1": "poison", "i2": "ok",
    }  # fmt: skip
