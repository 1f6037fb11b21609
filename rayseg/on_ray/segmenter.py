"""Distributed training of a segmenter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from rayseg.config import SegmenterConfig, TrainSegmenterConfig
from rayseg.labels import LabelSource, Truths
from rayseg.learn import DrawOrder, LabelledCrops, SegmenterSteps, Workers, labelled_batches
from rayseg.learn.segmenter_steps import LabelledBatch
from rayseg.nets.backbones import freeze_normalisation, keep_depthwise_float
from rayseg.nets.deeplab import Segmenter, segmenter_facts
from rayseg.nets.inputs import choose_dtype
from rayseg.nets.prediction import Prediction
from rayseg.nets.registry import NETWORKS
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.data import collect, manifest_rows, task_pool
from rayseg.on_ray.train import (
    Course,
    absolute_weights,
    add_over_workers,
    failures_told,
    has_failed,
    launch_told,
    load_state,
    refuse_others,
    threads_of_worker,
    training_samples,
)
from rayseg.records.images import ImageError, decode_image
from rayseg.scores import Confusion
from rayseg.stages import CheckLabels
from rayseg.store import Folder, local_copy, read_file, read_manifest

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
    refuse_others(folder, ids)
    launch_told(_train_worker, {"work": work}, folder, compute, gpus)
    return load_state(folder).facts


def _train_worker(settings: dict[str, Any]) -> None:
    work: SegmenterWork = settings["work"]
    folder = Folder(work.folder)
    if has_failed(folder):
        return
    torch.set_num_threads(work.threads)
    with failures_told(folder, "segmenter.schedule.lr"):
        classes = read_manifest(Folder(work.run) / "manifest").classes
        network = _trained(work, len(classes))
        if ray.train.get_context().get_world_rank() == 0:
            folder.write(
                NETWORKS["segmenter"].file,
                to_safetensors(network, segmenter_facts(network, classes)),
            )


def _trained(work: SegmenterWork, num_classes: int) -> Segmenter:
    """The network after its last step."""
    context, config = ray.train.get_context(), work.segmenter
    rank, world = context.get_world_rank(), context.get_world_size()
    network = work.network(num_classes).to(get_device())
    if get_device().type == "cpu":
        keep_depthwise_float(network)
    else:  # on a CPU it costs a copy of every gradient
        network = network.to(memory_format=torch.channels_last)
    course = Course.resumed(
        Folder(work.folder), network, config.schedule.optimizer(network),
        (config.iterations, config.log_every, config.save_every),
        lambda: _judge(network, work, rank, world), work.ids,
    )  # fmt: skip
    steps = SegmenterSteps(
        config.schedule, config.iterations, config.accumulate, config.loss == "balanced",
        choose_dtype(config.precision, get_device()), config.seed,
    )  # fmt: skip
    model: torch.nn.Module = network
    if world > 1:
        trained = {"broadcast_buffers": not config.frozen_statistics}
        model = prepare_model(network, parallel_strategy_kwargs=trained)
    model.train()
    losses = steps.run(
        model, course.optimizer, _batches(work, course.iteration, rank, world), course.iteration,
        Workers(world, add_over_workers),
    )  # fmt: skip
    course.follow({"loss": loss} for loss in losses)
    return network


def _batches(
    work: SegmenterWork, first_step: int, rank: int, world: int
) -> Iterator[LabelledBatch]:
    device = get_device()
    samples = training_samples(Folder(work.run), work.ids)
    crops = LabelledCrops(samples, work.source, work.segmenter.crops, work.segmenter.seed)
    order = work.order(first_step, rank, world)
    for images, labels, ids in labelled_batches(crops, order, work.loader_workers):
        yield (
            images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last),
            labels.to(device, non_blocking=True),
            list(ids),
        )


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
