"""One writer a folder: refused, released, taken over."""

import json
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time

import boto3
import pytest
from moto.server import ThreadedMotoServer

from rayseg.store import Folder, FolderLockedError, claim, lease, lock, write_shard
from rayseg.store.processes import process_space
from tests.store.tables import rows

HOLD = """
import sys, time
from rayseg.store import Folder, FolderLockedError, lease
folder, job, seconds = Folder(sys.argv[1]), sys.argv[2], float(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
try:
    with lease(folder, job, beat_seconds=0.1, stale_seconds=seconds):
        print("held", flush=True)
        sys.stdin.readline()
except FolderLockedError as error:
    print(error, flush=True)
"""


class Process:
    """Another process that waits for a line, takes the lease and holds it until the next line."""

    def __init__(self, folder, job="make-seeds", seconds=60.0):
        command = [sys.executable, "-c", HOLD, str(folder), job, str(seconds)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.answer() == "ready"

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self):
        return self.process.stdout.readline().rstrip("\n")

    def end(self, how=None):
        if how:
            self.process.send_signal(how)
        self.process.communicate()


@pytest.fixture
def start():
    """Starts other processes, and ends them."""
    started = []

    def begin(*args, **named):
        started.append(Process(*args, **named))
        return started[-1]

    yield begin
    for one in started:
        one.end(signal.SIGKILL)


@pytest.fixture
def remote(monkeypatch, tmp_path):
    """A folder of a store that answers as S3 does; its waits take no time."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="bucket")
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    yield Folder(f"s3://bucket/{tmp_path.name}/seeds/cam")
    server.stop()


@pytest.fixture(params=["local", "remote"])
def either(request):
    """A local folder or a remote one."""
    return request.getfixturevalue("folder" if request.param == "local" else "remote")


def write_foreign(folder, silent=0.0, **changed):
    """Another holder's file, whose last heartbeat was so many seconds ago."""
    now = time.time()
    facts = {
        "token": "another", "job": "refine-seeds", "user": "eva", "host": "far", "space": "",
        "pid": 12, "since": now - 1000, "beat": now - silent, "stale_seconds": 60.0,
    }  # fmt: skip
    folder.write(".lock.json", json.dumps(facts | changed).encode())


@pytest.fixture
def told(caplog):
    """What the lease says in the log so far."""
    caplog.set_level(logging.WARNING, "rayseg")
    return lambda: [one.message for one in caplog.records if one.name == "rayseg.store.lock"]


def token(folder):
    return json.loads(folder.read(".lock.json"))["token"]


def test_the_lease_is_there_while_it_is_held_and_gone_afterwards(either):
    with lease(either, "make-seeds"):
        told = json.loads(either.read(".lock.json"))
    assert (told["job"], told["pid"]) == ("make-seeds", os.getpid())
    assert either.names() == []


def test_an_exception_releases_the_lease(either):
    with pytest.raises(KeyError), lease(either, "make-seeds"):
        raise KeyError
    assert either.names() == []


def test_one_process_may_enter_again_in_any_thread(folder):
    with lease(folder, "run"):
        first = token(folder)
        with lease(Folder(f"file://{folder}"), "make-seeds"):
            assert token(folder) == first
        inner = lease(folder, "score")
        threading.Thread(target=inner.__enter__).start()
        while lock._HELD[os.getpid(), folder.location].entered < 2:
            time.sleep(0.01)
    assert token(folder) == first
    inner.__exit__(None, None, None)
    assert folder.names() == []


def test_a_living_holder_is_named_in_one_line_to_whom_it_refuses(either):
    write_foreign(either, silent=5)
    with pytest.raises(FolderLockedError) as caught, lease(either, "make-seeds"):
        pass
    said = str(caught.value)
    assert said.startswith(
        f"{either} is being written by refine-seeds of eva (process 12 on far, since 20"
    )
    assert re.search(r"ends 60 s after the last heartbeat, which was [56] s ago\)$", said)
    assert "\n" not in said
    assert token(either) == "another"


def test_a_silent_holder_is_replaced_and_that_is_said(either, told):
    write_foreign(either, silent=100)
    with lease(either, "make-seeds"):
        assert token(either) != "another"
    assert either.names() == []
    (said,) = told()
    assert said.startswith(f"{either} is taken over from refine-seeds of eva (process 12 on far")
    assert re.search(r"which has given no sign of life for 10\d s$", said)


def test_a_pid_says_something_of_its_own_machine_only(folder):
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, check=True)
    here = {"host": platform.node(), "space": process_space(), "pid": int(ended.stdout)}
    for other in ({"host": "far"}, {"space": "another boot or container"}):
        write_foreign(folder, **(here | other))
        with pytest.raises(FolderLockedError), lease(folder, "make-seeds"):
            pass
    write_foreign(folder, **here)
    with lease(folder, "make-seeds"):
        assert token(folder) != "another"


