"""Distributed training of detectors and of Mask R-CNNs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import nn

from rayseg.config import Compute
from rayseg.config.objects import (
    DetectorConfig,
    MaskRCNNConfig,
    TrainDetectorConfig,
    TrainMaskRCNNConfig,
)
from rayseg.labels import GivenBoxes, ObjectLabels, TrueInstances, bad_boxes
from rayseg.learn import DrawOrder, ObjectImages, ObjectSteps, Workers, object_batches
from rayseg.learn.object_steps import ObjectBatch, lower_precision
from rayseg.nets.backbones import FloatDepthwise, freeze_normalisation, keep_depthwise_float
from rayseg.nets.detection import Detector
from rayseg.nets.detectors import DetectorDesign, Learning, build_detector, taken_from
from rayseg.nets.detectors.design import MaskLearning, MaskRCNNDesign
from rayseg.nets.detectors.mask_rcnn import MaskRCNN
from rayseg.nets.detectors.one_stage import OneStage
from rayseg.nets.detectors.pyramid import Pyramid
from rayseg.nets.detectors.two_stage import FasterRCNN
from rayseg.nets.inputs import choose_dtype
from rayseg.nets.registry import NETWORKS
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.object_scoring import true_instances
from rayseg.on_ray.train import (
    Course,
    absolute_weights,
    add_over_workers,
    failures_told,
    gather_over_workers,
    has_failed,
    launch_told,
    load_state,
    refuse_others,
    threads_of_worker,
    training_samples,
)
from rayseg.records.images import ImageError, decode_image
from rayseg.records.rle import encode_mask
from rayseg.scores import ObjectGuesses, ObjectTruths, average_precision
from rayseg.store import Folder, local_copy, read_file, read_manifest

MAX_NAMED = 50
"""Boxes left out of a training that its run.json names; all are counted."""
JUDGED = ("ap", "ap50", "ap75")
"""Average precisions that stand beside each checkpoint."""
ObjectNetwork = FasterRCNN | OneStage | MaskRCNN


@dataclass(frozen=True)
class ObjectWork:
    """What a training worker is told.

    Attributes:
        run: the run's folder.
        folder: of the network.
        source: of boxes and masks.
        ids: of the images to train on, in the order that draws count in.
        val_split: the images that checkpoints are judged on.
        training: the network and how it is trained.
        threads: CPU threads of a worker.
        loader_workers: processes that decode ahead for each worker.
    """

    run: str
    folder: str
    source: ObjectLabels
    ids: list[str]
    val_split: str
    training: DetectorConfig | MaskRCNNConfig
    threads: int
    loader_workers: int

    def order(self, first_step: int, rank: int, world: int) -> DrawOrder:
        """This worker's draws from a step on."""
        config = self.training
        return DrawOrder(
            len(self.ids), config.batch_size, first_step, config.iterations, config.seed, rank,
            world,
        )  # fmt: skip

    def network(self, classes: Sequence[str]) -> ObjectNetwork:
        """The network before its first step; the same on every worker."""
        torch.manual_seed(self.training.seed)  # the heads' random start
        network = _build(self.training, tuple(classes))
        return freeze_normalisation(network) if self.training.frozen_statistics else network


def _build(config: DetectorConfig | MaskRCNNConfig, classes: tuple[str, ...]) -> ObjectNetwork:
    weights = local_copy(config.weights)
    if isinstance(config, MaskRCNNConfig):
        return MaskRCNN(
            taken_from(config, MaskRCNNDesign, classes=classes),
            taken_from(config, MaskLearning, weights=weights),
        )
    return build_detector(
        taken_from(config, DetectorDesign, classes=classes),
        taken_from(config, Learning, weights=weights),
    )


def fit_detector(config: TrainDetectorConfig, gpus: float) -> dict[str, Any]:
    """Trains on Ray and leaves the weights in the run's detector folder; what was measured.

    A training that was stopped goes on after its last checkpoint.

    Returns:
        Facts of the training: the curve of losses, what checkpoints were judged at, seconds, the
        number of images, and the boxes that were left out.

    Raises:
        ValueError: no image has a box; weights, batch size or cluster do not fit.
        FloatingPointError: the loss is not finite.
        ChildProcessError: a worker failed for a reason that a new start does not change, or
            workers were lost too often.
    """
    run = Folder(config.run)
    source = GivenBoxes(run / "manifest", config.train_split, config.detector.keep_empty)
    if not source.ids:
        raise ValueError(
            f"no image of split {config.train_split!r} has a box to train on"
            f"{_first_problem(run, config.train_split)}"
        )
    return _fit(config, run / "detector", source, config.detector, gpus)


