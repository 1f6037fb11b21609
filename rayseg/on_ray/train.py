"""Distributed training by Ray Train: who trains, and starting again what was lost."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from torch import nn

from rayseg.config import Compute
from rayseg.learn import Worker
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


def _wrap(network: nn.Module, **options: Any) -> nn.Module:
    return prepare_model(network, parallel_strategy_kwargs=options)


def _report(facts: Mapping[str, Any]) -> None:
    ray.train.report(dict(facts))
