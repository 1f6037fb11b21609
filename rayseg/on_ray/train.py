"""Distributed training by Ray Train: what every network's has in common.

A training's state is a safetensors file of ours that appears whole or not at all, not a Ray
checkpoint: one that is reported just before a crash can be lost (RAY.md 2).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rayseg.config import Compute
from rayseg.on_ray.session import count_cores, one_line_errors, preflight
from rayseg.store import Folder, local_copy, write_run

STATE = "state.safetensors"


def launch(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    folder: Folder,
    compute: Compute,
    gpus_each: float,
) -> None:
    """Runs a training loop on every worker until all have ended.

    Args:
        loop: called with the settings; resumes from the folder's state.
        settings: what can be pickled.
        folder: of the network; Ray's own files lie in it while it trains.
        compute: how many workers, and how often they may be lost.
        gpus_each: of a worker; 0 trains on CPUs.

    Raises:
        ValueError: the cluster is too small.
        ChildProcessError: the loop failed, or workers were lost too often.
    """
    preflight("training", compute.workers, 0 if gpus_each else 1, gpus_each)
    trainer = TorchTrainer(
        loop,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=gpus_each > 0,
            resources_per_worker={"GPU": gpus_each} if gpus_each else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=f"rayseg-{time.time_ns()}",
            storage_path=(folder / "ray").location,
            failure_config=FailureConfig(max_failures=compute.max_failures),
        ),
    )
    with one_line_errors("training"):
        trainer.fit()


def threads_of_worker(compute: Compute) -> int:
    """CPU threads of a training worker: as given, else its share of this machine's cores."""
    return compute.threads or max(count_cores() // compute.workers, 1)


def absolute_weights(weights: str) -> str:
    """The same weights for workers, which start in another folder."""
    return str(Path(weights).absolute()) if Path(weights).is_file() else weights


def add_over_workers(tensor: Tensor) -> Tensor:
    """The sum of what each worker has."""
    if torch.distributed.is_initialized():
        tensor = tensor.clone()
        torch.distributed.all_reduce(tensor)
    return tensor


@dataclass
class TrainingState:
    """A training after some steps.

    Attributes:
        facts: what was measured so far.
        tensors: ``network.<name>`` for weights, ``optimizer.<entry>.<name>`` for what the optimiser
            keeps of them, such as momenta.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Puts weights and what the optimiser keeps back; nothing where nothing was saved."""
        if not self.tensors:
            return
        weights = {k[8:]: v for k, v in self.tensors.items() if k.startswith("network.")}
        network.load_state_dict(weights)
        parameters = dict(network.named_parameters())
        for key, kept in self.tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                entry, _, name = rest.partition(".")
                optimizer.state[parameters[name]][entry] = _like(parameters[name], kept)
            elif kind != "network":
                raise ValueError(f"state must hold network and optimizer, got {key}; train anew")
        self.tensors = {}

    def save(self, folder: Folder, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Writes the facts with the present weights and what the optimiser keeps of each."""
        tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
        for name, parameter in network.named_parameters():
            for entry, value in optimizer.state[parameter].items():
                if value is not None:
                    tensors[f"optimizer.{entry}.{name}"] = value
        plain = {key: value.contiguous().cpu() for key, value in tensors.items()}
        folder.write(STATE, save(plain, metadata={"facts": json.dumps(self.facts)}))


def _like(parameter: Tensor, kept: Tensor) -> Tensor:
    # what is not of the parameter's shape is Adam's count of steps, which stays on the CPU
    if kept.shape != parameter.shape:
        return kept
    return torch.empty_like(parameter, requires_grad=False).copy_(kept)


def load_state(folder: Folder) -> TrainingState:
    """Where a training stopped; an empty state where it did not begin."""
    if not folder.exists(STATE):
        return TrainingState()
    path = local_copy(folder.path(STATE))
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    return TrainingState(facts, load_file(path))


def write_figures(folder: Folder, facts: Mapping[str, Any]) -> None:
    """Puts the figures of a finished training beside its weights, and clears up."""
    write_run(folder, {**facts, "done": True})
    if folder.exists(STATE):
        folder.delete(STATE)
    (folder / "ray").remove()
