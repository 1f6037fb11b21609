"""Machines, as far as Ray can tell: networks of their own on this one, by Linux' namespaces."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD, OTHER = "10.213.77.1", "10.213.77.2"
PORT = 6379  # each network has its own
RAY = f"exec {Path(sys.executable).parent}/ray start --block --object-store-memory=100000000"


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True)


def inside(network, *words):
    """The command that runs another in a network."""
    return ["ip", "netns", "exec", network, *map(str, words)]


def environment(**changed):
    """The shell's, without what would tell of another cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # this machine's name is no address of these networks, by which gloo finds its interface
    own = {"GLOO_SOCKET_IFNAME": "eth0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    return kept | own | {"OMP_NUM_THREADS": "1"} | changed


@contextmanager
def networks():
    """Names of two networks that see each other and nothing else."""
    names = [f"rayseg-{uuid.uuid4().hex[:8]}-{n}" for n in "ab"]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0",
            "netns", names[1])  # fmt: skip
        for name, own, peer in zip(names, (HEAD, OTHER), (OTHER, HEAD), strict=True):
            for words in (
                ("addr", "add", f"{own}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
                ("route", "add", "default", "via", peer),  # by which Ray learns its own address
            ):
                run("ip", "-netns", name, *words)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no networks can be made here: {getattr(error, 'stderr', None) or error}")
    try:
        yield names
    finally:
        for name in names:
            run("ip", "netns", "delete", name)


@contextmanager
def node(network, command, said, **changed):
    """A node of a cluster, by a shell command; it ends with all that runs in its network."""
    with said.open("wb") as sink:
        process = subprocess.Popen(
            inside(network, "sh", "-c", command), env=environment(**changed), stdout=sink,
            stderr=sink,
        )  # fmt: skip
    try:
        while "Ray runtime started" not in said.read_text():
            assert process.poll() is None, said.read_text()[-2000:]
            time.sleep(0.5)
        yield
    finally:
        for number in run("ip", "netns", "pids", network).stdout.split():
            os.kill(int(number), signal.SIGKILL)
        process.wait()


def rayseg(network, *flags):
    """Runs a job there, on the cluster whose head is at HEAD."""
    return subprocess.run(
        inside(network, sys.executable, "-m", "rayseg.cli", *flags, "--address", f"{HEAD}:{PORT}"),
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
