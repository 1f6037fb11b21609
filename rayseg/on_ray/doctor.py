"""The job that looks before others leap: what is there, what a run needs, how long it will take."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ray
import torch

from rayseg.config import DoctorConfig
from rayseg.on_ray.calibration import Stage, calibrate
from rayseg.on_ray.data import pool_size
from rayseg.on_ray.jobs import prepare
from rayseg.on_ray.session import count_cores, gpus_each, preflight, session, threads_each
from rayseg.steps.outcome import Outcome

PACKAGES = ("rayseg", "ray", "torch", "torchvision", "pyarrow", "numpy", "pydensecrf2", "optuna")
GB = 1e9


def doctor(config: DoctorConfig) -> Outcome:
    """Says what is there and what a run needs; refuses what would wait for ever.

    Raises:
        ValueError: the cluster is too small for what is asked, or a file that is named is missing.
        FileNotFoundError: likewise.
    """
    lines = [*_machine(config), *_weights(config)]
    with session(config.address, config.run):
        lines += _cluster()
        gpus, threads = gpus_each(config.compute), threads_each(config.compute)
        actors = pool_size(config.compute, gpus)
        grows = config.compute.grows
        preflight("the run", actors, 0 if gpus else threads, gpus, grows)
        preflight("training", config.compute.workers, 0 if gpus else 1, gpus, grows)
        lines.append(
            f"pools: {actors} actors of {'0' if gpus else threads} CPUs and {gpus:g} GPUs; "
            f"trainings: {config.compute.workers} workers"
        )
        if config.estimate:
            lines += prepare(config).lines
            lines += _estimate(config, calibrate(config))
    return Outcome(lines)


def _machine(config: DoctorConfig) -> Iterator[str]:
    found = [f"{name} {_version(name)}" for name in PACKAGES]
    yield f"python {platform.python_version()}, {', '.join(found)}"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield f"this machine: {count_cores()} cores, GPUs: {', '.join(devices) or 'none'}"
    if "://" not in config.run:
        there = next(
            path for path in (Path(config.run).absolute(), *Path(config.run).absolute().parents)
            if path.exists()
        )  # fmt: skip
        free = shutil.disk_usage(there).free / GB
        yield f"disk at {there}: {free:.0f} GB free"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _weights(config: DoctorConfig) -> Iterator[str]:
    """The weights that the run starts from.

    Raises:
        FileNotFoundError: a path among them has no file.
    """
    boxes = config.supervision == "boxes"
    asked = {
        "weights": config.weights,
        "ficklenet_weights": config.ficklenet_weights,
        "detector_weights": config.detector_weights if boxes else "",
    }
    parts = ("detector", "mask_rcnn") if boxes else ("classifier", "segmenter")
    asked |= {f"{part}.weights": getattr(config, part).weights for part in parts}
    for name, given in asked.items():
        if not given:
            continue
        if "/" in given or given.endswith((".pth", ".safetensors", ".onnx")):
            if "://" not in given and not Path(given).is_file():
                raise FileNotFoundError(f"{name} must be a file that is there, got {given}")
            yield f"{name}: {given}"
        elif given not in ("none", "classifier"):
            yield f"{name}: {given}, which torchvision downloads where it has not yet"


def _cluster() -> Iterator[str]:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    have = ray.cluster_resources()
    yield (
        f"cluster: {len(nodes)} nodes, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs, "
        f"{have.get('memory', 0) / GB:.0f} GB memory, "
        f"{have.get('object_store_memory', 0) / GB:.1f} GB object store"
    )


def _estimate(config: DoctorConfig, stages: list[Stage]) -> Iterator[str]:
    width = max(len(stage.name) for stage in stages)
    yield f"{'stage':{width}}  processes     measured         all     stores  takes"
    for one in stages:
        here = f"{one.items} {one.unit}s {one.seconds:.0f} s"
        yield (
            f"{one.name:{width}}  {one.processes:9d}  {here:>16}  {one.all_items:>6} {one.unit}s  "
            f"{_size(one.all_bytes):>8}  {_duration(one.all_seconds)}"
        )
    total = sum(one.all_seconds for one in stages)
    cost = (
        f", {config.price * total / 3600:.2f} at {config.price:g} an hour" if config.price else ""
    )
    stored = sum(one.all_bytes for one in stages)
    yield f"in all: {_size(stored)}, {_duration(total)} on this cluster{cost}"


def _size(number: float) -> str:
    if not number:
        return ""
    return f"{number / GB:.1f} GB" if number >= GB / 10 else f"{number / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
