"""The cluster files against the schemas of those who read them; nothing is started."""

import copy
import re
import shlex
import subprocess
from pathlib import Path

import botocore.session
import botocore.validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
MADE_BY_RAY = {"MaxCount", "MinCount"}
# Field names of KubeRay's custom resource definition ray.io_rayjobs.yaml, version v1, to the depth
# that rayseg's manifest goes to; Kubernetes' own parts end in {}. The manifest was held against the
# whole definition once, with unknown fields refused (KubeRay of 2026-08-19).
CAPABILITIES = {
    "allowPrivilegeEscalation": bool, "capabilities": {"drop": list, "add": list},
    "privileged": bool, "readOnlyRootFilesystem": bool,
}  # fmt: skip
CONTAINER = {
    "securityContext": CAPABILITIES,
    "name": str, "image": str, "resources": {}, "volumeMounts": {}, "env": {}, "command": {},
    "args": {}, "ports": {}, "lifecycle": {}, "imagePullPolicy": str,
}  # fmt: skip
POD = {
    "metadata": {},
    "spec": {
        "securityContext": {
            "runAsNonRoot": bool,
            "runAsUser": int,
            "runAsGroup": int,
            "fsGroup": int,
            "seccompProfile": {"type": str},
        },
        "automountServiceAccountToken": bool,
        "containers": [CONTAINER],
        "initContainers": [CONTAINER],
        "volumes": {},
        "nodeSelector": {},
        "tolerations": {},
        "affinity": {},
        "serviceAccountName": str,
        "imagePullSecrets": {},
    },
}
HEAD = {
    "rayStartParams": {}, "template": POD, "serviceType": str, "enableIngress": bool, "labels": {},
    "resources": {}, "headService": {}, "ingressOptions": {},
}  # fmt: skip
WORKER = {
    "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "numOfHosts": int,
    "idleTimeoutSeconds": int, "rayStartParams": {}, "template": POD, "labels": {},
    "resources": {}, "scaleStrategy": {}, "suspend": bool, "priority": int,
}  # fmt: skip
RAYJOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": {},
    "spec": {
        "entrypoint": str, "backoffLimit": int, "activeDeadlineSeconds": int,
        "preRunningDeadlineSeconds": int, "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int, "deletionStrategy": {}, "submissionMode": str,
        "suspend": bool, "submitterConfig": {}, "submitterPodTemplate": {}, "managedBy": str,
        "clusterSelector": {}, "entrypointNumCpus": float, "entrypointNumGpus": float,
        "entrypointResources": str, "jobId": str, "metadata": {}, "runtimeEnvYAML": str,
        "rayClusterSpec": {
            "rayVersion": str,
            "authOptions": {"mode": str, "secretName": str, "enableK8sTokenAuth": bool},
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {
                "idleTimeoutSeconds": int, "upscalingMode": str, "version": str, "resources": {},
                "image": str, "imagePullPolicy": str, "env": {}, "envFrom": {},
                "securityContext": CAPABILITIES, "volumeMounts": {}, "command": {}, "args": {},
            },
            "headGroupSpec": HEAD,
            "workerGroupSpecs": [WORKER],
            "gcsFaultToleranceOptions": {}, "headServiceAnnotations": {}, "managedBy": str,
            "networkPolicy": {}, "suspend": bool, "tlsOptions": {}, "upgradeStrategy": {},
            "historyServerOptions": {},
        },
    },
}  # fmt: skip


# Kubernetes' own networking.k8s.io/v1
PEERS = [{"podSelector": {}, "namespaceSelector": {}, "ipBlock": {}}]
PORTS = [{"protocol": str, "port": int, "endPort": int}]
POLICY = {
    "apiVersion": str,
    "kind": str,
    "metadata": {},
    "spec": {
        "podSelector": {},
        "policyTypes": list,
        "ingress": [{"from": PEERS, "ports": PORTS}],
        "egress": [{"to": PEERS, "ports": PORTS}],
    },
}


def load(name):
    """The first document of a file."""
    return next(yaml.safe_load_all((ROOT / name).read_text()))


