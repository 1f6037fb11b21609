"""What is kept of a training that has not ended, so that it goes on after its last checkpoint.

It is a safetensors file of ours that appears whole or not at all, not a Ray checkpoint: one that is
reported just before a crash can be lost (RAY.md 2).
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rayseg.nets.weights import checksum
from rayseg.store import DamagedError, Folder, hash_ids, local_copy

STATE = "state.safetensors"

logger = logging.getLogger(__name__)


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
        metadata = {"facts": json.dumps(self.facts), "checksum": checksum(plain)}
        folder.write(STATE, save(plain, metadata=metadata))


def _like(parameter: Tensor, kept: Tensor) -> Tensor:
    # what is not of the parameter's shape is Adam's count of steps, which stays on the CPU
    if kept.shape != parameter.shape:
        return kept
    return torch.empty_like(parameter, requires_grad=False).copy_(kept)


def load_state(folder: Folder) -> TrainingState:
    """Where a training stopped; an empty state where it did not begin.

    Raises:
        DamagedError: it is not as it was written.
    """
    if not folder.exists(STATE):
        return TrainingState()
    path = local_copy(folder.path(STATE))
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        facts, tensors = json.loads(metadata["facts"]), load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(folder, STATE, " ".join(str(error).split())) from None
    if metadata.get("checksum") not in (None, checksum(tensors)):
        raise DamagedError(folder, STATE, "its tensors do not have the checksum that they had")
    return TrainingState(facts, tensors)


def forget_damaged_state(folder: Folder) -> None:
    """Sets aside what a training cannot go on from, and says so: it begins anew."""
    try:
        load_state(folder)
    except DamagedError as error:
        folder.set_aside(STATE)
        logger.warning("%s is damaged (%s): the training begins anew", error.path, error.reason)


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
