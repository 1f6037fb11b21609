"""Jobs submitted to a cluster that was started on this machine: logs, exit status, tokens."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rayseg.cli import split_flags
from rayseg.on_ray.submission import Submission

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TOKEN = "0123456789abcdef" * 4
TINY = """
data = "synthetic"
methods = ["cam"]
until = "seeds"

[synthetic]
count = 6
val_count = 2
ood_count = 0
size = 64

[classifier]
trunk = "resnet18"
weights = "none"
epochs = 1
batch_size = 4

[classifier.crops]
crop = 64
long_side = [64, 64]

[cam]
scales = [1.0]
"""


def environment(**changed):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # a node's `python` has rayseg's packages, whether or not their bin was on the path
    found = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return kept | found | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN} | changed


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def server():
    """Address of the job server of a cluster with a token; it ends with the tests."""
    port, dashboard, client, agent, grpc, metrics, runtime = free_ports(7)
    scratch = tempfile.mkdtemp(prefix="r")
    command = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=3", f"--port={port}",
        f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", f"--temp-dir={scratch}",
        f"--ray-client-server-port={client}", "--object-store-memory=200000000",
        # else those of another test's cluster
        f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}",
        f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime}",
    ]  # fmt: skip
    with (Path(scratch) / "said").open("wb") as said:
        head = subprocess.Popen(
            command, env=environment(RAY_ADDRESS=""), stdout=said, stderr=said, cwd=scratch,
            start_new_session=True,
        )  # fmt: skip
    while not listens(dashboard):
        assert head.poll() is None, (Path(scratch) / "said").read_text()[-2000:]
        time.sleep(0.5)
    yield f"http://127.0.0.1:{dashboard}"
    os.killpg(head.pid, signal.SIGKILL)  # half a minute sooner than by asking
    head.wait()
    shutil.rmtree(scratch, ignore_errors=True)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A working directory with the code and a configuration, without history and data."""
    folder = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "rayseg", folder / "rayseg", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    (folder / "tiny.toml").write_text(TINY)
    return folder


def command(server, *flags):
    return [sys.executable, "-m", "rayseg.cli", "submit", *flags, "--address", server]


def processes(*words):
    """Numbers of the processes whose command holds these words in a row."""
    wanted = "\0".join(map(str, words)).encode()
    found = [path for path in Path("/proc").glob("[0-9]*/cmdline") if wanted in path.read_bytes()]
    return [int(path.parent.name) for path in found]


def submit(server, code, *flags, **changed):
    return subprocess.run(
        command(server, *flags),
        cwd=code, env=environment(**changed), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_is_submitted_once_followed_and_told_true(server, code, tmp_path):
    flags = ("run", "--run", str(tmp_path / "run"), "--config", "tiny.toml")
    with (tmp_path / "said").open("wb") as said:
        first = subprocess.Popen(
            command(server, *flags), cwd=code, env=environment(), stdout=said, stderr=said
        )
    while not (tmp_path / "run/manifest/run.json").exists():
        assert first.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.5)
    jobs = processes("rayseg.cli", "run", "--run", tmp_path / "run")
    assert jobs
    for job in jobs:  # else it might end before it is submitted again
        os.kill(job, signal.SIGSTOP)
    try:
        again = submit(server, code, *flags)
    finally:
        for job in jobs:
            os.kill(job, signal.SIGCONT)
    assert again.returncode == 1
    assert "is submitted already, as rayseg-run-" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    told = (first.wait(), (tmp_path / "said").read_text())
    assert told[0] == 0, told[1]
    assert "submitted rayseg-run-" in told[1]
    assert re.search(r"sending \d+ files of .*, \d\.\d MB; the largest: rayseg/", told[1])
    assert "seeds cam: 6 ok" in told[1]
    assert (tmp_path / "run/scores.json").is_file()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["token", ""])