@pytest.mark.parametrize("data", [b"", b"{}", b'{"token": "a", "later": 1}', bytes(200)])
def test_a_lease_that_cannot_be_understood_is_refused_until_it_is_old(folder, told, data):
    folder.write(".lock.json", data)
    refused = pytest.raises(
        FolderLockedError, match=r"by somebody unknown \(.*\); wait for its end"
    )
    with refused, lease(folder, "score"):
        pass
    os.utime(folder.path(".lock.json"), (time.time() - 100,) * 2)
    with lease(folder, "score"):
        assert json.loads(folder.read(".lock.json"))["job"] == "score"
    assert "which has given no sign of life for 100 s" in told()[0]


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file") as caught, lease(Folder(f"{tmp_path}/file"), "score"):
        pass
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_locked_is_claimed_as_an_empty_one(folder):
    with lease(folder, "make-seeds"):
        claim(folder, {"a": 1})
        claim(folder, {"a": 2})
        write_shard(folder, rows("a"))
        claim(folder, {"a": 2})
    assert folder.names()[::2] == [".run-copy.json", "run.json"]


def test_of_processes_that_start_at_once_one_gets_it(folder, start):
    many = [start(folder, f"job-{n}") for n in range(4)]
    for one in many:
        one.go()
    said = [one.answer() for one in many]
    assert said.count("held") == 1
    winner = f"job-{said.index('held')}"
    assert sum(f"is being written by {winner} of " in one for one in said) == 3
    with pytest.raises(FolderLockedError, match=winner), lease(folder, "late"):
        pass


def test_of_processes_that_find_a_dead_holder_at_once_one_gets_it(folder, start):
    write_foreign(folder, silent=100)
    many = [start(folder) for n in range(4)]
    for one in many:
        one.go()
    assert [one.answer() for one in many].count("held") == 1


def test_a_holder_that_was_killed_is_replaced_at_once(folder, start, told):
    holder = start(folder)
    holder.go()
    assert holder.answer() == "held"
    holder.end(signal.SIGKILL)
    with lease(folder, "make-seeds"):
        assert told()[0].endswith("which runs no more")
    assert folder.names() == []


def test_a_holder_that_ended_leaves_the_folder_free(folder, start, told):
    holder = start(folder)
    holder.go()
    assert holder.answer() == "held"
    holder.go()
    holder.end()
    with lease(folder, "make-seeds"):
        assert told() == []


def test_heartbeats_keep_a_job_that_outlasts_its_lease(either):
    before = time.time()
    with lease(either, "make-seeds", beat_seconds=0.05, stale_seconds=0.5):
        while (beat := json.loads(either.read(".lock.json"))["beat"]) < before + 1:
            time.sleep(0.05)
    assert beat > before + 2 * 0.5
    assert either.names() == []


def test_who_was_taken_over_says_so_and_leaves_the_other_alone(folder, told):
    with lease(folder, "make-seeds", beat_seconds=0.05):
        write_foreign(folder)
        while not told():
            time.sleep(0.01)
    assert f"{folder} was taken over: refine-seeds of eva" in told()[0]
    assert token(folder) == "another"


def test_a_heartbeat_that_fails_is_told_and_tried_again(folder, monkeypatch, told):
    own, failed = Folder.write, []

    def fail_once(self, name, data):
        if not failed:
            failed.append(name)
            raise OSError("no space left")
        own(self, name, data)

    with lease(folder, "make-seeds", beat_seconds=0.05):
        first = json.loads(folder.read(".lock.json"))["beat"]
        monkeypatch.setattr(Folder, "write", fail_once)
        while json.loads(folder.read(".lock.json"))["beat"] == first:
            time.sleep(0.01)
    assert told() == [f"no heartbeat of {folder}: no space left"]


@pytest.mark.parametrize("stale", [False, True])
def test_of_writers_that_meet_on_an_object_store_the_last_one_gets_it(remote, monkeypatch, stale):
    if stale:
        write_foreign(remote, silent=100)
    number = 3
    found, wrote, own = threading.Barrier(number), threading.Barrier(number), lock._write
    got = []

    def write(folder, holder):
        found.wait()  # all have read before any writes
        own(folder, holder)

    monkeypatch.setattr(lock, "_write", write)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: wrote.wait())

    def acquire(job):
        try:
            lock._acquire(remote, lock._Holder.of(job, 60.0))
            got.append(job)
        except FolderLockedError as error:
            got.append(str(error))

    threads = [threading.Thread(target=acquire, args=(f"job-{n}",)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [one for one in got if one.startswith("job-")]
    assert json.loads(remote.read(".lock.json"))["job"] == winner
    assert sum(f"is being written by {winner} of " in one for one in got) == number - 1


def test_a_process_is_refused_on_an_object_store_and_takes_over_from_a_killed_one(remote, start):
    first, second = start(remote, "first"), start(remote, "second")
    first.go()
    assert first.answer() == "held"
    second.go()
    assert "is being written by first of " in second.answer()
    first.end(signal.SIGKILL)
    with lease(remote, "third"):
        assert json.loads(remote.read(".lock.json"))["job"] == "third"
