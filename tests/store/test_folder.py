"""Files of a run: whole or not there."""

import os
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


def test_half_a_file_is_not_seen(folder):
    write_shard(folder, rows("a"))
    (half,) = [folder.path(f".{name}.tmp") for name in folder.names()]
    with open(half, "wb") as file:
        file.write(b"PAR1")
    assert stored_ids(folder) == {"a"}


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


def test_a_relative_path_is_made_absolute_for_workers_that_start_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Folder("runs/a") == Folder(str(tmp_path / "runs" / "a"))


def test_a_removed_folder_is_gone_and_may_be_removed_again(folder):
    folder.write("a.bin", b"")
    folder.remove()
    folder.remove()
    assert not folder.exists()
