"""A cluster of three nodes in processes of this one: ``cluster.py``; a line on stdin kills one."""

import os
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Says the address, waits for a line, kills a node, and ends with stdin."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    memory = {"object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **memory})
    nodes = [cluster.add_node(num_cpus=1, **memory) for _ in range(2)]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(nodes[0], allow_graceful=False)
        print("killed", flush=True)
        sys.stdin.readline()
    cluster.shutdown()


if __name__ == "__main__":
    main()
