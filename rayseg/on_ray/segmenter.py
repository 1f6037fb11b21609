"""Distributed training of a segmenter."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from rayseg.config import SegmenterConfig, TrainSegmenterConfig
from rayseg.images import ImageError, decode_image
from rayseg.inputs import choose_dtype
from rayseg.labels import LabelSource, Truths
from rayseg.loading import DrawOrder, LabelledCrops, labelled_batches
from rayseg.nets.backbones import freeze_normalisation, keep_depthwise_float
from rayseg.nets.deeplab import Segmenter, segmenter_facts
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.data import collect, manifest_rows, task_pool
from rayseg.on_ray.train import (
    STATE,
    TrainingState,
    absolute_weights,
    add_over_workers,
    launch,
    load_state,
    threads_of_worker,
)
from rayseg.prediction import Prediction
from rayseg.records import Sample
from rayseg.scores import Confusion
from rayseg.stages import CheckLabels
from rayseg.store import Folder, local_copy, read_file, read_manifest
from rayseg.training import NotFinite, SegmenterSteps, Workers
from rayseg.training.segmenter import LabelledBatch

WEIGHTS = "segmenter.safetensors"
FAILURE = "failure.json"
_HOPELESS = (ValueError, TypeError, LookupError, AttributeError, torch.OutOfMemoryError)
"""What another start does not change; network and files may be back by then."""
CHECKED_ROWS = 256
"""Masks that are checked by one task."""


@dataclass(frozen=True)
class SegmenterWork:
    """What a training worker is told.

    Attributes:
        run: the run's folder.
        folder: of the segmenter.
        source: of the labels.
        ids: of the images to train on, in the order that draws count in.
        val_split: the images that checkpoints are judged on.
        segmenter: network and training.
        threads: CPU threads of a worker.
        loader_workers: processes that decode ahead for each worker.
    """

    run: str
    folder: str
    source: LabelSource
    ids: list[str]
    val_split: str
    segmenter: SegmenterConfig
    threads: int
    loader_workers: int

    def samples(self) -> list[Sample]:
        """The images to train on."""
        chosen = read_manifest(Folder(self.run) / "manifest").select(ids=self.ids)
        by_id = {sample.id: sample for sample in chosen.samples()}
        return [by_id[id_] for id_ in self.ids]

    def fingerprint(self) -> str:
        """Of the images and their order."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    def order(self, first_step: int, rank: int, world: int) -> DrawOrder:
        """This worker's draws from a step on."""
        config = self.segmenter
        return DrawOrder(
            len(self.ids), config.batch_size // config.accumulate,
            first_step * config.accumulate, config.iterations * config.accumulate,
            config.seed, rank, world,
        )  # fmt: skip

    def network(self, num_classes: int) -> Segmenter:
        """The segmenter before its first step; the same on every worker."""
        config = self.segmenter
        torch.manual_seed(config.seed)  # the head's random start
        network = Segmenter(
            config.network, config.trunk, num_classes + 1, config.stride,
            local_copy(config.weights), config.input_scales, config.frozen_statistics,
        )  # fmt: skip
        if config.frozen_statistics:
            freeze_normalisation(network.trunk)
        return network


def trainable_ids(
    config: TrainSegmenterConfig, folder: Folder, source: LabelSource
) -> tuple[list[str], dict[str, str]]:
    """The images that can be trained on, and why others with labels cannot, by id.

    Raises:
        ValueError: none can.
    """
    manifest = read_manifest(Folder(config.run) / "manifest")
    table = manifest.select(config.train_split).table
    known = source.ids
    labelled = table.filter(pa.array([id_ in known for id_ in table.column("id").to_pylist()]))
    problems: dict[str, str] = {}
    if labelled.num_rows:
        scratch = folder / "pending"
        pool = task_pool(config.compute, partial(CheckLabels, source))
        pool = replace(pool, rows=CHECKED_ROWS)
        rows = manifest_rows(labelled, scratch, pool.rows)
        problems = {row["id"]: row["problem"] for row in collect(rows, pool) if row["problem"]}
        scratch.remove()
    ids = [id_ for id_ in labelled.column("id").to_pylist() if id_ not in problems]
    if not ids:
        why = f"; that of {min(problems)}: {problems[min(problems)]}" if problems else ""
        raise ValueError(
            f"no image of split {config.train_split!r} has labels to train on: "
            f"{labelled.num_rows} have a mask, {len(problems)} of them a bad one{why}"
        )
    return ids, problems


