"""Distributed training of the classifier."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import nn

from rayseg.config import ClassifierConfig, TrainClassifierConfig
from rayseg.loading import EpochOrder, TaggedCrops, evaluation_batches, training_batches
from rayseg.nets.backbones import freeze_stages
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.train import (
    absolute_weights,
    add_over_workers,
    launch,
    load_state,
    threads_of_worker,
)
from rayseg.store import Folder, Manifest, read_manifest
from rayseg.training import ClassifierScores, predict_logits, train_epoch

WEIGHTS = "classifier.safetensors"
MAX_EVALUATED = 1000
"""Images that each epoch is judged on; enough for a mean average precision within a point."""


@dataclass(frozen=True)
class _Work:
    """What a training worker is told."""

    run: str
    split: str
    classifier: ClassifierConfig
    threads: int
    loader_workers: int


def fit_classifier(config: TrainClassifierConfig, gpus_each: float) -> list[dict[str, Any]]:
    """Trains on Ray and leaves the weights in the run's classifier folder; figures by epoch.

    A training that was stopped goes on after its last whole epoch.
    """
    compute = config.compute
    run = Folder(config.run)
    classifier = replace(config.classifier, weights=absolute_weights(config.classifier.weights))
    manifest = read_manifest(run / "manifest")
    # what is wrong with weights, tags or batch size is said here, not by each worker in turn
    _build(classifier, len(manifest.classes))
    crops = _crops(manifest, config.train_split, classifier)
    EpochOrder(len(crops), classifier.batch_size, 0, classifier.seed, 0, compute.workers)
    threads = threads_of_worker(compute)
    work = _Work(run.location, config.train_split, classifier, threads, compute.loader_workers)
    folder = run / "classifier"
    settings = asdict(work) | {"classifier": classifier}
    launch(_train_worker, settings, folder, compute, gpus_each)
    return load_state(folder).facts["epochs"]


def _train_worker(settings: dict[str, Any]) -> None:
    work = _Work(**settings)
    torch.set_num_threads(work.threads)
    context = ray.train.get_context()
    config, folder = work.classifier, Folder(work.run) / "classifier"
    manifest = read_manifest(Folder(work.run) / "manifest")
    crops = _crops(manifest, work.split, config)
    network = _build(config, len(manifest.classes)).to(get_device())
    state = load_state(folder)
    epochs = state.facts.setdefault("epochs", [])
    optimizer = config.schedule.optimizer(network)
    state.restore(network, optimizer)
    model = prepare_model(network) if context.get_world_size() > 1 else network
    for epoch in range(len(epochs), config.epochs):
        start = time.perf_counter()
        order = EpochOrder(
            len(crops), config.batch_size, epoch, config.seed,
            context.get_world_rank(), context.get_world_size(),
        )  # fmt: skip
        batches = _on_device(training_batches(crops, order, work.loader_workers))
        losses = list(
            train_epoch(
                model, optimizer, config.schedule, batches,
                epoch * len(order), config.epochs * len(order),
            )
        )  # fmt: skip
        mean = torch.tensor(sum(losses) / len(losses), device=get_device())
        loss = add_over_workers(mean).item() / context.get_world_size()  # each sees its share only
        figures: dict[str, Any] = {"epoch": epoch + 1, "loss": loss}
        if context.get_world_rank() == 0:
            figures |= _evaluate(network, manifest, work)
            figures["seconds"] = time.perf_counter() - start
            epochs.append(figures)
            state.save(folder, network, optimizer)
        ray.train.report(figures)
    if context.get_world_rank() == 0:
        facts = {
            "trunk": config.trunk, "stride": config.stride, "classes": list(manifest.classes),
        }  # fmt: skip
        folder.write(WEIGHTS, to_safetensors(network, facts))


def _crops(manifest: Manifest, split: str, config: ClassifierConfig) -> TaggedCrops:
    tagged = [sample for sample in manifest.select(split).samples() if sample.tags]
    if not tagged:
        raise ValueError(f"no image of split {split!r} has a tag to train on")
    return TaggedCrops(tagged, len(manifest.classes), config.crops, config.seed)


def _build(config: ClassifierConfig, num_classes: int) -> CamClassifier:
    torch.manual_seed(config.seed)  # the head's random start
    network = CamClassifier(
        config.trunk, num_classes, config.stride, config.weights, config.frozen_statistics
    )
    if config.weights != "none":
        freeze_stages(network.trunk, config.freeze)
    return network


def _on_device(batches: Iterable[Any]) -> Iterable[Any]:
    device = get_device()
    for images, targets in batches:
        yield (
            images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last),
            targets.to(device, non_blocking=True),
        )


def _evaluate(network: nn.Module, manifest: Manifest, work: _Work) -> dict[str, Any]:
    """Mean average precision and F1 on split ``val`` where there is one, else on the training's."""
    split = "val" if "val" in manifest.table.column("split").to_pylist() else work.split
    crops = _crops(manifest, split, work.classifier)
    crops.samples = crops.samples[:MAX_EVALUATED]
    batches = evaluation_batches(crops, work.classifier.batch_size, work.loader_workers)
    scores = ClassifierScores.of(*predict_logits(network, _on_device(batches)))
    return {"map": scores.mean_average_precision, "f1": scores.f1, "judged_on": split}
