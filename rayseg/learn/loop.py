"""The loop that trains every network: steps, curve, checkpoints, going on after the last one."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from rayseg.learn.failures import NotFinite, failures_recorded, has_failed
from rayseg.learn.state import TrainingState, fingerprint, load_state
from rayseg.learn.training import Batch, Length, Share, Work
from rayseg.learn.worker import Worker
from rayseg.nets.inputs import choose_dtype
from rayseg.nets.weights import to_safetensors
from rayseg.networks import NETWORKS
from rayseg.store import Folder, ProgressFile

_ALONE = Worker()


def train(work: Work, worker: Worker = _ALONE) -> None:
    """Trains to the end and leaves the weights in the folder; goes on after its last checkpoint.

    A loss that is not finite, and what another start does not change, is left in a file that
    `raise_failure` reads; a later start ends at once while that is there.
    """
    folder, training = Folder(work.folder), work.training
    if has_failed(folder):
        return
    with failures_recorded(folder, f"{training.field}.schedule.lr", worker):
        course = Course.resumed(work, worker)
        course.follow()
        if worker.rank == 0:
            network = training.stored(course.network)
            facts = training.facts(network, work.classes)
            folder.write(NETWORKS[training.makes].file, to_safetensors(network, facts))


@dataclass
class Course:
    """One worker's side of a training.

    Attributes:
        work: what is trained on what.
        worker: who trains.
        network: not wrapped.
        optimizer: of the network.
        length: of the training.
        state: of the training so far.
    """

    work: Work
    worker: Worker
    network: nn.Module
    optimizer: torch.optim.Optimizer
    length: Length
    state: TrainingState

    @classmethod
    def resumed(cls, work: Work, worker: Worker) -> Self:
        """The course after its last checkpoint, or at its start."""
        training, folder = work.training, Folder(work.folder)
        network = training.place_on(worker.device, training.build(work.classes))
        optimizer = training.schedule.optimizer(network)
        length = training.length(len(work.ids))
        state = load_state(folder)
        state.restore(network, optimizer)
        state.facts = {
            "iteration": 0, "curve": [], "judged": [], "since_logged": [], "seconds": 0.0,
            "step_seconds": 0.0,
            "images": fingerprint(work.ids),
        } | _in_iterations(state.facts, length)  # fmt: skip
        return cls(work, worker, network, optimizer, length, state)

    @property
    def iteration(self) -> int:
        """Steps taken."""
        return self.state.facts["iteration"]

    @cached_property
    def told(self) -> ProgressFile:
        """What the first worker says of the training."""
        return ProgressFile(Folder(self.work.folder), self.state.facts, self.length.steps)

    def follow(self) -> None:
        """Trains to the end, logging, judging and saving.

        Raises:
            NotFinite: on all workers at once.
        """
        training, facts, began = self.work.training, self.state.facts, time.perf_counter()
        before, steps = facts["seconds"], self.length.steps
        model = self.network
        self._tell("starting")
        if self.worker.world > 1:
            model = self.worker.wrap(self.network, **training.wrapping)
        model.train()
        samples = self.work.samples()
        batches = training.batches(self.work, samples, self.iteration, self.worker)
        for step in range(self.iteration, steps):
            start = time.perf_counter()
            parts = self.take_step(model, batches, step)
            facts["step_seconds"] += time.perf_counter() - start
            facts["iteration"] = step + 1
            facts["seconds"] = before + time.perf_counter() - began
            facts["since_logged"].append(parts)
            self._tell()
            last = step + 1 == steps
            if last or (step + 1) % training.log_every == 0:
                self._log()
            if last or training.saves_after(step + 1, self.length):
                self._checkpoint(last)

    def take_step(self, model: nn.Module, batches: Iterator[Batch], step: int) -> dict[str, float]:
        """Takes a step; the loss over all workers and what it is the sum of, by their names."""
        training, parts = self.work.training, self.work.training.parts
        training.schedule.set_step(self.optimizer, step, self.length.steps, self.length.epoch)
        training.reseed(self.network, step, self.worker)
        self.optimizer.zero_grad(set_to_none=True)
        dtype = choose_dtype(training.precision, self.worker.device)
        total: dict[str, float] = {}
        for part in range(parts):
            batch = next(batches)
            with _gathering(model, part, parts):
                share, values = _summed(training.losses(model, batch, dtype), self.worker)
                if not math.isfinite(values["loss"]):
                    raise NotFinite(step, values["loss"], list(batch[2]))
                (share / parts).backward()
            total = {name: total.get(name, 0.0) + values[name] / parts for name in values}
        training.limit_gradients(model)
        self.optimizer.step()
        return total

    def _tell(self, doing: str = "") -> None:
        """Says how far the training is."""
        if self.worker.rank == 0:
            self.told.write(self.optimizer.param_groups[0]["lr"], doing)

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
            NotFinite: the last step left such weights; after others the next loss says it. Or
                what the network answers is no number, as that of very large weights is not.
        """
        facts, training = self.state.facts, self.work.training
        if not all(torch.isfinite(p).all() for p in self.network.parameters()):
            if last:
                raise NotFinite(facts["iteration"] - 1, float("nan"), [])
            return
        if last:
            training.finish(self.network, self.work, self.worker)
        if last or training.judges_after(facts["iteration"], self.length):
            self._tell("judging")
            judged = self._judged(last)
            if judged:
                facts["judged"].append({"iteration": facts["iteration"]} | judged)
        if self.worker.rank == 0:
            self.state.save(Folder(self.work.folder), self.network, self.optimizer)
        self.worker.report({"iteration": facts["iteration"]})

    def _judged(self, last: bool) -> dict[str, Any]:
        try:
            return self.work.training.judge(self.network, self.work, self.worker, last)
        except FloatingPointError as error:
            raise NotFinite(self.iteration - 1, float("nan"), []) from error


def _in_iterations(facts: Mapping[str, Any], length: Length) -> dict[str, Any]:
    """What a training measured so far, also of one that was begun when epochs were counted."""
    epochs = facts.get("epochs")
    if epochs is None:
        return dict(facts)
    ends = [{"iteration": length.epoch * (place + 1)} | one for place, one in enumerate(epochs)]
    return {
        "iteration": length.epoch * len(epochs),
        "curve": [{name: end[name] for name in ("iteration", "loss")} for end in ends],
        "judged": ends,
        "seconds": sum(one["seconds"] for one in epochs),
    }


def _summed(
    losses: Mapping[str, Tensor | Share], worker: Worker
) -> tuple[Tensor, dict[str, float]]:
    """What this worker differentiates, and the loss over all workers with its parts.

    Gradients are averaged over the workers, hence their number before what is differentiated.
    """
    shares = {
        name: one if isinstance(one, Share) else Share(one[None], one.new_ones(1))
        for name, one in losses.items()
    }
    sums = torch.cat([share.sums for share in shares.values()])  # (k,)
    counts = torch.cat([share.counts.to(sums) for share in shares.values()])
    whole_sums, whole_counts = worker.add(torch.stack([sums.detach(), counts]).float())
    divisors = whole_counts.clamp(min=1)
    means = whole_sums / divisors
    sizes = [len(share.sums) for share in shares.values()]
    parts = {name: float(own.sum()) for name, own in zip(shares, means.split(sizes), strict=True)}
    return (sums / divisors).sum() * worker.world, {"loss": float(means.sum())} | parts


def _gathering(model: nn.Module, part: int, parts: int) -> AbstractContextManager[None]:
    """Gradients travel between workers with a step's last batch only."""
    if part < parts - 1 and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