def fit_segmenter(
    config: TrainSegmenterConfig, folder: Folder, source: LabelSource, ids: list[str], gpus: float
) -> dict[str, Any]:
    """Trains on Ray and leaves the weights in the folder; what was measured on the way.

    A training that was stopped goes on after its last checkpoint.

    Raises:
        ValueError: weights, batch size or cluster do not fit.
        FloatingPointError: the loss is not finite.
        ChildProcessError: a worker failed for a reason that a new start does not change, or
            workers were lost too often.
    """
    compute, run = config.compute, Folder(config.run)
    weights = absolute_weights(config.segmenter.weights)
    work = SegmenterWork(
        run.location, folder.location, source, ids, config.val_split,
        replace(config.segmenter, weights=weights),
        threads_of_worker(compute), compute.loader_workers,
    )  # fmt: skip
    # what is wrong with weights or batch size is said here, not by each worker in turn
    work.network(len(read_manifest(run / "manifest").classes))
    work.order(0, 0, compute.workers)
    share = config.segmenter.batch_size // config.segmenter.accumulate // compute.workers
    if config.segmenter.network == "deeplab_v3" and share < 2:
        raise ValueError(
            "deeplab_v3 must have 2 or more images a batch and worker for its batch "
            f"normalisation, got {share}"
        )
    begun_with = load_state(folder).facts.get("images", work.fingerprint())
    if begun_with != work.fingerprint():
        raise ValueError(
            f"{folder} was begun with other images or masks; delete the folder or choose another "
            "--run"
        )
    if folder.exists(FAILURE):  # of an earlier job
        folder.delete(FAILURE)
    try:
        launch(_train_worker, {"work": work}, folder, compute, gpus)
    finally:
        _raise_failure(folder)
    return load_state(folder).facts


def _raise_failure(folder: Folder) -> None:
    """Says why the workers gave up, where they did."""
    if folder.exists(FAILURE):
        failure = json.loads(folder.read(FAILURE))
        folder.delete(FAILURE)
        kind = FloatingPointError if failure["not_finite"] else ChildProcessError
        raise kind(failure["reason"]) from None


def _train_worker(settings: dict[str, Any]) -> None:
    work: SegmenterWork = settings["work"]
    folder = Folder(work.folder)
    if folder.exists(FAILURE):
        return  # Ray starts again whatever raised; what must fail again is not tried
    torch.set_num_threads(work.threads)
    try:
        training = _Training.started(work)
        training.run()
    except NotFinite as error:  # on all workers at once
        ids = _gathered(error.ids)
        if ray.train.get_context().get_world_rank() == 0:
            _write_failure(folder, _told(error, ids, folder), not_finite=True)
        return
    except _HOPELESS as error:
        # on this worker alone, so that it must raise for the others not to wait
        _write_failure(folder, f"training failed: {type(error).__name__}: {error}")
        raise
    if training.rank == 0:
        classes = read_manifest(Folder(work.run) / "manifest").classes
        facts = segmenter_facts(training.network, classes)
        Folder(work.folder).write(WEIGHTS, to_safetensors(training.network, facts))


