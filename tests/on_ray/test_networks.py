"""A run on two machines, and on a cluster that begins with none that work."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.on_ray.networks import HEAD, OTHER, PORT, RAY, networks, node, rayseg

TINY = (
    "--data", "synthetic", "--synthetic.count", "6", "--synthetic.val-count", "0",
    "--synthetic.ood-count", "0", "--synthetic.size", "64", "--methods", "cam", "--cam.scales",
    "1.0", "--classifier.trunk", "resnet18", "--classifier.weights", "none", "--classifier.epochs",
    "1", "--classifier.batch-size", "6", "--classifier.crops.crop", "64",
    "--classifier.crops.long-side", "64", "64", "--compute.threads", "1", "--compute.block-rows",
    "2",
)  # fmt: skip
BOTH = ("--compute.workers", "3", "--compute.actors", "3")  # of which a machine has room for two
GROWING = ("--compute.max-actors", "2", "--compute.num-gpus", "0")
HEAD_START = f"--head --port={PORT} --node-ip-address={HEAD} --include-dashboard=false"
CLUSTER = {  # Ray starts its machines as processes of this one
    "cluster_name": "fake_multinode",
    "provider": {"type": "fake_multinode", "gcs_address": f"{HEAD}:{PORT}"},
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 2, "object_store_memory": 100_000_000}, "node_config": {},
            "min_workers": 0, "max_workers": 2,
        },
    },
    "head_node_type": "head",
    # what else Ray asks for
    "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [],
    "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
    "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
}  # fmt: skip
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def scratch():
    """A folder with a short name: sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="r"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_two_machines_share_a_run_and_a_folder_that_one_does_not_see_is_refused(scratch, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    head = f"{RAY} --num-cpus=2 {HEAD_START} --temp-dir={scratch}"
    other = (
        f"mount -t tmpfs none {hidden} && "
        f"{RAY} --num-cpus=2 --address={HEAD}:{PORT} --node-ip-address={OTHER}"
    )
    with (
        networks() as (here, there),
        node(here, head, scratch / "head.txt"),
        node(there, other, scratch / "other.txt"),
    ):
        refused = rayseg(here, "run", "--run", hidden / "run", *TINY, *BOTH)
        done = rayseg(here, "run", "--run", tmp_path / "run", *TINY, *BOTH, "--until", "seeds")
    assert refused.returncode == 1
    assert f"which {OTHER} does not see" in refused.stderr
    said = [line for line in refused.stderr.splitlines() if line.startswith("rayseg: ")]
    assert refused.stderr.splitlines()[-1:] == said, refused.stderr  # after what was to be made
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert "seeds cam: 6 ok" in done.stdout


def test_machines_join_for_a_run_where_there_are_none(scratch, tmp_path):
    (scratch / "cluster.json").write_text(json.dumps(CLUSTER))
    head = (
        f"{RAY} --num-cpus=0 --num-gpus=0 {HEAD_START} --temp-dir={scratch} "
        f"--autoscaling-config={scratch}/cluster.json"
    )
    settings = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with networks() as (here, _), node(here, head, scratch / "head.txt", **settings):
        refused = rayseg(here, "run", "--run", tmp_path / "run", *TINY)
        done = rayseg(here, "run", "--run", tmp_path / "run", *TINY, *GROWING, "--until", "seeds")
    assert refused.returncode == 1
    assert "the cluster has 0; give" in refused.stderr
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert "seeds cam: 6 ok" in done.stdout
