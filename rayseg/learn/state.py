"""What is kept of a training that has not ended, so that it goes on after its last checkpoint.

It is a safetensors file of ours that appears whole or not at all, not a Ray checkpoint: one that is
reported just before a crash can be lost (RAY.md 2).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rayseg.store import Folder, hash_ids, local_copy

STATE = "state.safetensors"


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


def fingerprint(ids: Sequence[str]) -> str:
    """Of images and their order."""
    return hash_ids(ids)


def refuse_others(folder: Folder, ids: Sequence[str]) -> None:
    """Checks that a training that stopped had these images.

    Raises:
        ValueError: it had others.
    """
    if load_state(folder).facts.get("images", fingerprint(ids)) != fingerprint(ids):
        raise ValueError(
            f"{folder} was begun with other images or masks; delete the folder or choose another "
            "--run"
        )
