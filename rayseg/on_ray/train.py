"""Distributed training of the classifier by Ray Train."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from rayseg.config import ClassifierConfig, TrainClassifierConfig
from rayseg.loading import EpochOrder, TaggedCrops, evaluation_batches, training_batches
from rayseg.nets.backbones import freeze_stages
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.session import count_cores, one_line_errors, preflight
from rayseg.store import Folder, Manifest, local_copy, read_manifest, write_run
from rayseg.training import ClassifierScores, predict_logits, train_epoch

WEIGHTS = "classifier.safetensors"
STATE = "state.safetensors"
MAX_EVALUATED = 1000
"""Images that each epoch is judged on; enough for a mean average precision within a point."""

logger = logging.getLogger(__name__)


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

    A training that was stopped goes on after its last whole epoch. The state is a safetensors file
    of ours that appears whole or not at all, not a Ray checkpoint: one that is reported just
    before a crash can be lost (RAY.md 2).
    """
    compute = config.compute
    threads = compute.threads or max(count_cores() // compute.workers, 1)
    run = Folder(config.run)
    classifier = _with_absolute_weights(config.classifier)
    manifest = read_manifest(run / "manifest")
    # what is wrong with weights, tags or batch size is said here, not by each worker in turn
    _build(classifier, len(manifest.classes))
    crops = _crops(manifest, config.train_split, classifier)
    EpochOrder(len(crops), classifier.batch_size, 0, classifier.seed, 0, compute.workers)
    work = _Work(run.location, config.train_split, classifier, threads, compute.loader_workers)
    folder = run / "classifier"
    preflight("training", compute.workers, 0 if gpus_each else 1, gpus_each)
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config=asdict(work) | {"classifier": classifier},
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
    return _load_state(folder).epochs


def _train_worker(settings: dict[str, Any]) -> None:
    work = _Work(**settings)
    torch.set_num_threads(work.threads)
    context = ray.train.get_context()
    config, folder = work.classifier, Folder(work.run) / "classifier"
    manifest = read_manifest(Folder(work.run) / "manifest")
    crops = _crops(manifest, work.split, config)
    network = _build(config, len(manifest.classes)).to(get_device())
    state = _load_state(folder)
    optimizer = config.schedule.optimizer(network)
    state.restore(network, optimizer)
    model = prepare_model(network) if context.get_world_size() > 1 else network
    for epoch in range(len(state.epochs), config.epochs):
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
        loss = _mean_over_workers(sum(losses) / len(losses))
        figures: dict[str, Any] = {"epoch": epoch + 1, "loss": loss}
        if context.get_world_rank() == 0:
            figures |= _evaluate(network, manifest, work)
            figures["seconds"] = time.perf_counter() - start
            state.epochs.append(figures)
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


def _with_absolute_weights(config: ClassifierConfig) -> ClassifierConfig:
    """The same weights for workers, which start in another folder."""
    path = Path(config.weights)
    return replace(config, weights=str(path.absolute())) if path.is_file() else config


def _on_device(batches: Iterable[Any]) -> Iterable[Any]:
    device = get_device()
    for images, targets in batches:
        yield (
            images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last),
            targets.to(device, non_blocking=True),
        )


def _mean_over_workers(value: float) -> float:
    """The mean of what each worker has, since a loss is that of its share of each batch only."""
    total = torch.tensor(value, device=get_device())
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
        total /= torch.distributed.get_world_size()
    return total.item()


def _evaluate(network: nn.Module, manifest: Manifest, work: _Work) -> dict[str, Any]:
    """Mean average precision and F1 on split ``val`` where there is one, else on the training's."""
    split = "val" if "val" in manifest.table.column("split").to_pylist() else work.split
    crops = _crops(manifest, split, work.classifier)
    crops.samples = crops.samples[:MAX_EVALUATED]
    batches = evaluation_batches(crops, work.classifier.batch_size, work.loader_workers)
    scores = ClassifierScores.of(*predict_logits(network, _on_device(batches)))
    return {"map": scores.mean_average_precision, "f1": scores.f1, "judged_on": split}


@dataclass
class _State:
    """A training after some whole epochs: figures, weights, momentum."""

    epochs: list[dict[str, Any]]
    tensors: dict[str, torch.Tensor]

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if not self.tensors:
            return
        weights = {k[8:]: v for k, v in self.tensors.items() if k.startswith("network.")}
        network.load_state_dict(weights)
        momenta = {k[9:]: v for k, v in self.tensors.items() if k.startswith("momentum.")}
        for name, parameter in network.named_parameters():
            if name in momenta:
                buffer = momenta[name].to(parameter.device)
                optimizer.state[parameter]["momentum_buffer"] = buffer

    def save(self, folder: Folder, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
        for name, parameter in network.named_parameters():
            momentum = optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        plain = {key: value.contiguous().cpu() for key, value in tensors.items()}
        folder.write(STATE, save(plain, metadata={"epochs": json.dumps(self.epochs)}))


def _load_state(folder: Folder) -> _State:
    if not folder.exists(STATE):
        return _State([], {})
    path = local_copy(folder.path(STATE))
    with safe_open(path, "pt") as file:
        epochs = json.loads(file.metadata()["epochs"])
    return _State(epochs, load_file(path))


def write_figures(folder: Folder, epochs: list[dict[str, Any]]) -> None:
    """Puts the figures of a finished training beside its weights."""
    seconds = sum(epoch["seconds"] for epoch in epochs)
    write_run(folder, {"epochs": epochs, "seconds": seconds, "done": True})
    folder.delete(STATE)
    (folder / "ray").remove()
