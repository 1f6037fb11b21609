"""The job that looks before others leap: what is there, what a run needs, how long it will take."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rayseg.config import DoctorConfig
from rayseg.learn import TRAININGS
from rayseg.steps.engine import Engine
from rayseg.steps.estimate import Measured, calibrate
from rayseg.steps.machine import count_cores
from rayseg.steps.outcome import Outcome
from rayseg.steps.parts import settings_of
from rayseg.steps.preparing import prepare
from rayseg.steps.recipe import recipe

PACKAGES = ("rayseg", "ray", "torch", "torchvision", "pyarrow", "numpy", "pydensecrf2", "optuna")
GB = 1e9


def doctor(config: DoctorConfig, engine: Engine) -> Outcome:
    """Says what is there and what a run needs; refuses what would never start."""
    lines = [*_machine(config), *_weights(config)]
    with engine.open(config.address, config.run):
        slots = engine.slots(config.compute)
        engine.check("the run", config.compute)
        lines += [
            f"cluster: {slots.where}",
            f"pools: {slots.actors} actors of {0 if slots.gpus else slots.threads} CPUs and "
            f"{slots.gpus:g} GPUs; trainings: {config.compute.workers} workers",
        ]
        if config.estimate:
            lines += prepare(config, engine).lines
            lines += _estimate(config, calibrate(config, engine))
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
    given_weights = config.given_weights.items()
    asked = {
        "weights" if k == "classifier" else f"{k}_weights": given for k, given in given_weights
    }
    for part in recipe(config, judged=True):
        if part.kind in TRAININGS:
            asked[f"{TRAININGS[part.kind].field}.weights"] = settings_of(config, part.kind).weights
    for name, given in asked.items():
        if not given:
            continue
        if "/" in given or given.endswith((".pth", ".safetensors", ".onnx")):
            if "://" not in given and not Path(given).is_file():
                raise FileNotFoundError(f"{name} must be a file that is there, got {given}")
            yield f"{name}: {given}"
        elif given not in ("none", "classifier"):
            yield f"{name}: {given}, which torchvision downloads where it has not yet"


def _estimate(config: DoctorConfig, stages: list[Measured]) -> Iterator[str]:
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
