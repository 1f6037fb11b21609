"""Who is to blame: those who die together are tried alone; who dies alone, by whose doing."""

import json
import os
import signal
import sys
from dataclasses import replace

import pytest

from rayseg.stages import deaths
from rayseg.stages.deaths import Cause, NoWitness, Trace, signals_noted
from rayseg.stages.guard import BEARABLE, CrashGuard, guarded_rows
from rayseg.store import Folder


class Telling(NoWitness):
    """Knows what ended each process."""

    def __init__(self, cause=Cause.UNKNOWN):
        self.known = cause

    def cause(self, name):
        return self.known


def guard_of(folder, ids, cause=Cause.OWN):
    return CrashGuard(folder, ids, Telling(cause))


def die(guard, ids):
    """Leaves behind what a killed process leaves."""
    guard._write(ids, Trace("it", "elsewhere", 0, "/nowhere"))


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "inflight"))


def test_without_a_death_all_are_tried_together(folder):
    assert guard_of(folder, "abc").groups() == [["a", "b", "c"]]


@pytest.mark.parametrize("cause", [Cause.OWN, Cause.MEMORY, Cause.UNKNOWN])
def test_those_that_died_together_are_tried_alone_and_none_is_to_blame(folder, cause):
    die(guard_of(folder, "abc"), ["a", "b", "c"])
    guard = guard_of(folder, "abc", cause)
    assert guard.groups() == [["a"], ["b"], ["c"]]
    assert guard.deaths == {}


@pytest.mark.parametrize("cause", BEARABLE)
def test_who_dies_alone_is_given_up_after_as_many_deaths_as_its_cause_allows(folder, cause):
    die(guard_of(folder, "abc"), ["a", "b", "c"])
    for _ in range(BEARABLE[cause]):
        guard = guard_of(folder, "abc", cause)
        assert guard.given_up() == {}
        die(guard, ["b"])
    guard = guard_of(folder, "abc", cause)
    assert guard.given_up() == {"b": cause}
    assert guard.groups() == [["a"], ["c"]]


def test_two_kills_without_a_sign_give_nothing_up(folder):
    for _ in range(2):
        die(guard_of(folder, "a", Cause.UNKNOWN), ["a"])
    assert guard_of(folder, "a", Cause.UNKNOWN).given_up() == {}


def test_who_died_most_is_tried_first(folder):
    die(guard_of(folder, "abc"), ["a", "b", "c"])
    die(guard_of(folder, "abc"), ["b"])
    assert guard_of(folder, "abc").groups() == [["b"], ["a"], ["c"]]


def test_a_death_from_outside_is_nobodys_fault(folder):
    for _ in range(9):
        die(guard_of(folder, "abc", Cause.OUTSIDE), ["a"])
    assert guard_of(folder, "abc", Cause.OUTSIDE).groups() == [["a", "b", "c"]]


def test_deaths_of_several_causes_do_not_add_up(folder):
    for cause in (Cause.OWN, Cause.MEMORY, Cause.MEMORY, Cause.UNKNOWN):
        die(guard_of(folder, "a"), ["a"])
        guard = guard_of(folder, "a", cause)
    assert guard.given_up() == {}


def test_a_block_that_is_done_is_forgotten(folder):
    die(guard_of(folder, "abc"), ["a", "b", "c"])
    guard_of(folder, "abc").forget()
    assert folder.names() == []
    assert guard_of(folder, "abc").groups() == [["a", "b", "c"]]


def test_another_block_is_not_suspected(folder):
    die(guard_of(folder, "abc"), ["a", "b", "c"])
    assert guard_of(folder, "de").groups() == [["d", "e"]]


def test_an_exception_is_no_death(folder):
    with pytest.raises(ValueError, match="bad"), guard_of(folder, "ab").inflight(["a"]):
        raise ValueError("bad")
    assert guard_of(folder, "ab").suspects == []


def test_without_the_folder_nobody_is_suspected(folder):
    die(guard_of(folder, "ab"), ["a"])
    folder.remove()
    assert guard_of(folder, "ab").suspects == []


@pytest.mark.parametrize(
    ("cause", "status", "reason"),
    [
        (Cause.OWN, "poison", "killed its process 2 times"),
        (Cause.UNKNOWN, "poison", "ended 5 times without a sign"),
        (Cause.MEMORY, "error", "lack of memory 3 times, alone; try --compute.retry-failed"),
    ],
)
def test_an_image_that_is_given_up_says_what_killed_it_and_costs_no_neighbour(
    folder, cause, status, reason
):
    for _ in range(BEARABLE[cause]):
        die(guard_of(folder, "ab", cause), ["a"])
    rows = [{"id": id_, "height": 1, "width": 2, "note": "", "digest": ""} for id_ in "ab"]
    made = guarded_rows(lambda rows: [row | {"status": "ok"} for row in rows], rows, folder,
                        Telling(cause))  # fmt: skip
    assert [row["status"] for row in made] == [status, "ok"]
    assert reason in made[0]["error"]


# Signs


def died(end, path):
    """What is left by a child process that ends in this way."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with signals_noted(path):
            end()
    os.waitpid(child, 0)
    return Trace("", "elsewhere", 0, path).cause(NoWitness())


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (os.abort, Cause.OWN),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), Cause.OWN),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), Cause.UNKNOWN),
        (lambda: os._exit(7), Cause.UNKNOWN),
    ],
)
def test_a_fatal_signal_from_within_leaves_a_sign_and_nothing_else_does(tmp_path, end, cause):
    assert died(end, str(tmp_path / "signs")) == cause
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_lives_on_leaves_nothing(tmp_path):
    with signals_noted(str(tmp_path / "signs")):
        assert (tmp_path / "signs").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("here", "cause"), [(True, Cause.MEMORY), (False, Cause.UNKNOWN)])
def test_a_kernel_that_has_killed_for_memory_meanwhile_on_that_machine_is_the_cause(
    folder, monkeypatch, here, cause
):
    trace = Trace.of(NoWitness(), folder)
    monkeypatch.setattr(deaths, "count_oom_kills", lambda: trace.oom_kills + 1)
    trace = trace if here else replace(trace, host="another")
    assert trace.cause(NoWitness()) == cause


def test_a_note_of_an_earlier_version_blames_nobody_and_stops_nothing(tmp_path):
    folder = Folder(str(tmp_path))
    with CrashGuard(folder, ["a", "b"], NoWitness()).inflight(["a", "b"]):
        (name,) = folder.names(".json")
        folder.write(name, json.dumps({"deaths": {"a": 1}, "inflight": ["b"]}).encode())
        guard = CrashGuard(folder, ["a", "b"], NoWitness())
    assert not guard.given_up()
    assert guard.groups() == [["a"], ["b"]]
