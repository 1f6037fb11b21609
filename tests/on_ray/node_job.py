"""Several nodes in one process, of which one dies before one joins: ``node_job.py FOLDER``.

Logical GPUs, one a node, so that each node has one actor. It writes what happened to
FOLDER/facts.json.
"""

import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from rayseg.on_ray.data import Crew, decoded, manifest_rows, write_rows
from rayseg.store import SEEDS_SCHEMA, Folder, stored_ids
from tests.on_ray.fakes import Counting, Undecoded, manifest_table

ROWS = 60
HELD_AFTER = 20
"""Rows after which the job waits for the node that joins."""


def wait_for(event, job):
    """Until it is true; a job that is not held until then is one that failed."""
    while not event():
        if not job.is_alive():
            raise SystemExit("the job ended too soon")
        time.sleep(0.1)


def processes(folder):
    """Numbers of the processes that got something to do."""
    return {path.name.removeprefix("process-") for path in Path(folder).glob("process-*")}


def main(folder):
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "num_gpus": 0, "object_store_memory": 100_000_000},
    )
    worker = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100_000_000}
    nodes = [cluster.add_node(**worker) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    out = Folder(f"{folder}/seeds")
    pool = Crew(
        partial(Counting, f"{folder}/marks", HELD_AFTER), rows=2, actors=2, cpus=0, gpus=1,
    )  # fmt: skip
    source = decoded(manifest_rows(manifest_table(ROWS), out / "pending", 2), Undecoded(), out)
    arguments = (source, ROWS, pool, out, SEEDS_SCHEMA, "node job")
    job = threading.Thread(target=write_rows, args=arguments)
    job.start()  # not the other way round: only the main thread may start a node
    wait_for(lambda: len(stored_ids(out)) >= 12, job)
    cluster.remove_node(nodes[1], allow_graceful=False)
    facts = {"stored_before": sorted(stored_ids(out))}
    before = processes(folder)
    cluster.add_node(**worker)
    wait_for(lambda: processes(folder) - before, job)
    facts["joined"] = sorted(processes(folder) - before)
    Path(folder, "go").touch()
    job.join()
    ray.shutdown()
    cluster.shutdown()
    Path(folder, "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