def fit_mask_rcnn(
    config: TrainMaskRCNNConfig, folder: Folder, source: ObjectLabels, gpus: float
) -> dict[str, Any]:
    """Trains on Ray and leaves the weights in the folder; as `fit_detector` has it.

    On true masks, which leave nothing in doubt, it is the ordinary Mask R-CNN.
    """
    training = config.mask_rcnn
    if isinstance(source, TrueInstances):
        training = replace(training, grow=False, mask_loss="plain")
    return _fit(config, folder, source, training, gpus)


def _fit(
    config: TrainDetectorConfig | TrainMaskRCNNConfig,
    folder: Folder,
    source: ObjectLabels,
    training: DetectorConfig | MaskRCNNConfig,
    gpus: float,
) -> dict[str, Any]:
    run, compute = Folder(config.run), config.compute
    manifest = read_manifest(run / "manifest")
    chosen = manifest.select(config.train_split)
    listed = [id_ for id_ in chosen.table.column("id").to_pylist() if id_ in source.ids]
    if not listed:
        raise ValueError(f"no image of split {config.train_split!r} has objects in the labels")
    training = replace(training, weights=absolute_weights(training.weights))
    work = ObjectWork(
        run.location, folder.location, source, listed, config.val_split, training,
        threads_of_worker(compute), compute.loader_workers,
    )  # fmt: skip
    _check(work, manifest.classes, compute)
    refuse_others(folder, listed)
    launch_told(_train_worker, {"work": work}, folder, compute, gpus)
    facts = load_state(folder).facts
    # the images that a Mask R-CNN does without lack masks, whatever their boxes are
    asked = chosen if isinstance(source, GivenBoxes) else chosen.select(ids=listed)
    problems = list(bad_boxes(asked.samples()))
    examples = [{"id": id_, "reason": reason} for id_, reason in problems[:MAX_NAMED]]
    return {
        **{name: facts[name] for name in ("curve", "judged", "seconds")},
        "images": len(listed),
        "images_left_out": chosen.table.num_rows - len(listed),
        "left_out": {"count": len(problems), "examples": examples},
    }


def _check(work: ObjectWork, classes: Sequence[str], compute: Compute) -> None:
    """Says what is wrong with weights or batch size here, and not by each worker in turn."""
    work.network(classes)
    work.order(0, 0, compute.workers)


def _first_problem(run: Folder, split: str) -> str:
    samples = read_manifest(run / "manifest").select(split).samples()
    return "".join(f"; that of {id_}: {why}" for id_, why in islice(bad_boxes(samples), 1))


def _train_worker(settings: dict[str, Any]) -> None:
    work: ObjectWork = settings["work"]
    folder = Folder(work.folder)
    if has_failed(folder):
        return
    torch.set_num_threads(work.threads)
    name = "mask_rcnn" if isinstance(work.training, MaskRCNNConfig) else "detector"
    with failures_told(folder, f"{name}.schedule.lr"):
        classes = read_manifest(Folder(work.run) / "manifest").classes
        network = _trained(work, classes)
        if ray.train.get_context().get_world_rank() == 0:
            _write_weights(folder, network)


def _write_weights(folder: Folder, network: ObjectNetwork) -> None:
    kind = "mask_rcnn" if isinstance(network, MaskRCNN) else "detector"
    folder.write(NETWORKS[kind].file, to_safetensors(network, network.design.facts))


def _trained(work: ObjectWork, classes: Sequence[str]) -> ObjectNetwork:
    """The network after its last step."""
    context, config, device = ray.train.get_context(), work.training, get_device()
    rank, world = context.get_world_rank(), context.get_world_size()
    network = work.network(classes).to(device)
    if device.type == "cpu":
        keep_slow_float(network)
    else:  # on a CPU it costs a copy of every gradient
        network = network.to(memory_format=torch.channels_last)
    dtype = choose_dtype(config.precision, device)
    course = Course.resumed(
        Folder(work.folder), network, config.schedule.optimizer(network),
        (config.iterations, config.log_every, config.save_every),
        lambda: _judge(network, work, dtype, course.iteration == config.iterations), work.ids,
    )  # fmt: skip
    model: nn.Module = network
    if world > 1:
        # a batch whose objects have no mask, or are found by no proposal, leaves heads out
        kept = {"find_unused_parameters": True, "broadcast_buffers": not config.frozen_statistics}
        model = prepare_model(network, parallel_strategy_kwargs=kept)
    model.train()
    steps = ObjectSteps(config.schedule, config.iterations, dtype, config.seed, rank)
    losses = steps.run(
        model, course.optimizer, _batches(work, course.iteration, rank, world), course.iteration,
        Workers(world, add_over_workers), _lowered(network),
    )  # fmt: skip
    course.follow(losses)
    return network


