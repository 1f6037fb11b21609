"""A local session seen from outside: another network, another folder, other users."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.on_ray.networks import HEAD, PORT, RAY, inside, networks, node
from tests.on_ray.test_networks import TINY

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow]
HELD = """
import json, os, sys, time
from pathlib import Path
import ray
from rayseg.on_ray.session import session

class Actor:
    def look(self):
        import statistics, tqdm
        return os.environ["RAY_AUTH_MODE"], sys.path, [statistics.__file__, tqdm.__file__]

with session():
    actor = ray.remote(Actor).remote()
    mode, path, found = ray.get(actor.look.remote())
    context = ray.get_runtime_context()
    facts = {"gcs": context.gcs_address, "mode": mode, "path": path, "found": found,
             "folder": ray._private.worker._global_node.get_session_dir_path()}
    Path(sys.argv[1], "draft").write_text(json.dumps(facts))
    Path(sys.argv[1], "draft").rename(Path(sys.argv[1], "facts.json"))
    while not Path(sys.argv[1], "go").exists():
        time.sleep(0.1)
"""
ASK = """
import sys
from ray._raylet import GcsClient
for name, act in (("read", lambda c: c.internal_kv_get(b"session_name", b"session", timeout=10)),
                  ("write", lambda c: c.internal_kv_put(b"x", b"y", True, b"fun", timeout=10))):
    try:
        print(name, "done" if act(GcsClient(address=sys.argv[1])) else "nothing", flush=True)
    except Exception as error:
        print(name, "refused", type(error).__name__, flush=True)
"""
SOON = {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}


def environment(**changed):
    """As a user's who has set nothing of Ray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | changed


def listening(network):
    """Address, port and command of each socket that listens in a network, and whose process."""
    table = {}
    for name in ("tcp", "tcp6"):
        said = subprocess.run(
            inside(network, "cat", f"/proc/net/{name}"), check=True, capture_output=True, text=True
        ).stdout
        rows = [line.split() for line in said.splitlines()[1:]]
        table |= {row[9]: row[1] for row in rows if row[3] == "0A"}
    return {place: _owner(network, inode) for inode, place in table.items()}


def _owner(network, inode):
    for number in pids(network):
        try:
            for one in Path(f"/proc/{number}/fd").iterdir():
                if os.readlink(one) == f"socket:[{inode}]":
                    return Path(f"/proc/{number}/cmdline").read_bytes().decode().split("\0")[0]
        except OSError:  # it ended
            continue
    return "?"


def on_loopback(place):
    """Whether a socket's address, as the kernel writes it, is 127.0.0.1 or ::1."""
    return place.split(":")[0] in {
        "0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000",
    }  # fmt: skip


