"""What the trainings of networks that find objects share: detectors' and Mask R-CNNs'."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from rayseg.labels import true_instances
from rayseg.learn.classifier import Frozen
from rayseg.learn.object_batches import ObjectImages, object_batches
from rayseg.learn.order import DrawOrder
from rayseg.learn.precision import lower_precision
from rayseg.learn.schedules import DetectorSGD
from rayseg.learn.training import Batch, Length, Training, Work
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import FloatDepthwise, PyramidTrunk, keep_depthwise_float
from rayseg.nets.detectors.pyramid import Pyramid
from rayseg.nets.inputs import choose_dtype
from rayseg.records import Sample
from rayseg.records.images import ImageError
from rayseg.scores import ObjectGuesses, ObjectTruths
from rayseg.store import read_manifest, read_pixels

JUDGED = ("ap", "ap50", "ap75")
"""Average precisions beside each checkpoint."""


@dataclass(frozen=True)
class ObjectTraining(Training):
    """What detectors and Mask R-CNNs have in common.

    The defaults are those of BBAM's public configuration (METHODS 9), whose ImageNet weights are
    MSRA's and not torchvision's. Ours, without a source: `log_every`, `save_every` and
    `judge_images`. The text gives no constants, so that there is no preset ``as_written``.

    Attributes:
        trunk: Network below the feature pyramid, named as one of the classifiers.
        weights: Where the trunk starts: none, a torchvision weight set such as IMAGENET1K_V1, a
            path, or classifier for the trunk of the run's own.
        batch_norm: Batch normalisation of the trunk: frozen keeps statistics, scale and shift of
            the weights; trained learns them; auto freezes them where there are weights.
        freeze: The last stage of the trunk that does not train, where it has weights: none, stem,
            stage1 to stage4.
        upsample: Upsampling of the pyramid: bilinear as BBAM, nearest as torchvision.
        channels: Channels of the pyramid's levels.
        width: Width of the box head's hidden layers; detectors of one stage have none.
        anchors: Sides of the anchors in input pixels, one for each level of the pyramid. Detectors
            of one stage have torchvision's.
        regions: Proposals of each image that the heads of two stages learn from.
        min_sides: The shorter side of a training image is resized to one of these, drawn for each.
        test_side: The shorter side of any other image is resized to this, in pixels.
        max_side: No longer side is resized beyond this, in pixels, whatever the shorter side's is.
        flip: Half of the images are mirrored.
        iterations: Number of training steps.
        batch_size: Images in each step, over all workers.
        schedule: Settings of the optimiser.
        precision: Number format of trunk and pyramid; auto is bf16 where the device is fast in it.
            Boxes and losses are float32.
        log_every: Steps between two entries of the loss curve.
        save_every: Steps between two checkpoints, the most that a lost worker costs.
        judge_images: Images of the val split on which it is judged every save_every steps, a
            detector at the end on all; 0 for none.
        seed: Seed of the heads, the order, the mirroring and the network's draws.
    """

    trunk: PyramidTrunk = "resnet101"
    freeze: Frozen = "stage1"
    upsample: Literal["bilinear", "nearest"] = "bilinear"
    channels: int = 256
    width: int = 1024
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    regions: int = 512
    min_sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    test_side: int = 800
    max_side: int = 1333
    flip: bool = True
    iterations: int = 18_000
    batch_size: int = 16
    schedule: DetectorSGD = DetectorSGD()
    save_every: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("iterations", "test_side", "max_side", "channels", "width", "regions")
        self._check_least(**dict.fromkeys(names, 1))
        for name in ("min_sides", "anchors"):
            sides = getattr(self, name)
            if not sides or min(sides) < 1:
                raise ValueError(f"{name} must be one or more numbers from 1, got {sides}")

    with_masks: ClassVar[bool]
    """Whether true masks of objects are looked at when it is judged."""
    judges_all_at_last: ClassVar[bool] = False
    """Whether the last checkpoint is judged on the whole split."""

    @property
    def wrapping(self) -> dict[str, Any]:
        """A batch whose objects have no mask, or are found by no proposal, leaves heads out."""
        return {"find_unused_parameters": True} | super().wrapping

    def length(self, num_images: int) -> Length:
        """So many iterations, whatever the images."""
        return Length(self.iterations, max(num_images // self.batch_size, 1))

    def order(self, num_images: int, first_step: int, rank: int, world: int) -> DrawOrder:
        """A worker's draws from a step on."""
        return DrawOrder(
            num_images, self.batch_size, first_step, self.iterations, self.seed, rank, world
        )

    def check(self, num_images: int, workers: int) -> None:
        """Refuses batches that the workers cannot share."""
        self.order(num_images, 0, 0, workers)

    def place_on(self, device: torch.device, network: nn.Module) -> nn.Module:
        """Channels last on a GPU; on a CPU that costs a copy of every gradient."""
        network = network.to(device)
        if device.type == "cpu":
            keep_slow_float(network)
            return network
        return network.to(memory_format=torch.channels_last)

    def batches(
        self, work: Work, samples: Sequence[Sample], first_step: int, worker: Worker
    ) -> Iterator[Batch]:
        """Whole images with their objects."""
        images = ObjectImages(samples, work.labels, self.flip, self.seed)
        order = self.order(len(samples), first_step, worker.rank, worker.world)
        device = worker.device
        for planes, targets, ids in object_batches(images, order, work.loader_workers):
            yield (
                [plane.to(device, non_blocking=True) for plane in planes],
                [{name: part.to(device) for name, part in one.items()} for one in targets],
                ids,
            )

    def losses(self, model: nn.Module, batch: Batch, dtype: torch.dtype) -> Mapping[str, Tensor]:
        """The network's own, each a mean over this worker's share.

        The shares being of one size, the mean over workers is that over the whole batch where a
        loss is a mean over images. torchvision's draw the anchors and proposals that they look at:
        other draws for two workers than for one, though of equal chances.
        """
        images, targets, _ = batch
        planes = [image.float() / 255 for image in images]
        with lower_precision(lowered(model), dtype):
            parts: dict[str, Tensor] = model(planes, targets)
        return parts

    def facts(self, network: nn.Module, classes: Sequence[str]) -> Mapping[str, object]:
        """What `load_detector` and `load_mask_rcnn` need beside the tensors."""
        return network.design.facts  # type: ignore[return-value,union-attr]

    def limit_gradients(self, model: nn.Module) -> None:
        """Scales long gradients down, where that is asked for."""
        if self.schedule.max_norm:
            nn.utils.clip_grad_norm_(model.parameters(), self.schedule.max_norm)

    def judge(self, network: nn.Module, work: Work, worker: Worker, last: bool) -> dict[str, Any]:
        """Average precisions on images of the val split; empty without any with objects."""
        truths, samples = self._judged(work, last and self.judges_all_at_last)
        if not truths:
            return {}
        dtype = choose_dtype(self.precision, worker.device)
        network.eval()
        try:
            with torch.no_grad(), lower_precision(lowered(network), dtype):
                own = {
                    id_: found
                    for id_ in list(truths)[worker.rank :: worker.world]
                    if (found := self._guessed(network, samples[id_], worker.device)) is not None
                }
        finally:
            network.train()
        guesses = {id_: one for share in worker.gather(own) for id_, one in share.items()}
        judged = {id_: truths[id_] for id_ in guesses}
        if not judged:
            return {}
        return self.figures(judged, guesses, len(work.classes)) | {"images": len(judged)}

    @abstractmethod
    def figures(
        self, truths: dict[str, ObjectTruths], guesses: dict[str, ObjectGuesses], num_classes: int
    ) -> dict[str, Any]:
        """What the network is judged by, from truths and guesses of the same images."""

    @abstractmethod
    def guess(self, network: nn.Module, images: UInt8[Tensor, "1 h w 3"]) -> ObjectGuesses:
        """The objects that the network finds in one image."""

    def _judged(
        self, work: Work, everything: bool
    ) -> tuple[dict[str, ObjectTruths], dict[str, Sample]]:
        """True objects and samples of the images that are judged on, by id."""
        manifest = read_manifest(work.manifest, true_masks=self.with_masks)
        wanted = self.judge_images
        if not wanted or work.val_split not in manifest.table.column("split").to_pylist():
            return {}, {}
        ids = manifest.select(work.val_split).table.column("id").to_pylist()
        step = 1 if everything else -(-len(ids) // wanted)
        chosen = manifest.select(work.val_split, ids[::step])
        truths = true_instances(chosen)
        if not any(len(one.classes) for one in truths.values()):
            return {}, {}
        return truths, {sample.id: sample for sample in chosen.samples()}

    def _guessed(
        self, network: nn.Module, sample: Sample, device: torch.device
    ) -> ObjectGuesses | None:
        """The objects that a network finds in an image; None where it cannot be read."""
        try:
            pixels = read_pixels(sample)
        except ImageError:
            return None  # the predictions name what is wrong with it
        return self.guess(network, torch.from_numpy(pixels[None].copy()).to(device))

    @classmethod
    def summary(cls, facts: Mapping[str, Any]) -> str:
        """The last loss, the numbers of iterations and images, and what it was judged at last."""
        last, number = facts["curve"][-1], facts["images"]
        judged = "".join(
            f", val {name} {100 * value:.1f}"
            for one in facts["judged"][-1:]
            for name, value in one.items()
            if name.startswith("ap") and value is not None
        )
        return (
            f"loss {last['loss']:.3f} after {last['iteration']} iterations "
            f"on {number} of {number + facts['images_left_out']} images{judged}"
        )


def guesses_of(
    boxes_xyxy: Tensor, classes: Tensor, scores: Tensor, masks: tuple[bytes, ...] = ()
) -> ObjectGuesses:
    """What a network found in one image, as it is judged."""
    return ObjectGuesses(
        boxes_xyxy.float().cpu().numpy(),
        classes.long().cpu().numpy(),
        scores.float().cpu().numpy(),
        masks,
    )


def keep_slow_float(network: nn.Module) -> None:
    """Keeps what a CPU does slowly or wrongly in bf16 in float32, parameters and names unchanged.

    The gradient of a strided 3x3 convolution's weights is not set at all where its input is a
    single cell, as the coarsest level of a one-stage detector is for images of 64 pixels.
    """
    keep_depthwise_float(network)
    for pyramid in lowered(network):
        for module in pyramid.get_submodule("extra").modules():
            if type(module) is nn.Conv2d:
                module.__class__ = FloatDepthwise


def lowered(network: nn.Module) -> list[nn.Module]:
    """The parts that compute in low precision: trunk and pyramid, where the time goes."""
    return [module for module in network.modules() if isinstance(module, Pyramid)]
