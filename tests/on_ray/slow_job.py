"""A job in a process of its own, to be killed: ``slow_job.py FOLDER ROWS HELD_AFTER``.

It asks for exactly what two GPU actors need: two GPUs, and one CPU for the tasks that feed them.
"""

import os
import sys
from functools import partial
from pathlib import Path

import ray

from rayseg.on_ray.data import Crew, decoded, manifest_rows, write_rows
from rayseg.store import SEEDS_SCHEMA, Folder, stored_ids
from tests.on_ray.fakes import Counting, Undecoded, manifest_table


def main(folder, rows, held_after):
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(
        address="local", num_cpus=1, num_gpus=2, object_store_memory=100e6, include_dashboard=False,
        log_to_driver=False,
    )  # fmt: skip
    out = Folder(f"{folder}/seeds")
    table = manifest_table(rows)
    done = stored_ids(out)
    waiting = table.filter([id_ not in done for id_ in table.column("id").to_pylist()])
    make = partial(Counting, f"{folder}/marks", held_after)
    pool = Crew(make, rows=4, actors=2, cpus=0, gpus=1)
    source = decoded(manifest_rows(waiting, out / "pending", 4), Undecoded(), out)
    write_rows(source, waiting.num_rows, pool, out, SEEDS_SCHEMA, "slow job")
    Path(folder, "finished").touch()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
