"""Who killed the process: those who die together are tried alone, who kills alone is poison."""

import pytest

from rayseg.stages.guard import CrashGuard
from rayseg.store import Folder


def die(guard, ids):
    """Leaves behind what a killed process leaves."""
    guard._write(ids)


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "inflight"))


def test_without_a_death_all_are_tried_together(folder):
    assert CrashGuard(folder, "abc").groups() == [["a", "b", "c"]]


def test_those_that_died_together_are_tried_alone(folder):
    die(CrashGuard(folder, "abc"), ["a", "b", "c"])
    assert CrashGuard(folder, "abc").groups() == [["a"], ["b"], ["c"]]


def test_who_dies_alone_as_well_is_poison_and_the_others_are_not(folder):
    die(CrashGuard(folder, "abc"), ["a", "b", "c"])
    die(CrashGuard(folder, "abc"), ["b"])
    guard = CrashGuard(folder, "abc")
    assert guard.poisonous() == ["b"]
    assert guard.groups() == [["a"], ["c"]]


def test_a_block_that_is_done_is_forgotten(folder):
    die(CrashGuard(folder, "abc"), ["a", "b", "c"])
    CrashGuard(folder, "abc").forget()
    assert folder.names() == []
    assert CrashGuard(folder, "abc").groups() == [["a", "b", "c"]]


def test_another_block_is_not_suspected(folder):
    die(CrashGuard(folder, "abc"), ["a", "b", "c"])
    assert CrashGuard(folder, "de").groups() == [["d", "e"]]


def test_an_exception_is_no_death(folder):
    with pytest.raises(ValueError, match="bad"), CrashGuard(folder, "ab").inflight(["a"]):
        raise ValueError("bad")
    assert CrashGuard(folder, "ab").deaths == {}


def test_without_the_folder_nobody_is_suspected(folder):
    die(CrashGuard(folder, "ab"), ["a"])
    folder.remove()
    assert CrashGuard(folder, "ab").deaths == {}
