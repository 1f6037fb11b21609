"""Distributed training by Ray Train: what every network's has in common.

A training's state is a safetensors file of ours that appears whole or not at all, not a Ray
checkpoint: one that is reported just before a crash can be lost (RAY.md 2).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rayseg.config import Compute
from rayseg.learn import NotFinite
from rayseg.on_ray.session import count_cores, one_line_errors, preflight
from rayseg.records import Sample
from rayseg.store import Folder, local_copy, read_manifest, write_run

STATE = "state.safetensors"
FAILURE = "failure.json"
_HOPELESS = (ValueError, TypeError, LookupError, AttributeError, torch.OutOfMemoryError)
"""What another start does not change; network and files may be back by then."""


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
    preflight("training", compute.workers, 0 if gpus_each else 1, gpus_each, compute.grows)
    if compute.grows:  # a machine takes minutes to start, for which Ray would wait one
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(compute.stall_seconds))
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


def launch_told(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    folder: Folder,
    compute: Compute,
    gpus_each: float,
) -> None:
    """As `launch`, for a loop that tells its failures by `failures_told`.

    Raises:
        FloatingPointError: the loss is not finite.
        ChildProcessError: a worker failed for a reason that a new start does not change, or
            workers were lost too often.
    """
    if folder.exists(FAILURE):  # of an earlier job
        folder.delete(FAILURE)
    try:
        launch(loop, settings, folder, compute, gpus_each)
    finally:
        _raise_failure(folder)


def _raise_failure(folder: Folder) -> None:
    """Says why the workers gave up, where they did."""
    if folder.exists(FAILURE):
        failure = json.loads(folder.read(FAILURE))
        folder.delete(FAILURE)
        kind = FloatingPointError if failure["not_finite"] else ChildProcessError
        raise kind(failure["reason"]) from None


def has_failed(folder: Folder) -> bool:
    """Whether a worker gave up: Ray starts again whatever raised, what must fail again is not."""
    return folder.exists(FAILURE)


@contextmanager
def failures_told(folder: Folder, rate: str) -> Iterator[None]:
    """Leaves a file that says why a worker fails within, where another start would not help.

    Args:
        folder: of the network.
        rate: the setting to lower where the loss is not finite, such as segmenter.schedule.lr.
    """
    try:
        yield
    except NotFinite as error:  # on all workers at once
        ids = [id_ for share in gather_over_workers(error.ids) for id_ in share]
        if ray.train.get_context().get_world_rank() == 0:
            _write_failure(folder, _told(error, ids, folder, rate), not_finite=True)
    except _HOPELESS as error:
        # on this worker alone, so that it must raise for the others not to wait
        _write_failure(folder, f"training failed: {type(error).__name__}: {error}")
        raise


def _write_failure(folder: Folder, reason: str, not_finite: bool = False) -> None:
    failure = {"reason": reason, "not_finite": not_finite}
    folder.write(FAILURE, json.dumps(failure).encode())


def _told(error: NotFinite, ids: list[str], folder: Folder, rate: str) -> str:
    saved = load_state(folder).facts.get("iteration", 0)
    state = folder.path(STATE)
    kept = f"iteration {saved} in {state}" if saved else "none yet"
    named = f" on images {', '.join(ids)}" if ids else ""
    return (
        f"loss must be finite, got {error.value} at iteration {error.step + 1}{named}; the last "
        f"good checkpoint is {kept}; try a lower {rate}, without that folder"
    )


def fingerprint(ids: Sequence[str]) -> str:
    """Of images and their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


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


def training_samples(run: Folder, ids: Sequence[str]) -> list[Sample]:
    """The images of these ids, in their order."""
    chosen = read_manifest(run / "manifest").select(ids=ids)
    by_id = {sample.id: sample for sample in chosen.samples()}
    return [by_id[id_] for id_ in ids]


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


def gather_over_workers(share: Any) -> list[Any]:
    """What each worker has, in their order."""
    if not torch.distributed.is_initialized():
        return [share]
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, share)
    return shares


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


@dataclass
class Course:
    """One worker's side of a training that is counted in iterations: its curve and checkpoints.

    Attributes:
        folder: of the network.
        network: that is trained, not wrapped.
        optimizer: of the network.
        iterations: steps of the whole training.
        log_every: steps between two entries of the loss curve.
        save_every: steps between two checkpoints.
        judge: figures of the network, the same on all workers; empty for none.
        state: of the training so far.
    """

    folder: Folder
    network: nn.Module
    optimizer: torch.optim.Optimizer
    iterations: int
    log_every: int
    save_every: int
    judge: Callable[[], dict[str, Any]]
    state: TrainingState

    @classmethod
    def resumed(
        cls,
        folder: Folder,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lengths: tuple[int, int, int],
        judge: Callable[[], dict[str, Any]],
        ids: Sequence[str],
    ) -> Course:
        """The course after its last checkpoint, network and optimiser changed to what they were.

        Args:
            folder: of the network.
            network: before its first step.
            optimizer: of the network.
            lengths: iterations, log_every and save_every.
            judge: figures of the network.
            ids: of the images that are trained on.
        """
        state = load_state(folder)
        state.restore(network, optimizer)
        state.facts = {
            "iteration": 0, "curve": [], "judged": [], "since_logged": [], "seconds": 0.0,
            "images": fingerprint(ids),
        } | state.facts  # fmt: skip
        return cls(folder, network, optimizer, *lengths, judge, state)

    @property
    def iteration(self) -> int:
        """Steps taken."""
        return self.state.facts["iteration"]

    def follow(self, losses: Iterable[Mapping[str, float]]) -> None:
        """Trains to the end, logging and saving.

        Args:
            losses: ``loss`` and perhaps its parts, of each step that is left.
        """
        facts, began = self.state.facts, time.perf_counter()
        before = facts["seconds"]
        for iteration, parts in enumerate(losses, self.iteration + 1):
            facts["iteration"] = iteration
            facts["seconds"] = before + time.perf_counter() - began
            facts["since_logged"].append(dict(parts))
            last = iteration == self.iterations
            if last or iteration % self.log_every == 0:
                self._log()
            if last or iteration % self.save_every == 0:
                self._checkpoint(last)

    def _log(self) -> None:
        facts = self.state.facts
        since: list[dict[str, float]] = facts["since_logged"]
        entry = {name: facts[name] for name in ("iteration", "seconds")}
        means = {name: sum(one[name] for one in since) / len(since) for name in since[0]}
        facts["curve"].append(entry | means | {"lr": self.optimizer.param_groups[0]["lr"]})
        facts["since_logged"] = []

    def _checkpoint(self, last: bool) -> None:
        """Judges and saves; weights that are no numbers are not saved over good ones.

        Raises:
            NotFinite: the last step left such weights; after others the next loss says it.
        """
        facts = self.state.facts
        if not all(torch.isfinite(p).all() for p in self.network.parameters()):
            if last:
                raise NotFinite(facts["iteration"] - 1, float("nan"), [])
            return
        judged = self.judge()
        if judged:
            facts["judged"].append({"iteration": facts["iteration"]} | judged)
        if ray.train.get_context().get_world_rank() == 0:
            self.state.save(self.folder, self.network, self.optimizer)
        ray.train.report({"iteration": facts["iteration"]})


def write_figures(folder: Folder, facts: Mapping[str, Any]) -> None:
    """Puts the figures of a finished training beside its weights, and clears up."""
    write_run(folder, {**facts, "done": True})
    if folder.exists(STATE):
        folder.delete(STATE)
    (folder / "ray").remove()
