"""Several nodes in one process, of which one dies or joins: ``node_job.py FOLDER kill|join``.

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

ROWS = {"kill": 60, "join": 110}  # Ray Data looks for new nodes every twenty seconds
SECONDS = 0.4


def wait_for(number, out, job):
    """Until so many rows are stored."""
    while len(stored_ids(out)) < number and job.is_alive():
        time.sleep(0.1)


def main(folder, how):
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "num_gpus": 0, "object_store_memory": 100_000_000},
    )
    worker = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100_000_000}
    nodes = [cluster.add_node(**worker) for _ in range(1 if how == "join" else 3)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    out = Folder(f"{folder}/seeds")
    pool = Crew(
        partial(Counting, f"{folder}/marks", SECONDS), rows=2, actors=1 if how == "join" else 3,
        max_actors=3, cpus=0, gpus=1,
    )  # fmt: skip
    source = decoded(manifest_rows(manifest_table(ROWS[how]), out / "pending", 2), Undecoded(), out)
    arguments = (source, ROWS[how], pool, out, SEEDS_SCHEMA, "node job")
    job = threading.Thread(target=write_rows, args=arguments)
    job.start()  # not the other way round: only the main thread may start a node
    wait_for(12, out, job)
    if how == "kill":
        cluster.remove_node(nodes[1], allow_graceful=False)
    facts = {"stored_before": sorted(stored_ids(out))}
    cluster.add_node(**worker)
    job.join()
    ray.shutdown()
    cluster.shutdown()
    Path(folder, "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
