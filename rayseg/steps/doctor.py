"""The job that looks before others leap: what is there, what a run needs, how long it will take."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from rayseg.config import DoctorConfig
from rayseg.progress import in_words
from rayseg.steps.engine import Engine
from rayseg.steps.estimate import Measured, calibrate
from rayseg.steps.machine import count_cores
from rayseg.steps.outcome import Outcome
from rayseg.steps.preparing import prepare
from rayseg.steps.recipe import is_judged, recipe
from rayseg.steps.starting import needed_weights, refuse
from rayseg.store import Folder

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
        OSError: some cannot be had.
        ValueError: some are not those of their trunk.
    """
    manifest = Folder(config.run) / "manifest"
    judged = not manifest.exists("manifest.parquet") or is_judged(config)
    needed = needed_weights(config, recipe(config, judged))
    refuse([wrong for one in needed if (wrong := one.problem())])
    for one in needed:
        if one.given in ("none", "classifier"):
            continue
        file = one.published
        where = file and (f"in {file.cache}" if file.is_there else f"fetched from {file.address}")
        yield f"{one.flag}: {one.given}{f', {where}' if where else ''}"


def _estimate(config: DoctorConfig, stages: list[Measured]) -> Iterator[str]:
    width = max(len(stage.name) for stage in stages)
    yield f"{'stage':{width}}  processes     measured         all     stores  takes"
    for one in stages:
        here = f"{one.items} {one.unit}s {one.seconds:.0f} s"
        yield (
            f"{one.name:{width}}  {one.processes:9d}  {here:>16}  {one.all_items:>6} {one.unit}s  "
            f"{_size(one.all_bytes):>8}  {in_words(one.all_seconds)}"
        )
    total = sum(one.all_seconds for one in stages)
    cost = (
        f", {config.price * total / 3600:.2f} at {config.price:g} an hour" if config.price else ""
    )
    stored = sum(one.all_bytes for one in stages)
    yield f"in all: {_size(stored)}, {in_words(total)} on this cluster{cost}"


def _size(number: float) -> str:
    if not number:
        return ""
    return f"{number / GB:.1f} GB" if number >= GB / 10 else f"{number / 1e6:.1f} MB"