def pods():
    """The head's and the workers' templates."""
    spec = load("cluster.kuberay.yaml")["spec"]["rayClusterSpec"]
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def check_cluster(config):
    """Ray's schema, and EC2's for what Ray hands on without a look.

    Raises:
        Exception: whatever the two say.
    """
    validate_config(prepare_config(copy.deepcopy(config)))
    session = botocore.session.get_session()
    shape = session.get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, kind in config.get("available_node_types", {}).items():
        given = kind["node_config"] | dict.fromkeys(MADE_BY_RAY, 1)
        report = botocore.validate.ParamValidator().validate(given, shape)
        if report.has_errors():
            raise ValueError(f"{name}: {report.generate_report()}")
        unknown = set(kind["node_config"]) - set(shape.members)
        if unknown:
            raise ValueError(f"{name}: unknown {sorted(unknown)}")


def check_manifest(given, known, place=""):
    """Names and types of a manifest.

    Raises:
        ValueError: a field that KubeRay does not have, or a value of another type.
    """
    if isinstance(known, dict) and known:
        if not isinstance(given, dict):
            raise ValueError(f"{place} must be a table, got {given!r}")
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"{place}.{name} is no field")
            check_manifest(value, known[name], f"{place}.{name}")
    elif isinstance(known, list):
        for i, one in enumerate(given):
            check_manifest(one, known[0], f"{place}[{i}]")
    elif isinstance(known, type) and not isinstance(given, known):
        raise ValueError(f"{place} must be {known.__name__}, got {given!r}")


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.onprem.yaml"])
def test_ray_takes_the_cluster_files(name):
    check_cluster(load(name))


def test_kuberay_takes_the_manifest():
    manifest = load("cluster.kuberay.yaml")
    check_manifest(manifest, RAYJOB)
    spec = manifest["spec"]["rayClusterSpec"]
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"] == "RayJob"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    yaml.safe_load(manifest["spec"]["runtimeEnvYAML"])
    shell, flag, command = shlex.split(manifest["spec"]["entrypoint"])
    assert (shell, flag) == ("bash", "-c")
    for status, expected in ((0, 0), (1, 1), (3, 0)):  # 3: done, but for some images
        tried = re.sub(r"^rayseg run .* \|\|", f"(exit {status}) ||", command)
        assert subprocess.run(["bash", "-c", tried], check=False).returncode == expected
    most = spec["workerGroupSpecs"][0]["maxReplicas"]
    assert f"--compute.max-actors {most} " in manifest["spec"]["entrypoint"]


def moved(config, path, old, new):
    """The config with a key, or a value, renamed."""
    config = copy.deepcopy(config)
    place = config
    for step in path:
        place = place[step]
    if old in place:
        place[new] = place.pop(old)
    else:
        raise KeyError(old)
    return config


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ((), "idle_timeout_minutes", "idle_timeout_minute"),
        (("available_node_types", "gpu_spot"), "max_workers", "max_worker"),
        (("available_node_types",), "head", "haed"),
        (("available_node_types", "gpu_spot", "node_config"), "InstanceType", "InstanceTyp"),
        (
            ("available_node_types", "gpu_spot", "node_config", "InstanceMarketOptions"),
            "MarketType",
            "MarketTyp",
        ),
        (("provider",), "type", "typ"),
    ],
)
def test_a_typo_in_the_cluster_file_fails(path, old, new):
    with pytest.raises(Exception, match=rf"{new}|{old}"):
        check_cluster(moved(load("cluster.yaml"), path, old, new))


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ((), "cluster_name", "clustername"),
        ((), "head_start_ray_commands", "head_start_ray_command"),
    ],
)
def test_a_typo_in_the_file_for_ones_own_machines_fails(path, old, new):
    with pytest.raises(Exception, match=rf"{new}|{old}"):
        check_cluster(moved(load("cluster.onprem.yaml"), path, old, new))


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (("spec",), "backoffLimit", "backofflimit"),
        (("spec",), "rayClusterSpec", "rayCluster"),
        (("spec", "rayClusterSpec", "authOptions"), "mode", "node"),
        (("spec", "rayClusterSpec", "headGroupSpec"), "rayStartParams", "rayStartParam"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "maxReplicas", "maxReplica"),
        (
            ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec"),
            "containers",
            "container",
        ),
    ],
)
def test_a_typo_in_the_manifest_fails(path, old, new):
    with pytest.raises(ValueError, match=new):
        check_manifest(moved(load("cluster.kuberay.yaml"), path, old, new), RAYJOB)


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.onprem.yaml"])
def test_nothing_listens_to_the_world_and_all_starts_want_a_token(name):
    config = load(name)
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert all(". ~/rayseg/bin/activate; " in command for command in starts)  # python of the jobs
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert all("tls.env" in command for command in starts)
    assert "0.0.0.0" not in (ROOT / name).read_text()
    assert any("auth_token" in path for path in config["file_mounts"])


