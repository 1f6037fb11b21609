"""Distributed training of the classifier, and of FickleNet's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import nn

from rayseg.config import (
    ClassifierConfig,
    Compute,
    FickleNetConfig,
    TrainClassifierConfig,
    TrainFickleNetConfig,
)
from rayseg.learn import (
    ClassifierScores,
    EpochOrder,
    TaggedCrops,
    evaluation_batches,
    predict_logits,
    train_epoch,
    training_batches,
)
from rayseg.nets.backbones import freeze_stages
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.ficklenet import FickleClassifier, fickle_facts
from rayseg.nets.registry import NETWORKS
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.train import (
    absolute_weights,
    add_over_workers,
    launch,
    load_state,
    threads_of_worker,
)
from rayseg.store import Folder, Manifest, read_manifest

MAX_EVALUATED = 1000
"""Images that each epoch is judged on; enough for a mean average precision within a point."""


@dataclass(frozen=True)
class _Work:
    """What a training worker is told."""

    run: str
    split: str
    network: ClassifierConfig
    threads: int
    loader_workers: int

    @property
    def folder(self) -> Folder:
        """Of the run, where the weights belong."""
        is_fickle = isinstance(self.network, FickleNetConfig)
        return Folder(self.run) / ("ficklenet" if is_fickle else "classifier")


def fit_classifier(config: TrainClassifierConfig, gpus_each: float) -> list[dict[str, Any]]:
    """Trains on Ray and leaves the weights in the run's classifier folder; figures by epoch.

    A training that was stopped goes on after its last whole epoch.
    """
    return _fit(config.run, config.train_split, config.classifier, config.compute, gpus_each)


def fit_ficklenet(config: TrainFickleNetConfig, gpus_each: float) -> list[dict[str, Any]]:
    """As `fit_classifier`, but trains FickleNet's, into the run's ficklenet folder."""
    network = config.ficklenet_classifier
    return _fit(config.run, config.train_split, network, config.compute, gpus_each)


def _fit(
    location: str, split: str, network: ClassifierConfig, compute: Compute, gpus_each: float
) -> list[dict[str, Any]]:
    run = Folder(location)
    network = replace(network, weights=absolute_weights(network.weights))
    manifest = read_manifest(run / "manifest")
    # what is wrong with weights, tags or batch size is said here, not by each worker in turn
    _build(network, len(manifest.classes))
    crops = _crops(manifest, split, network)
    EpochOrder(len(crops), network.batch_size, 0, network.seed, 0, compute.workers)
    work = _Work(run.location, split, network, threads_of_worker(compute), compute.loader_workers)
    launch(_train_worker, asdict(work) | {"network": network}, work.folder, compute, gpus_each)
    return load_state(work.folder).facts["epochs"]


def _train_worker(settings: dict[str, Any]) -> None:
    work = _Work(**settings)
    torch.set_num_threads(work.threads)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    config, folder = work.network, work.folder
    manifest = read_manifest(Folder(work.run) / "manifest")
    crops = _crops(manifest, work.split, config)
    network = _build(config, len(manifest.classes)).to(get_device())
    state = load_state(folder)
    epochs = state.facts.setdefault("epochs", [])
    optimizer = config.schedule.optimizer(network)
    state.restore(network, optimizer)
    model = prepare_model(network) if world > 1 else network
    for epoch in range(len(epochs), config.epochs):
        start = time.perf_counter()
        order = EpochOrder(len(crops), config.batch_size, epoch, config.seed, rank, world)
        batches = _on_device(training_batches(crops, order, work.loader_workers))
        if isinstance(network, FickleClassifier):
            batches = _reseeded(batches, network, config.seed, epoch * len(order), rank, world)
        losses = list(
            train_epoch(
                model, optimizer, config.schedule, batches, epoch, config.epochs, len(order)
            )
        )
        mean = torch.tensor(sum(losses) / len(losses), device=get_device())
        loss = add_over_workers(mean).item() / world  # each sees its share only
        figures: dict[str, Any] = {"epoch": epoch + 1, "loss": loss}
        if rank == 0:
            figures |= _evaluate(network, manifest, work)
            figures["seconds"] = time.perf_counter() - start
            epochs.append(figures)
            state.save(folder, network, optimizer)
        ray.train.report(figures)
    if rank == 0:
        _write_weights(folder, network, config, manifest.classes)


def _write_weights(
    folder: Folder,
    network: CamClassifier | FickleClassifier,
    config: ClassifierConfig,
    classes: Sequence[str],
) -> None:
    if isinstance(network, FickleClassifier):
        facts = fickle_facts(network, config.trunk, classes)
        folder.write(NETWORKS["ficklenet"].file, to_safetensors(network, facts))
        return
    plain = {"trunk": config.trunk, "stride": config.stride, "classes": list(classes)}
    folder.write(NETWORKS["classifier"].file, to_safetensors(network, plain))


def _reseeded(
    batches: Iterable[Any],
    network: FickleClassifier,
    seed: int,
    first_step: int,
    rank: int,
    world: int,
) -> Iterator[Any]:
    """The batches, each with the network told of its step first."""
    for step, batch in enumerate(batches, first_step):
        network.reseed(seed, step, rank, world)
        yield batch


def _crops(manifest: Manifest, split: str, config: ClassifierConfig) -> TaggedCrops:
    tagged = [sample for sample in manifest.select(split).samples() if sample.tags]
    if not tagged:
        raise ValueError(f"no image of split {split!r} has a tag to train on")
    return TaggedCrops(tagged, len(manifest.classes), config.crops, config.seed)


def _build(config: ClassifierConfig, num_classes: int) -> CamClassifier | FickleClassifier:
    torch.manual_seed(config.seed)  # the head's random start
    start = (config.trunk, num_classes, config.stride, config.weights, config.frozen_statistics)
    network: CamClassifier | FickleClassifier
    if isinstance(config, FickleNetConfig):
        network = FickleClassifier(
            *start, config.kernel, config.drop_rate, config.dilated, config.selection
        )
    else:
        network = CamClassifier(*start)
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
    crops = _crops(manifest, split, work.network)
    crops.samples = crops.samples[:MAX_EVALUATED]
    batches = evaluation_batches(crops, work.network.batch_size, work.loader_workers)
    scores = ClassifierScores.of(*predict_logits(network, _on_device(batches)))
    return {"map": scores.mean_average_precision, "f1": scores.f1, "judged_on": split}
