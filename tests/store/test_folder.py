"""Files of a run: whole or not there."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rayseg.store import Folder, local_copy, read_file, stored_ids, write_shard
from tests.store.tables import rows


def test_a_file_comes_back_as_it_was_written(folder):
    folder.write("a.bin", b"\0\1")
    assert folder.read("a.bin") == b"\0\1"
    assert folder.names() == ["a.bin"]


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    folder.write("a.bin", b"old")
    with pytest.raises(TypeError):
        folder.write("a.bin", [b"no bytes"])
    assert folder.read("a.bin") == b"old"


class Cut:
    """A file system whose line is cut."""

    type_name = "s3"

    def __getattr__(self, name):
        def fail(*given, **more):
            raise OSError("When getting information: Connection reset by peer")

        return fail


@pytest.mark.parametrize(
    "act",
    [
        lambda run: run.exists("a.bin"), lambda run: run.size("a.bin"),
        lambda run: run.read("a.bin"), lambda run: run.open("a.bin"),
        lambda run: run.write("a.bin", b""), lambda run: run.delete("a.bin"),
        lambda run: run.set_aside("a.bin"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_reached_is_named(act):
    run = Folder("s3://bucket/run")
    run.__dict__["_where"] = Cut(), "bucket/run"
    with pytest.raises(OSError, match=r"^cannot \w+ s3://bucket/run/a.bin: .*reset by peer$"):
        act(run)


@pytest.mark.parametrize("act", [Folder.names, Folder.folders, Folder.exists, Folder.remove])
def test_a_folder_that_cannot_be_reached_is_named(act):
    run = Folder("s3://bucket/run")
    run.__dict__["_where"] = Cut(), "bucket/run"
    with pytest.raises(OSError, match=r"^cannot \w+ s3://bucket/run: .*reset by peer$"):
        act(run)


def test_half_a_file_is_not_seen(folder):
    write_shard(folder, rows("a"))
    (half,) = [folder.path(f".{name}.tmp") for name in folder.names()]
    with open(half, "wb") as file:
        file.write(b"PAR1")
    assert stored_ids(folder) == {"a"}


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free some and run the same command"),
        (errno.EDQUOT, "free some and run the same command"),
        (errno.EROFS, "make it writable or choose another place"),
        (errno.EACCES, "make it writable or choose another place"),
    ],
)
def test_a_write_that_the_disk_refuses_is_one_line_and_leaves_no_draft(
    folder, monkeypatch, number, way_out
):
    folder.write("a.bin", b"old")

    def refuse(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=rf"cannot write .*out/a.bin: .*; {way_out}"):
        folder.write("a.bin", b"new")
    assert folder.sizes() == {"a.bin": 3}
    assert folder.read("a.bin") == b"old"


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_write_ends(
    folder, monkeypatch
):
    seen = []
    own = os.fsync

    def noted(handle):
        place = os.readlink(f"/proc/self/fd/{handle}")
        there = Path(folder.path("a.bin")).exists()
        seen.append((Path(place).name.startswith(".a.bin."), os.path.isdir(place), there))
        own(handle)

    folder.write("b.bin", b"")
    monkeypatch.setattr(os, "fsync", noted)
    folder.write("a.bin", b"1")
    assert seen == [(True, False, False), (False, True, True)]
    folder.write("a.bin", b"2", durable=False)
    assert len(seen) == 2


DIE = """
import os, sys
from rayseg.store import Folder
os.fsync = lambda handle: os._exit(9)
Folder(sys.argv[1]).write("part-1.parquet", b"half")
"""


def test_drafts_of_dead_writers_and_old_ones_are_swept_those_of_living_ones_stay(folder):
    folder.write("a.bin", b"")
    assert subprocess.run([sys.executable, "-c", DIE, str(folder)], check=False).returncode == 9
    (left,) = (name for name in folder.names() if name != "a.bin")
    living = left.replace(left.split("-")[-2], str(os.getpid()))
    far = left.replace(left.split("-")[-3], "part.parquet.12345678")
    old = ".run.json.0a1b2c3d.tmp"  # as earlier versions called them
    for name in (living, far, old):
        Path(folder.path(name)).write_bytes(b"half")
    os.utime(folder.path(old), (1e9, 1e9))
    assert sorted(folder.drafts()) == sorted([left, old])
    folder.sweep()
    assert sorted(folder.names()) == sorted(["a.bin", living, far])


def test_two_writers_of_one_file_do_not_disturb_each_other(folder):
    errors = []

    def write():
        try:
            for _ in range(200):
                folder.write("a.bin", b"x" * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert folder.names() == ["a.bin"]


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot write .*file/sub/a.bin") as caught:
        Folder(str(tmp_path / "file" / "sub")).write("a.bin", b"")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"out/a.bin does not exist"):
        folder.read("a.bin")


def test_a_missing_folder_is_empty(folder):
    assert (folder.names(), folder.folders(), folder.exists()) == ([], [], False)


def test_a_file_uri_works_like_a_path(tmp_path):
    uri = Folder(f"file://{tmp_path}/run")
    write_shard(uri / "seeds", rows("a", "b"))
    assert stored_ids(Folder(str(tmp_path / "run" / "seeds"))) == {"a", "b"}
    assert uri.folders() == ["seeds"]
    assert uri == Folder(str(tmp_path / "run"))
    name = (uri / "seeds").names()[0]
    assert read_file(f"{uri}/seeds/{name}") == read_file((uri / "seeds").path(name))


def test_what_cannot_be_read_is_none(tmp_path):
    assert read_file(str(tmp_path / "missing.jpg")) is None
    assert read_file(str(tmp_path)) is None
    assert read_file("") is None
    assert read_file(f"{tmp_path}/a\0b") is None
    assert read_file("nowhere://bucket/a.jpg") is None


def test_a_pipe_or_a_device_is_no_file_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink("/dev/zero", tmp_path / "endless.jpg")
    assert read_file(str(tmp_path / "pipe.jpg")) is None
    assert read_file(str(tmp_path / "endless.jpg")) is None


def test_a_local_file_is_its_own_copy():
    assert local_copy("/run/w.bin") == "/run/w.bin"


def test_a_remote_file_is_fetched_once(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    copies = {local_copy(f"file://{tmp_path}/w.bin") for _ in range(2)}
    assert [Path(copy).read_bytes() for copy in copies] == [b"weights"]
    with pytest.raises(FileNotFoundError, match=r"nothing\.bin does not exist"):
        local_copy(f"file://{tmp_path}/nothing.bin")


def test_remote_files_of_one_name_are_told_apart_by_what_they_hold(tmp_path):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "w.bin").write_bytes(part.encode())
    copies = [local_copy(f"file://{tmp_path}/{part}/w.bin") for part in ("a", "b")]
    assert [Path(copy).read_bytes() for copy in copies] == [b"a", b"b"]
    (tmp_path / "a" / "w.bin").write_bytes(b"trained again")
    assert Path(local_copy(f"file://{tmp_path}/a/w.bin")).read_bytes() == b"trained again"


def own_temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "w.bin").write_bytes(b"weights")
    return f"file://{tmp_path}/w.bin"


def test_a_copy_lies_in_a_folder_of_this_user_alone(tmp_path, monkeypatch):
    copy = Path(local_copy(own_temporary(tmp_path, monkeypatch)))
    assert copy.parent.parent == tmp_path / "tmp"
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["open", "link", "file"])
def test_a_folder_of_others_is_no_place_for_a_copy(tmp_path, monkeypatch, trap):
    address = own_temporary(tmp_path, monkeypatch)
    theirs = tmp_path / "tmp" / f"rayseg-{os.getuid()}"
    if trap == "open":
        theirs.mkdir()
        theirs.chmod(0o777)
    elif trap == "link":
        (tmp_path / "theirs").mkdir(0o700)
        theirs.symlink_to(tmp_path / "theirs")
    else:
        theirs.write_bytes(b"")
    copy = Path(local_copy(address))
    assert copy.parent != theirs
    assert copy.read_bytes() == b"weights"
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700


def test_a_file_with_the_name_of_a_copy_and_other_bytes_is_not_taken(tmp_path, monkeypatch):
    address = own_temporary(tmp_path, monkeypatch)
    name = Path(local_copy(address)).name
    for place in (f"rayseg-{os.getuid()}/{name}", name, f"rayseg-{name}"):
        (tmp_path / "tmp" / place).write_bytes(b"of somebody else")
    assert Path(local_copy(address)).read_bytes() == b"weights"


def test_a_relative_path_is_made_absolute_for_workers_that_start_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Folder("runs/a") == Folder(str(tmp_path / "runs" / "a"))


def test_a_removed_folder_is_gone_and_may_be_removed_again(folder):
    folder.write("a.bin", b"")
    folder.remove()
    folder.remove()
    assert not folder.exists()