def lay_traps(folder):
    """Modules that leave a word in a file when they are imported."""
    for name in ("statistics", "tqdm", "torch", "rayseg", "random"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'a').write('{name} ')")


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A session in a network of its own, held until the tests end: its facts, both networks."""
    folder = tmp_path_factory.mktemp("held")
    lay_traps(folder)
    script = folder.parent / f"{folder.name}-held.py"  # beside, since Python trusts its folder
    script.write_text(HELD)
    with networks() as (here, there), (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            inside(here, sys.executable, "-P", script, folder),
            cwd=folder, env=environment(), stdout=said, stderr=said,
        )  # fmt: skip
        try:
            while not (folder / "facts.json").exists():
                assert process.poll() is None, (folder / "said").read_text()[-3000:]
                time.sleep(0.2)
            yield folder, json.loads((folder / "facts.json").read_text()), here, there
        finally:
            process.kill()
            process.wait()
            for number in pids(here):
                os.kill(number, signal.SIGKILL)


def pids(network):
    said = subprocess.run(
        ["ip", "netns", "pids", network], check=True, capture_output=True, text=True
    ).stdout
    return [int(number) for number in said.split()]


def test_nothing_of_a_session_listens_to_other_machines(held):
    _, _, here, _ = held
    found = listening(here)
    assert len(found) > 5  # else nothing was looked at
    assert {p: who for p, who in found.items() if not on_loopback(p)} == {}


def ask(network, address):
    """What reading and writing Ray's key-value store give there, without the session's token."""
    return subprocess.run(
        inside(network, sys.executable, "-c", ASK, address),
        env=environment(RAY_AUTH_MODE="disabled", **SOON), capture_output=True, text=True,
        check=False,
    ).stdout.splitlines()  # fmt: skip


def test_from_another_machine_ray_s_store_does_not_answer(held):
    _, facts, here, there = held
    port = facts["gcs"].rpartition(":")[2]
    assert "done" not in str(ask(there, f"{HEAD}:{port}"))
    for place in listening(here):
        number = int(place.rpartition(":")[2], 16)
        tried = f"import socket; socket.create_connection(({HEAD!r}, {number}), timeout=10)"
        done = subprocess.run(
            inside(there, sys.executable, "-c", tried), capture_output=True, text=True, check=False
        )
        assert "ConnectionRefusedError" in done.stderr, (place, done.stderr)


def test_on_the_same_machine_ray_s_store_is_read_and_written_with_the_token_only(held):
    _, facts, here, _ = held
    said = ask(here, facts["gcs"])
    assert said == ["read refused AuthenticationError", "write refused AuthenticationError"]


def test_the_session_s_files_are_its_user_s_and_hold_no_token(held):
    _, facts, here, _ = held
    folder = Path(facts["folder"])
    assert stat.S_IMODE(folder.parent.parent.stat().st_mode) == 0o700
    (token,) = {
        entry.removeprefix("RAY_AUTH_TOKEN=")
        for number in pids(here)
        for entry in Path(f"/proc/{number}/environ").read_bytes().decode().split("\0")
        if entry.startswith("RAY_AUTH_TOKEN=")
    }
    assert len(token) == 64
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if token.encode() in path.read_bytes()] == []


def test_no_module_is_taken_from_the_current_folder(held):
    folder, facts, _, _ = held
    assert str(folder) not in facts["path"]
    assert not (folder / "ran").exists()
    assert [path for path in facts["found"] if path.startswith(str(folder))] == []


def test_a_session_leaves_no_folder_behind(held):
    folder, facts, here, _ = held
    (folder / "go").touch()
    while pids(here):
        time.sleep(0.1)
    assert not Path(facts["folder"]).parent.parent.exists()


def test_a_training_by_two_workers_listens_to_nobody_else(tmp_path):
    lay_traps(tmp_path)
    rayseg, scenes, training = Path(sys.executable).parent / "rayseg", TINY[:10], TINY[14:]
    prepare = [rayseg, "prepare", "--run", "run", *scenes]
    subprocess.run(prepare, cwd=tmp_path, env=environment(), check=True)
    command = [rayseg, "train-classifier", "--run", "run", "--compute.workers", "2", *training]
    seen = {}
    with networks() as (here, _), (tmp_path / "said").open("wb") as said:
        job = subprocess.Popen(
            inside(here, *command),
            cwd=tmp_path, env=environment(), stdout=said, stderr=said,
        )  # fmt: skip
        while job.poll() is None:
            seen |= listening(here)
            time.sleep(0.2)  # of a training's ports, too, one is seen
        assert job.returncode == 0, (tmp_path / "said").read_text()[-3000:]
        assert len(seen) > 10
        assert {place: who for place, who in seen.items() if not on_loopback(place)} == {}
    assert not (tmp_path / "ran").exists()


JOIN = f"""
import ray
from rayseg.on_ray.session import session
try:
    with session("{HEAD}:{PORT}"):
        print("joined", ray.get(ray.remote(lambda: 1).remote()))
except ConnectionError as error:
    print(error)
"""


@pytest.mark.parametrize("token", ["ab" * 32, ""], ids=["token", "none"])
def test_nothing_need_be_said_of_tokens_to_join_a_cluster(tmp_path, token):
    """One that asks is shown the token, and who has none is told so; one that asks not is named."""
    scratch = Path(tempfile.mkdtemp(prefix="r"))  # sockets lie in it
    own = {"RAY_AUTH_MODE": "token" if token else "disabled", "RAY_AUTH_TOKEN": "ab" * 32}
    head = f"{RAY} --head --port={PORT} --node-ip-address={HEAD} --include-dashboard=false"

    def join(**changed):
        return subprocess.run(
            inside(here, sys.executable, "-c", JOIN),
            env=environment(HOME=str(tmp_path), **changed), capture_output=True, text=True,
            check=True, cwd=tmp_path,
        ).stdout.splitlines()  # fmt: skip

    with networks() as (here, _), node(here, f"{head} --temp-dir={scratch}", scratch / "s", **own):
        shown, nothing = join(RAY_AUTH_TOKEN="ab" * 32), join()
    shutil.rmtree(scratch, ignore_errors=True)
    if token:
        assert shown == ["joined 1"]
        assert f"the cluster at {HEAD}:{PORT} needs a token" in nothing[0]
    else:
        assert shown == nothing
        assert "asks for no token" in shown[0]
        assert shown[1] == "joined 1"
