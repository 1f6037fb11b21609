"""Distributed training by Ray Train: who trains, and starting again what was lost."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device, prepare_model
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)
from torch import nn

from rayseg.config import Compute
from rayseg.learn import Worker
from rayseg.on_ray.access import is_private
from rayseg.on_ray.session import preflight
from rayseg.on_ray.watch import one_line_errors
from rayseg.steps.machine import count_cores
from rayseg.store import Folder


class _Trainer(TorchTrainer):
    """Ray's, which at SIGINT would end this process with status 0."""

    def _register_sigint_handler(self, *given: Any) -> None:
        pass


def fit(
    loop: Callable[[Any, Worker], None], work: Any, folder: Folder, compute: Compute, gpus: float
) -> None:
    """Runs a training loop on every worker until all have ended.

    Args:
        loop: called with the work and who trains; goes on from what the folder holds.
        work: what can be pickled.
        folder: of the network; Ray's own files lie in it while it trains.
        compute: how many workers, and how often they may be lost.
        gpus: of a worker; 0 trains on CPUs.

    Raises:
        ValueError: the cluster is too small.
        ChildProcessError: the loop failed, or workers were lost too often.
    """
    preflight("training", compute.workers, 0 if gpus else 1, gpus, compute.grows)
    if compute.grows:  # a machine takes minutes to start, for which Ray would wait one
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(compute.stall_seconds))
    threads = compute.threads or max(count_cores() // compute.workers, 1)
    trainer = _Trainer(
        _run_loop,
        torch_config=MeetByFile() if is_private() else TorchConfig(),
        train_loop_config={"loop": loop, "work": work, "threads": threads},
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"GPU": gpus} if gpus else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=f"rayseg-{time.time_ns()}",
            storage_path=(folder / "ray").location,
            failure_config=FailureConfig(max_failures=compute.max_failures),
        ),
    )
    with one_line_errors("training"):
        trainer.fit()


def _run_loop(settings: dict[str, Any]) -> None:
    torch.set_num_threads(settings["threads"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    settings["loop"](settings["work"], Worker(rank, world, get_device(), _wrap, _report))


class MeetByFile(TorchConfig):
    """Has a machine's workers meet by a file, where torch's server would listen to the world."""

    @property
    def backend_cls(self) -> type:
        """What Ray starts workers with."""
        return _FileBackend


class _FileBackend(_TorchBackend):
    """As Ray's own, but for where the workers meet."""

    folder: tempfile.TemporaryDirectory[str] | None = None

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        self.folder = made = tempfile.TemporaryDirectory(prefix="meet-", ignore_cleanup_errors=True)
        worker_group.execute(_set_torch_distributed_env_vars)
        number = len(worker_group)
        started = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend="nccl" if worker_group.get_resources_per_worker().get("GPU") else "gloo",
                world_rank=rank,
                world_size=number,
                init_method=f"file://{made.name}/store",
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(number)
        ]
        ray.get(started)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        super().on_shutdown(worker_group, backend_config)
        if self.folder:
            self.folder.cleanup()


def _wrap(network: nn.Module, **options: Any) -> nn.Module:
    return prepare_model(network, parallel_strategy_kwargs=options)


def _report(facts: Mapping[str, Any]) -> None:
    ray.train.report(dict(facts))
