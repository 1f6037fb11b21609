"""Rows through pools on Ray Data; each test names a trap that Ray 2.60 sets (RAY.md 0 and 1)."""

import ast
import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import rayseg.on_ray
from rayseg.on_ray.data import (
    PROBE,
    Crew,
    _Writer,
    collect,
    decoded,
    manifest_rows,
    pending_rows,
    write_rows,
)
from rayseg.store import (
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    find_pending,
    read_rows,
    read_shard,
    rows_to_table,
    stored_ids,
    write_shard,
)
from tests.on_ray.fakes import (
    Broken,
    Counting,
    Raising,
    Undecoded,
    computed,
    manifest_table,
    no_extension_types,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

ROOT = Path(__file__).parents[2]


def send(folder, table, make, actors=2, rows=4, decode=None):
    """Sends a manifest through a stage in actors that take no CPU, as those on a GPU do."""
    out = Folder(str(folder))
    pool = Crew(make, rows, actors, cpus=0 if actors else 1, gpus=0.5 if actors else 0)
    source = decoded(manifest_rows(table, out / "pending", rows), decode or Undecoded(), out)
    write_rows(source, table.num_rows, pool, out, SEEDS_SCHEMA, "test")
    return out


@pytest.fixture(scope="module")
def plain(cluster, tmp_path_factory):
    """40 rows through two actors: the folder that they filled and the files of marks."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "marks").mkdir()
    make = partial(Counting, str(folder / "marks"), meet=2)
    return send(folder / "seeds", manifest_table(40), make), folder / "marks"


@pytest.fixture(scope="module")
def deadly(cluster, tmp_path_factory):
    """20 rows of which one always kills its process, and one is in it when somebody kills it."""
    folder = tmp_path_factory.mktemp("deadly")
    (folder / "marks").mkdir()
    make = partial(Counting, str(folder / "marks"), deadly=("i0005",), killed=("i0013",))
    out = send(folder / "seeds", manifest_table(20), make, actors=1)
    return {row["id"]: row for row in read_rows(out)}, computed(folder / "marks"), out


# One row in, one row out


def test_each_row_is_stored_once(plain):
    stored = [row["id"] for row in read_rows(plain[0])]
    assert sorted(stored) == manifest_table(40).column("id").to_pylist()


def test_each_row_is_computed_once(plain):
    assert set(computed(plain[1]).values()) == {1}


def test_a_small_manifest_is_spread_over_the_actors(plain):
    rows_of = Counter(row["note"] for row in read_rows(plain[0]))
    assert len(rows_of) == 2
    assert min(rows_of.values()) >= 4


def test_each_block_is_a_shard_of_its_own(plain):
    sizes = [read_shard(plain[0], name).num_rows for name in plain[0].names(".parquet")]
    assert sizes == [4] * 10


def test_rows_with_no_one_and_two_maps_have_one_schema_of_plain_types(plain):
    schemas = {
        str(pq.read_schema(io.BytesIO(plain[0].read(n)))) for n in plain[0].names(".parquet")
    }
    assert len(schemas) == 1
    table = read_shard(plain[0], plain[0].names(".parquet")[0])
    assert no_extension_types(table.schema)
    assert table.schema.equals(SEEDS_SCHEMA)
    assert {len(row["maps"]) for row in read_rows(plain[0])} == {0, 1, 2}


def test_nothing_stored_is_pickled_by_ray(plain):
    for name in plain[0].names(".parquet"):
        assert b"pickle" not in plain[0].read(name)
        assert b"ray." not in plain[0].read(name)


def test_shards_are_read_without_ray(plain):
    code = (
        "import sys, pyarrow.dataset as d\n"
        f"t = d.dataset({plain[0].location!r}, format='parquet',"
        " exclude_invalid_files=False,"
        " ignore_prefixes=['.', '_', 'pending', 'inflight']).to_table()\n"
        "assert t.num_rows == 40 and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Sources and resuming


def test_ray_checkpoints_and_sources_without_a_file_are_not_used():
    forbidden = {"CheckpointConfig", "checkpoint_config", "from_items", "from_arrow", "from_pandas"}
    for path in Path(rayseg.on_ray.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if path.name != "train.py":  # Ray Train's RunConfig has names of its own
            assert not used & forbidden, path


def test_the_source_of_a_plan_is_a_file(tmp_path):
    source = manifest_rows(manifest_table(4), Folder(str(tmp_path)), 2)
    leaf = source._logical_plan.dag
    while leaf.input_dependencies:
        leaf = leaf.input_dependencies[0]
    assert leaf.name.startswith(("Read", "ListFiles"))
    assert ray.data.DataContext.get_current().checkpoint_config is None


def test_images_of_one_size_lie_beside_each_other(tmp_path):
    rows = [{"id": str(n), "height": 8 + n % 3, "width": 9} for n in range(12)]
    schema = pa.schema([("id", pa.string()), ("height", pa.int32()), ("width", pa.int32())])
    source = manifest_rows(pa.Table.from_pylist(rows, schema=schema), Folder(str(tmp_path)), 4)
    blocks = [set(batch.column("height").to_pylist()) for batch in _blocks(source)]
    assert sorted(map(list, blocks)) == [[8], [9], [10]]


def _blocks(source):
    return [
        ray.get(ref) for bundle in source.iter_internal_ref_bundles() for ref in bundle.block_refs
    ]


def test_pending_rows_leave_out_what_is_stored(tmp_path):
    source, out = Folder(str(tmp_path / "a")), Folder(str(tmp_path / "b"))
    for start in range(0, 9, 3):
        ids = [{"id": f"i{n:04d}", "status": "ok"} for n in range(start, start + 3)]
        write_shard(source, rows_to_table(ids, SEEDS_SCHEMA))
    stored = [{"id": f"i{n:04d}", "status": "ok"} for n in (0, 1, 2, 4)]
    write_shard(out, rows_to_table(stored, MASKS_SCHEMA))
    pending = find_pending(source, stored_ids(out))
    left = [row["id"] for row in pending_rows(pending, 2).iter_rows()]
    assert sorted(left) == ["i0003", "i0005", "i0006", "i0007", "i0008"]
    assert pending.rows == 5
    assert len(pending.shards) == 2


# Deaths


def test_a_row_that_always_kills_its_process_ends_as_poison(deadly):
    rows, _, _ = deadly
    assert rows["i0005"]["status"] == "poison"
    assert rows["i0005"]["error"] == "killed its process 2 times and was given up"


def test_a_row_is_given_up_after_a_death_in_company_and_two_alone(deadly):
    assert deadly[1]["i0005"] == 3


def test_a_row_whose_process_is_killed_from_outside_again_and_again_ends_well(deadly):
    assert deadly[0]["i0013"]["status"] == "ok"
    assert deadly[1]["i0013"] == 4


def test_a_death_costs_no_neighbour(deadly):
    rows, _, _ = deadly
    assert len(rows) == 20
    assert {id_ for id_, row in rows.items() if row["status"] != "ok"} == {"i0005"}


def test_a_death_makes_no_row_twice(deadly):
    assert sum(1 for _ in read_rows(deadly[2])) == 20


def test_the_guard_leaves_nothing_behind(deadly):
    assert (deadly[2] / "inflight").names() == []


def test_a_row_that_kills_its_task_is_poison_too(cluster, tmp_path):
    (tmp_path / "marks").mkdir()
    make = partial(Counting, str(tmp_path / "marks"), deadly=("i0002",))
    out = send(tmp_path / "seeds", manifest_table(8), make, actors=0)
    statuses = {row["id"]: row["status"] for row in read_rows(out)}
    assert statuses == {f"i{n:04d}": "poison" if n == 2 else "ok" for n in range(8)}
    assert computed(tmp_path / "marks")["i0002"] == 3


def test_an_image_that_kills_the_decoder_is_poison_and_costs_no_neighbour(cluster, tmp_path):
    (tmp_path / "marks").mkdir()
    make = partial(Counting, str(tmp_path / "marks"))
    decode = Undecoded(deadly=("i0002",))
    out = send(tmp_path / "seeds", manifest_table(8), make, actors=0, decode=decode)
    statuses = {row["id"]: row["status"] for row in read_rows(out)}
    assert len(statuses) == 8
    assert {id_ for id_, status in statuses.items() if status != "ok"} == {"i0002"}
    assert statuses["i0002"] == "poison"


# Failures of a whole stage


@pytest.mark.parametrize(
    ("make", "actors", "reason"),
    [
        (Broken, 0, "another network"),
        (Broken, 1, "another network"),
        (Raising, 0, "no stage for [12] row"),
    ],
)
def test_a_stage_that_fails_as_a_whole_is_a_one_line_error(tmp_path, make, actors, reason):
    with pytest.raises(OSError, match=reason) as caught:
        send(tmp_path, manifest_table(2), make, actors)
    assert "\n" not in str(caught.value)


def test_a_process_that_does_not_see_the_folder_is_refused(tmp_path):
    out = Folder(str(tmp_path))
    with pytest.raises(ValueError, match=r"must lie in a folder that all machines .* does not see"):
        _Writer(partial(Counting, str(tmp_path)), out / "running", SEEDS_SCHEMA, out)


def test_rows_that_a_lost_process_had_stored_are_not_computed_again(tmp_path):
    out, marks = Folder(str(tmp_path / "seeds")), tmp_path / "marks"
    marks.mkdir()
    (out / "inflight").write(PROBE, b"")
    block = manifest_table(2).select(["id", "height", "width"])
    block = block.append_column("status", pa.array(["", ""]))
    receipts = [
        _Writer(partial(Counting, str(marks)), out / "running", SEEDS_SCHEMA, out)(block)
        for _ in range(2)
    ]
    assert receipts[0] == receipts[1]
    assert computed(marks) == {"i0000": 1, "i0001": 1}


def test_collecting_from_a_stage_that_fails_is_a_one_line_error(tmp_path):
    source = manifest_rows(manifest_table(2), Folder(str(tmp_path)), 2)
    with pytest.raises(OSError, match="no stage for 2 rows") as caught:
        list(collect(source, Crew(Raising, rows=2)))
    assert "\n" not in str(caught.value)


# Kill and resume, each job in a process of its own


def start(folder, rows, held_after):
    command = [sys.executable, "-m", "tests.on_ray.slow_job", *map(str, (folder, rows, held_after))]
    # a file, since a pipe stays open as long as a killed job's orphans live
    with open(folder / "errors", "ab") as errors:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A job of 48 rows killed when some are stored, then started again; ids stored by then."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "marks").mkdir()
    seeds = Folder(str(folder / "seeds"))
    first = start(folder, 48, 24)
    while len(seeds.names(".parquet")) < 3:
        assert first.poll() is None, (folder / "errors").read_text()[-2000:]
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    (folder / "seeds" / ".part-cut.parquet.tmp").write_bytes(b"PAR1 half a shard")
    survived = stored_ids(seeds)
    second = start(folder, 48, 0)
    second.wait()
    assert (folder / "finished").exists(), (folder / "errors").read_text()[-2000:]
    return seeds, survived, computed(folder / "marks")


@pytest.mark.slow
def test_a_job_killed_midway_has_stored_something(killed):
    assert 12 <= len(killed[1]) < 48


@pytest.mark.slow
def test_a_job_killed_and_resumed_misses_nothing_and_has_nothing_twice(killed):
    stored = [row["id"] for row in read_rows(killed[0])]
    assert sorted(stored) == manifest_table(48).column("id").to_pylist()


@pytest.mark.slow
def test_a_resumed_job_computes_nothing_that_was_stored(killed):
    _, survived, times = killed
    assert {times[id_] for id_ in survived} == {1}


@pytest.mark.slow
def test_a_kill_costs_at_most_one_block_an_actor(killed):
    assert sum(killed[2].values()) - 48 <= 2 * 4


@pytest.mark.slow
def test_half_a_shard_is_passed_over(killed):
    assert ".part-cut.parquet.tmp" not in killed[0].names(".parquet")