def test_a_job_that_fails_ends_with_its_status(server, code, tmp_path, mode):
    """Where nothing is said of tokens, the user's is shown since the cluster asks for one."""
    flags = ("make-seeds", "--run", str(tmp_path / "nowhere"))
    done = submit(server, code, *flags, RAY_AUTH_MODE=mode)
    assert done.returncode == 1
    assert "manifest" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_ray_submits_a_job_as_it_stands(server, code, tmp_path):
    job = ("python", "jobs/prepare.py", "--run", tmp_path / "run", "--config", "tiny.toml")
    done = subprocess.run(
        [BIN / "ray", "job", "submit", "--address", server, "--working-dir", ".", "--", *job],
        cwd=code, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "manifest: 6 train, 2 val" in done.stdout
    assert (tmp_path / "run/manifest/manifest.parquet").is_file()


@pytest.mark.ray
@pytest.mark.slow
def test_without_the_token_nobody_is_let_in(server, code, tmp_path):
    done = submit(server, code, "score", "--run", str(tmp_path), RAY_AUTH_MODE="disabled")
    assert done.returncode == 1
    assert "needs a token: set RAY_AUTH_MODE=token" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def asked(tmp_path, **changed):
    given = {
        "job": "run", "arguments": ("--run", "/shared/a b"), "run": "/shared/a b",
        "address": "http://127.0.0.1:1", "working_dir": str(tmp_path),
    }  # fmt: skip
    return Submission(**given | changed)


def test_what_travels_is_code_and_no_data(tmp_path):
    made = asked(tmp_path)
    assert made.entrypoint == "python -m rayseg.cli run --run '/shared/a b'"
    assert {".git", "/data", "/runs", "*.safetensors"} <= set(made.runtime_env["excludes"])
    assert asked(tmp_path, run="/shared/c").prefix != made.prefix
    assert asked(tmp_path, arguments=("--run=/shared/a b",)).prefix == made.prefix
    assert asked(tmp_path, run="/shared/a b/").prefix == made.prefix


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"address": "head:6379"}, "address must be that of the cluster's job server"),
        ({"run": "runs/voc"}, "run must be an absolute path .* got 'runs/voc'"),
        ({"arguments": ("--config", "a.toml")}, r"configuration file a\.toml must lie in"),
        ({"arguments": ("--config=/etc/hosts",)}, "configuration file /etc/hosts must lie in"),
        ({"arguments": ("--config", "../out.toml")}, r"configuration file \.\./out\.toml must"),
        ({"arguments": ("--config", "runs/best.toml")}, "among what travels, .* no .*result"),
        ({"arguments": ("--config", "code/.venv/a.toml")}, "among what travels"),
        ({"address": "http://eva:hunter2@h:1"}, r"address must hold no .*\*\*\*@h:1"),
        ({"run": "s3://AKIA:hunter2@b/r"}, r"run must hold no password or key, .*\*\*\*@b/r"),
        ({"arguments": ("--run", "s3://b/r?secret_key=x")}, "arguments must hold no password"),
    ],
)
def test_what_could_not_run_there_is_refused_here(tmp_path, changed, message):
    there = tmp_path / "work"
    for file in ("../out.toml", "runs/best.toml", "code/.venv/a.toml", "code/runs/a.toml"):
        (there / file).parent.mkdir(parents=True, exist_ok=True)
        (there / file).write_text("")
    asked(there, arguments=("--config", "code/runs/a.toml"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        asked(there, **changed)


def test_flags_of_submit_are_told_from_the_jobs():
    mine, rest = split_flags(["--run", "x", "--address=http://h:1", "--no-follow", "--split=val"])
    assert mine == {"address": "http://h:1", "working-dir": ".", "follow": ""}
    assert rest == ["--run", "x", "--split=val"]
    with pytest.raises(ValueError, match="--address must be followed by a value"):
        split_flags(["--address"])
    with pytest.raises(FileNotFoundError, match="working directory /no/such does not exist"):
        split_flags(["--working-dir", "/no/such"])


def test_nobody_listens(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rayseg.cli", "submit", "score", "--run", str(tmp_path),
         "--address", "http://127.0.0.1:1"],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("rayseg: no job server answers at http://127.0.0.1:1")
    assert len(done.stderr.splitlines()) == 1
