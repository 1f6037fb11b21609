"""Two machines, as far as Ray can tell: each with a network of its own, a folder that both see."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HEAD, OTHER = "10.213.77.1", "10.213.77.2"
PORT = 6379  # each network has its own
CPUS = 2  # of each machine, so that three processes need both
FLAGS = (
    "--data", "synthetic", "--synthetic.count", "6", "--synthetic.val-count", "0",
    "--synthetic.ood-count", "0", "--synthetic.size", "64", "--methods", "cam", "--cam.scales",
    "1.0", "--classifier.trunk", "resnet18", "--classifier.weights", "none", "--classifier.epochs",
    "1", "--classifier.batch-size", "6", "--classifier.crops.crop", "64",
    "--classifier.crops.long-side", "64", "64", "--until", "seeds", "--compute.workers", "3",
    "--compute.actors", "3", "--compute.threads", "1", "--compute.block-rows", "2",
)  # fmt: skip


def run(*words, **options):
    return subprocess.run(words, check=True, capture_output=True, text=True, **options)


def inside(machine, *words):
    return ["ip", "netns", "exec", machine, *map(str, words)]


def environment():
    """The shell's, without what would tell of another cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # the machine's name is not an address of either network, by which gloo finds its interface
    own = {"GLOO_SOCKET_IFNAME": "eth0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    return kept | own | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def machines():
    """Names of two networks that see each other, and nothing else."""
    head, other = (f"rayseg-{os.getpid()}-{n}" for n in "ab")
    try:
        run("ip", "netns", "add", head)
        run("ip", "netns", "add", other)
        run("ip", "link", "add", "eth0", "netns", head, "type", "veth", "peer", "name", "eth0",
            "netns", other)  # fmt: skip
        for name, own, peer in ((head, HEAD, OTHER), (other, OTHER, HEAD)):
            for words in (
                ("addr", "add", f"{own}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
                ("route", "add", "default", "via", peer),  # by which Ray learns its own address
            ):
                run("ip", "-netns", name, *words)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no networks can be made here: {getattr(error, 'stderr', None) or error}")
    yield head, other
    for name in (head, other):
        run("ip", "netns", "delete", name)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """A folder that only the head sees."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def head(machines, hidden):
    """The network of the head of a cluster of both."""
    scratch = Path(tempfile.mkdtemp(prefix="r"))
    common = f"--block --num-cpus={CPUS} --object-store-memory=100000000 --disable-usage-stats"
    ray = f"{BIN}/ray start {common}"
    starts = (
        f"exec {ray} --head --port={PORT} --node-ip-address={HEAD} --temp-dir={scratch} "
        "--include-dashboard=false",
        f"mount -t tmpfs none {hidden} && exec {ray} --address={HEAD}:{PORT} "
        f"--node-ip-address={OTHER}",
    )
    said = (scratch / "said").open("wb")
    nodes = []
    for machine, start in zip(machines, starts, strict=True):
        nodes.append(
            subprocess.Popen(
                inside(machine, "sh", "-c", start), env=environment(), stdout=said, stderr=said
            )
        )
        _wait_for(len(nodes), nodes, scratch / "said")
    yield machines[0]
    for machine in machines:
        for number in run("ip", "netns", "pids", machine).stdout.split():
            os.kill(int(number), signal.SIGKILL)
    for node in nodes:
        node.wait(timeout=60)
    said.close()
    shutil.rmtree(scratch, ignore_errors=True)


def _wait_for(number, nodes, said):
    """Until so many nodes have started."""
    deadline = time.monotonic() + 120
    while said.read_text().count("Ray runtime started") < number:
        assert all(node.poll() is None for node in nodes), said.read_text()[-2000:]
        assert time.monotonic() < deadline, said.read_text()[-2000:]
        time.sleep(0.5)


def rayseg(head, *flags):
    return subprocess.run(
        inside(head, sys.executable, "-m", "rayseg.cli", *flags, "--address", f"{HEAD}:{PORT}"),
        env=environment(), capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_of_two_machines_goes_from_tags_to_seeds_in_a_folder_that_both_see(head, tmp_path):
    done = rayseg(head, "run", "--run", str(tmp_path / "run"), *FLAGS)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert "seeds cam: 6 ok" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_a_folder_that_one_machine_does_not_see_is_refused(head, hidden):
    done = rayseg(head, "run", "--run", str(hidden / "run"), *FLAGS)
    assert done.returncode == 1
    assert f"which {OTHER} does not see" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
