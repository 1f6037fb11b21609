"""Damaged files: never taken for good ones, named with what mends them."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from rayseg.store import DamagedError, Folder, read_shard, rows_to_table, stored_ids, write_shard
from rayseg.store.schemas import MASKS_SCHEMA
from tests.store.tables import rows


def noise(*ids):
    rng = np.random.default_rng(0)
    labels = [{"id": id_, "status": "ok", "labels": rng.bytes(500)} for id_ in ids]
    return rows_to_table(labels, MASKS_SCHEMA)


def flipped(data, place=900):
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "a bit is flipped": flipped,
    "the end is zeroed": lambda data: data[:-500] + bytes(500),
    "another file": lambda data: b"id,status\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_named_with_what_mends_it(folder, damage):
    shard = write_shard(folder, noise("a", "b"))
    folder.write(shard, DAMAGES[damage](folder.read(shard)))
    with pytest.raises(
        DamagedError, match=rf"{shard} cannot be read: .*; `rayseg check "
    ) as caught:
        read_shard(folder, shard)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_the_index_costs_nothing_but_time(folder):
    write_shard(folder, rows("a", "b"))
    stored_ids(folder)
    folder.write("_index.pq", flipped(folder.read("_index.pq"), 40))
    assert stored_ids(folder) == {"a", "b"}


def test_what_a_store_cannot_give_is_no_damage(folder, monkeypatch):
    shard = write_shard(folder, rows("a"))

    def refuse(self, name):
        raise OSError("network down")

    monkeypatch.setattr(Folder, "open", refuse)
    with pytest.raises(OSError, match="network down"):
        read_shard(folder, shard)


def test_the_run_of_a_damaged_file_is_in_the_command(folder):
    seeds = folder / "my run" / "seeds" / "cam"
    (folder / "my run" / "manifest").write("run.json", b"{}")
    assert f"--run '{folder}/my run' --repair" in str(DamagedError(seeds, "part-1", "is cut"))


def test_damage_travels_between_processes(folder):
    error = DamagedError(folder, "part-1", "is cut")
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.name) == (str(error), "part-1")
    assert isinstance(back, ValueError)
    assert not isinstance(back, pa.ArrowException)
