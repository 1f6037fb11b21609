"""The job that serves a run's page, as a command."""

import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from rayseg.cli import main
from rayseg.config import ViewConfig
from tests.report.viewed import make_run

# a shell's background job ignores SIGINT, and so would what it starts
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from rayseg.cli import main
main()
"""
COMMAND = [sys.executable, "-c", PROGRAM, "view"]


def started(*arguments):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_run_is_served_until_a_signal_ends_it(tmp_path, number, status):
    make_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "my run").rglob("*")}
    job = started(tmp_path / "my run")
    try:
        word, address = job.stdout.readline().split()
        assert word == "view:"
        with urllib.request.urlopen(address) as answer:
            assert b"my run" in answer.read()
    finally:
        os.kill(job.pid, number)
        out, said = job.communicate()
    assert (job.returncode, out) == (status, "")
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if not line.startswith("serving: ")]
    assert len(lines) == (0 if number == signal.SIGINT else 1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "my run").rglob("*")} == before


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["view", *map(str, arguments)])
    return ended.value.code, capsys.readouterr().err


def test_a_folder_that_is_no_run_is_named_with_a_way_out(tmp_path, capsys):
    status, said = refused(capsys, tmp_path)
    assert status == 1
    assert f"{tmp_path}/manifest holds no manifest; make one with `rayseg prepare" in said
    make_run(tmp_path)
    status, said = refused(capsys, tmp_path / "my run", "--beside", tmp_path / "other")
    assert status == 1
    assert said.count("\n") == 1
    assert "other/manifest holds no manifest" in said


def test_a_port_that_is_taken_is_named_with_a_way_out(tmp_path, capsys):
    make_run(tmp_path)
    job = started(tmp_path / "my run")
    try:
        address = job.stdout.readline().split()[1]
        port = address.split(":")[2].split("/")[0]
        status, said = refused(capsys, tmp_path / "my run", "--port", port)
    finally:
        job.send_signal(signal.SIGINT)
        job.communicate()
    assert status == 1
    assert f"port {port} cannot be served on: Address already in use; leave --port out" in said


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValueError, match="port must be 0 to 65535"):
        ViewConfig(port=port)