def keep_slow_float(network: nn.Module) -> None:
    """Keeps what a CPU does slowly or wrongly in bf16 in float32, parameters and names unchanged.

    The gradient of a strided 3x3 convolution's weights is not set at all where its input is a
    single cell, as the coarsest level of a one-stage detector is for images of 64 pixels.
    """
    keep_depthwise_float(network)
    for pyramid in _lowered(network):
        for module in pyramid.get_submodule("extra").modules():
            if type(module) is nn.Conv2d:
                module.__class__ = FloatDepthwise


def _lowered(network: nn.Module) -> list[nn.Module]:
    """The parts that compute in low precision: trunk and pyramid, where the time goes."""
    return [module for module in network.modules() if isinstance(module, Pyramid)]


def _batches(work: ObjectWork, first_step: int, rank: int, world: int) -> Iterator[ObjectBatch]:
    device, config = get_device(), work.training
    samples = training_samples(Folder(work.run), work.ids)
    images = ObjectImages(samples, work.source, config.flip, config.seed)
    order = work.order(first_step, rank, world)
    for planes, targets, ids in object_batches(images, order, work.loader_workers):
        yield (
            [plane.to(device, non_blocking=True) for plane in planes],
            [{name: part.to(device) for name, part in target.items()} for target in targets],
            ids,
        )


def _judge(
    network: ObjectNetwork, work: ObjectWork, dtype: torch.dtype, last: bool
) -> dict[str, Any]:
    """Average precisions on images of the val split; empty without any with objects.

    On some of them, but at the last checkpoint of a detector on all, since no job predicts by it
    and scores that. Those of a Mask R-CNN are of masks where all of these images' objects have a
    true one, and called box_ap where they are not. All workers look at their share and get the
    figures of all.
    """
    truths, paths, num_classes = _judged_images(work, last and isinstance(network, Detector))
    if not truths:
        return {}
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    network.eval()
    try:
        with torch.no_grad(), lower_precision(_lowered(network), dtype):
            own = {
                id_: found
                for id_ in list(truths)[rank::world]
                if (found := _guessed(network, paths[id_])) is not None
            }
    finally:
        network.train()
    guesses = {id_: one for share in gather_over_workers(own) for id_, one in share.items()}
    judged = {id_: truths[id_] for id_ in guesses}
    if not judged:
        return {}
    boxes = average_precision(judged, guesses, num_classes, "boxes").as_dict()
    if isinstance(network, Detector):
        return {name: boxes[name] for name in JUDGED} | {"images": len(judged)}
    figures = {f"box_{name}": boxes[name] for name in JUDGED}
    if all(one.masks and all(one.masks) for one in judged.values() if len(one.classes)):
        masks = average_precision(judged, guesses, num_classes, "masks").as_dict()
        figures |= {name: masks[name] for name in JUDGED}
    return figures | {"images": len(judged)}


def _judged_images(
    work: ObjectWork, everything: bool
) -> tuple[dict[str, ObjectTruths], dict[str, str], int]:
    """True objects and paths of the images that are judged on, by id; the number of classes."""
    with_masks = isinstance(work.training, MaskRCNNConfig)
    manifest = read_manifest(Folder(work.run) / "manifest", true_masks=with_masks)
    number, wanted = len(manifest.classes), work.training.judge_images
    if not wanted or work.val_split not in manifest.table.column("split").to_pylist():
        return {}, {}, number
    ids = manifest.select(work.val_split).table.column("id").to_pylist()
    step = 1 if everything else -(-len(ids) // wanted)
    chosen = manifest.select(work.val_split, ids[::step])
    truths = true_instances(chosen)
    if not any(len(one.classes) for one in truths.values()):
        return {}, {}, number
    return truths, {sample.id: sample.path for sample in chosen.samples()}, number


def _guessed(network: ObjectNetwork, path: str) -> ObjectGuesses | None:
    """The objects that a network finds in an image; None where it cannot be read."""
    try:
        pixels = decode_image(read_file(path)).pixels
    except ImageError:
        return None  # what is wrong with it is said when predictions are made
    images = torch.from_numpy(pixels[None].copy()).to(get_device())
    masks = np.zeros((0, *pixels.shape[:2]), bool)
    if isinstance(network, Detector):
        found = network.detect(images)[0]
        boxes, classes, scores = found.boxes_xyxy, found.classes, found.scores
    else:
        boxes, classes, scores, drawn = network.predict(images)[0]
        masks = drawn.cpu().numpy()
    return ObjectGuesses(
        boxes_xyxy=boxes.float().cpu().numpy(),
        classes=classes.cpu().numpy().astype(np.int64),
        scores=scores.float().cpu().numpy(),
        masks=tuple(encode_mask(mask) for mask in masks),
    )