@dataclass
class _Training:
    """One worker's side of a training."""

    work: SegmenterWork
    network: Segmenter
    optimizer: torch.optim.Optimizer
    state: TrainingState
    rank: int
    world: int
    began: float = field(default_factory=time.perf_counter)

    @classmethod
    def started(cls, work: SegmenterWork) -> _Training:
        context = ray.train.get_context()
        classes = read_manifest(Folder(work.run) / "manifest").classes
        network = work.network(len(classes)).to(get_device())
        if get_device().type == "cpu":
            keep_depthwise_float(network)
        else:  # on a CPU it costs a copy of every gradient
            network = network.to(memory_format=torch.channels_last)
        optimizer = work.segmenter.schedule.optimizer(network)
        state = load_state(Folder(work.folder))
        state.restore(network, optimizer)
        state.facts = {
            "iteration": 0, "curve": [], "judged": [], "since_logged": [], "seconds": 0.0,
            "images": work.fingerprint(),
        } | state.facts  # fmt: skip
        rank, world = context.get_world_rank(), context.get_world_size()
        return cls(work, network, optimizer, state, rank, world)

    def run(self) -> None:
        config, facts = self.work.segmenter, self.state.facts
        before = facts["seconds"]
        steps = SegmenterSteps(
            config.schedule, config.iterations, config.accumulate, config.loss == "balanced",
            choose_dtype(config.precision, get_device()), config.seed,
        )  # fmt: skip
        model: torch.nn.Module = self.network
        if self.world > 1:
            trained = {"broadcast_buffers": not config.frozen_statistics}
            model = prepare_model(self.network, parallel_strategy_kwargs=trained)
        model.train()
        losses = steps.run(
            model, self.optimizer, self._batches(), facts["iteration"],
            Workers(self.world, add_over_workers),
        )  # fmt: skip
        for iteration, loss in enumerate(losses, facts["iteration"] + 1):
            facts["iteration"] = iteration
            facts["seconds"] = before + time.perf_counter() - self.began
            facts["since_logged"].append(loss)
            last = iteration == config.iterations
            if last or iteration % config.log_every == 0:
                self._log()
            if last or iteration % config.save_every == 0:
                self._checkpoint(last)

    def _batches(self) -> Iterator[LabelledBatch]:
        work, device = self.work, get_device()
        crops = LabelledCrops(
            work.samples(), work.source, work.segmenter.crops, work.segmenter.seed
        )
        order = work.order(self.state.facts["iteration"], self.rank, self.world)
        for images, labels, ids in labelled_batches(crops, order, work.loader_workers):
            yield (
                images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last),
                labels.to(device, non_blocking=True),
                list(ids),
            )

    def _log(self) -> None:
        facts = self.state.facts
        losses: list[float] = facts["since_logged"]
        entry = {name: facts[name] for name in ("iteration", "seconds")}
        rate = self.optimizer.param_groups[0]["lr"]
        facts["curve"].append(entry | {"loss": sum(losses) / len(losses), "lr": rate})
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
        judged = _judge(self.network, self.work, self.rank, self.world)
        if judged:
            facts["judged"].append({"iteration": facts["iteration"]} | judged)
        if self.rank == 0:
            self.state.save(Folder(self.work.folder), self.network, self.optimizer)
        ray.train.report({"iteration": facts["iteration"]})


def _judge(network: Segmenter, work: SegmenterWork, rank: int, world: int) -> dict[str, Any]:
    """The mean IoU on some images of the val split, over their labels; empty without any.

    All workers count their share and get the sum.
    """
    manifest = read_manifest(Folder(work.run) / "manifest")
    if work.val_split not in manifest.table.column("split").to_pylist():
        return {}
    truths = Truths(Folder(work.run) / "manifest", work.val_split)
    samples = [s for s in manifest.select(work.val_split).samples() if s.id in truths.paths]
    wanted = work.segmenter.judge_images
    if not samples or not wanted:
        return {}
    spread = samples[:: -(-len(samples) // wanted)]
    prediction = Prediction(precision=work.segmenter.precision)
    lean = prediction.prepare(network, get_device())
    total = Confusion.zeros(len(manifest.classes))
    number = 0
    for sample in spread[rank::world]:
        try:
            pixels = decode_image(read_file(sample.path)).pixels
            truth = truths.read(sample.id, pixels.shape[:2])
        except (ImageError, ValueError):
            continue  # what is wrong with it is said when predictions are scored
        images = torch.from_numpy(pixels[None].copy()).to(get_device())
        labels = prediction(lean, images)[0].argmax(0).to(torch.uint8).cpu().numpy()
        total, number = total + Confusion.of(truth, labels, len(manifest.classes)), number + 1
    counts = torch.tensor([number, *total.counts.ravel().tolist()], device=get_device())
    number, *flat = add_over_workers(counts).tolist()
    whole = Confusion(np.array(flat, np.int64).reshape(total.counts.shape))
    miou = whole.over(whole.present).as_dict()["iou"]
    return {"miou": miou, "images": number} if miou is not None else {}


def _gathered(ids: list[str]) -> list[str]:
    """The ids of all workers."""
    if not torch.distributed.is_initialized():
        return ids
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, ids)
    return [id_ for share in shares for id_ in share]


def _write_failure(folder: Folder, reason: str, not_finite: bool = False) -> None:
    failure = {"reason": reason, "not_finite": not_finite}
    folder.write(FAILURE, json.dumps(failure).encode())


def _told(error: NotFinite, ids: list[str], folder: Folder) -> str:
    saved = load_state(folder).facts.get("iteration", 0)
    state = folder.path(STATE)
    kept = f"iteration {saved} in {state}" if saved else "none yet"
    named = f" on images {', '.join(ids)}" if ids else ""
    return (
        f"loss must be finite, got {error.value} at iteration {error.step + 1}{named}; the last "
        f"good checkpoint is {kept}; try a lower segmenter.schedule.lr, without that folder"
    )