def test_machines_of_the_cloud_have_a_security_group_of_ones_own():
    config = load("cluster.yaml")  # Ray's own lets ssh in from everywhere, whatever is added to it
    assert "security_group" not in config["provider"]
    kinds = config["available_node_types"].values()
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in kinds)


def test_every_pod_sees_the_shared_folder():
    for pod in (template["spec"] for template in pods()):
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        assert mounts["shared"] == "/mnt/shared"
        assert "shared" in {volume["name"] for volume in pod["volumes"]}


def test_the_head_of_the_cloud_runs_no_work_and_workers_come_and_go():
    kinds = load("cluster.yaml")["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"]
    workers = [kind for name, kind in kinds.items() if name != "head"]
    assert all(kind["min_workers"] == 0 for kind in workers)
    markets = [kind["node_config"].get("InstanceMarketOptions", {}) for kind in workers]
    assert sorted(one.get("MarketType", "") for one in markets) == ["", "spot"]


def test_no_file_names_a_registry_or_an_account():
    for path in ROOT.glob("cluster*.yaml"):
        assert not re.search(r"\bami-|\b\d{12}\b|docker\.io|ghcr\.io|quay\.io", path.read_text())


def test_machines_of_the_cloud_hide_their_credentials_and_encrypt_their_disks():
    for kind in load("cluster.yaml")["available_node_types"].values():
        given = kind["node_config"]
        assert given["MetadataOptions"]["HttpTokens"] == "required"
        assert given["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert all(disk["Ebs"]["Encrypted"] is True for disk in given["BlockDeviceMappings"])


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.onprem.yaml"])
@pytest.mark.parametrize("there", [True, False])
def test_tls_is_switched_on_by_a_file(tmp_path, name, there):
    config = load(name)
    (tmp_path / ".ray").mkdir()
    (tmp_path / "rayseg/bin").mkdir(parents=True)
    (tmp_path / "rayseg/bin/activate").touch()
    if there:
        (tmp_path / ".ray/tls.env").write_text("RAY_USE_TLS=1\n")
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        before = config[key][-1].partition("ulimit")[0]
        script = f"{before} printenv RAY_USE_TLS || echo off"
        said = subprocess.run(
            ["sh", "-c", script], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert said.strip() == ("1" if there else "off")


def test_pods_run_as_nobody_in_particular_and_can_become_nobody_else():
    for pod in (template["spec"] for template in pods()):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    scaler = load("cluster.kuberay.yaml")["spec"]["rayClusterSpec"]["autoscalerOptions"]
    assert scaler["securityContext"]["allowPrivilegeEscalation"] is False
    assert [one["spec"].get("automountServiceAccountToken") for one in pods()] == [None, False]


def test_a_policy_lets_none_but_rayseg_s_pods_and_those_that_submit_reach_ray():
    job, policy = yaml.safe_load_all((ROOT / "cluster.kuberay.yaml").read_text())
    check_manifest(policy, POLICY)
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    labels = policy["spec"]["podSelector"]["matchLabels"]
    assert labels
    for pod in pods():
        assert labels.items() <= pod["metadata"]["labels"].items()
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    own, submitters = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert [port["port"] for port in submitters["ports"]] == [8265]
    names = [peer["podSelector"]["matchLabels"] for peer in submitters["from"]]
    assert {"batch.kubernetes.io/job-name": job["metadata"]["name"]} in names
