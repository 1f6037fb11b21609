"""Ray's own deaths, signals and lack of memory: one line, a status, and nothing left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rayseg.store import Folder, stored_ids
from tests.faults.commands import without_bars

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ray]


def start(folder, held_after, **environment):
    command = [sys.executable, "-m", "tests.on_ray.held_job", str(folder), str(held_after)]
    own = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    with open(folder / "said", "wb") as said:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=said,
            stderr=said,
            env=own | {"PYTHONPATH": str(ROOT)} | environment,
        )


def held(folder):
    """A job that waits after some rows were stored."""
    job = start(folder, 6)
    while len(stored_ids(Folder(str(folder / "seeds")))) < 4:
        assert job.poll() is None, (folder / "said").read_text()[-2000:]
        time.sleep(0.05)
    return job


def lines(folder):
    """What was said beside progress."""
    return without_bars((folder / "said").read_text())


def descendants(pid):
    """Command lines of the processes that a process started, by number."""
    found, grown = {}, {pid}
    parents = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int(
                (place / "stat").read_text().rpartition(")")[2].split()[1]
            )
            found[int(place.name)] = (place / "cmdline").read_bytes().decode()
        except OSError:
            continue
    while more := {one for one, parent in parents.items() if parent in grown} - grown:
        grown |= more
    return {one: found[one] for one in grown - {pid} if one in found}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_ray_that_is_killed_ends_the_job_in_one_line(tmp_path):
    job = held(tmp_path)
    for pid, command in descendants(job.pid).items():
        if command.split("\0")[0].endswith("/gcs_server"):
            os.kill(pid, signal.SIGKILL)
    assert job.wait() == 1
    (line,) = lines(tmp_path)
    assert "held ended, since Ray's gcs_server on this machine was killed" in line
    assert "the same command goes on" in line
    assert not (tmp_path / "seeds" / ".lock.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_sigterm_ends_a_job_in_one_line_with_its_processes_and_keeps_its_rows(tmp_path):
    job = held(tmp_path)
    processes = descendants(job.pid)
    assert any("gcs_server" in command for command in processes.values())
    job.send_signal(signal.SIGTERM)
    assert job.wait() == 128 + signal.SIGTERM
    (line,) = lines(tmp_path)
    assert line.startswith("rayseg: ended by SIGTERM; what is written stays")
    assert not (tmp_path / "seeds" / ".lock.json").exists()
    for pid, command in processes.items():
        while Path(f"/proc/{pid}").exists() and _runs(pid, command):
            time.sleep(0.05)
    assert len(stored_ids(Folder(str(tmp_path / "seeds")))) >= 4


def _runs(pid, command):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode() == command
    except OSError:
        return False


@pytest.mark.slow
def test_a_memory_monitor_that_kills_everything_ends_the_job_in_one_line(tmp_path):
    assert start(tmp_path, 0, RAY_memory_usage_threshold="0.01").wait() == 1
    (line,) = lines(tmp_path)
    assert "Ray's memory monitor kills its processes again and again" in line
    assert "GB are used); try fewer --compute.actors" in line
