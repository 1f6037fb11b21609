"""The training of DSRG: a segmenter whose labels grow while it trains.

Huang et al., *Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region Growing*,
CVPR 2018; dissertation 2.3.2, METHODS 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from rayseg.labels import Cues
from rayseg.learn.batches import LabelledCrops, labelled_batches
from rayseg.learn.crops import DEVIATION_RGB, MEAN_RGB, WarpedImages
from rayseg.learn.deeplab import DeepLabTraining
from rayseg.learn.order import DrawOrder
from rayseg.learn.schedules import StepSGD
from rayseg.learn.training import Batch, LearnsFrom, Share, Work
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import Trunk
from rayseg.nets.branched_head import BranchedHead
from rayseg.nets.deeplab import Segmenter
from rayseg.nets.losses import labels_on_grid
from rayseg.nets.seed_memory import SeedMemory
from rayseg.nets.seeding_losses import boundary_loss, log_probabilities, seed_loss
from rayseg.records import IGNORE, Sample
from rayseg.refine import SeededGrowing, SegmenterCRF


@dataclass(frozen=True)
class Cued:
    """The labels of a batch of images.

    Attributes:
        cues: at the images' size, 255 where there is none.
        classes: indices of each image's classes.
        numbers: of the images, in the order of the training's list.
        places: of the images in the batch of all workers.
        mirrored: whether an image is.
    """

    cues: UInt8[Tensor, "n s s"]
    classes: list[tuple[int, ...]]
    numbers: list[int]
    places: list[int]
    mirrored: list[bool]


@dataclass(frozen=True)
class DSRGTraining(DeepLabTraining):
    """A segmenter and its training on cues that grow.

    The defaults are the authors' code (official, METHODS 8). The preset ``as_written`` is the
    dissertation to the letter: seeds stay grown, and the boundary loss looks at foreground's seeds.
    Not reproduced of that code: in its growing a sure prediction of another class hides a seed,
    which stays one but anchors no region; its CRF takes probabilities where their logarithms
    belong; its VGG-16 keeps pool4 and pool5 with stride 1. The gradient through the CRF is the
    code's: it divides by H, which is (1 - Q) times the gradient over log H.

    Ours, without a source: the thresholds of cues, which are those at which `label_crf` reads the
    same maps; the authors cut CAM's maps off and take background from a saliency detector.

    Attributes:
        weights: Where the trunk starts: none, a torchvision weight set such as IMAGENET1K_V1, a
            path, or classifier for the trunk of the run's own.
        batch_norm: Batch normalisation of the trunk: frozen keeps statistics, scale and shift of
            the weights; trained learns them; auto freezes them where there are weights.
        head_width: Channels inside the head of deeplab_v2_fc.
        batch_size: Images in each step, over all workers.
        crops: How images are brought to one size.
        schedule: Settings of the optimiser.
        cues: Value of a map above which a pixel is a cue of its class, and value that no map
            exceeds where it is one of background. Empty takes the thresholds of the maps' method;
            masks are cues as they are.
        growing: How seeds grow.
        seeds: Seeds begin with the cues at each visit of an image (restart), or with what they had
            grown to at the last one (accumulate).
        crf: The CRF inside the training, on images of the size of the logits.
        boundary: Cells of the boundary loss: all of them, or the seeds of foreground.
        through_crf: The boundary loss changes the network through the CRF as well.
        precision: Number format of the activations; auto is bf16 where the device is fast in it.
        log_every: Steps between two entries of the loss curve.
        save_every: Steps between two checkpoints, the most that a lost worker costs.
        judge_images: Images of the val split on which it is judged every save_every steps and at
            the end; 0 for none.
        seed: Seed of the head, the order and what is mirrored or left out.
    """

    network: Literal["deeplab_v2", "deeplab_v2_fc", "deeplab_v3"] = "deeplab_v2_fc"
    trunk: Trunk = "vgg16"
    iterations: int = 8000
    batch_size: int = 20
    head_width: int = 1024
    crops: WarpedImages = WarpedImages()
    schedule: StepSGD = StepSGD()
    cues: tuple[float, ...] = ()
    growing: SeededGrowing = SeededGrowing()
    seeds: Literal["restart", "accumulate"] = "restart"
    crf: SegmenterCRF = SegmenterCRF(
        gaussian_sxy=3 / 12,
        gaussian_compat=3,
        bilateral_sxy=80 / 12,
        bilateral_srgb=13,
        bilateral_compat=10,
    )
    boundary: Literal["all", "seeds"] = "all"
    through_crf: bool = True

    makes: ClassVar[str] = "dsrg"
    field: ClassVar[str] = "dsrg"
    learns_from: ClassVar[LearnsFrom] = "cues"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(head_width=1)
        if self.cues and not (len(self.cues) == 2 and 1 >= self.cues[0] >= self.cues[1] >= 0):
            raise ValueError(f"cues must be two values that descend in [0, 1], got {self.cues}")

    @classmethod
    def as_written(cls) -> DSRGTraining:
        """The dissertation to the letter."""
        return replace(cls(), seeds="accumulate", boundary="seeds")

    @property
    def width(self) -> int:
        """Channels inside the head of deeplab_v2_fc."""
        return self.head_width

    def reading(self, labels: Any) -> Any:
        """Maps are read off at the thresholds of cues."""
        assert isinstance(labels, Cues)
        return labels.sure(*self.cues) if labels.of_maps else labels

    def order(self, num_images: int, first_step: int, rank: int, world: int) -> DrawOrder:
        """A worker's draws from a step on."""
        return DrawOrder(
            num_images, self.batch_size, first_step, self.iterations, self.seed, rank, world
        )

    def check(self, num_images: int, workers: int) -> None:
        """Refuses batches that the workers cannot share, or too small for deeplab_v3."""
        self.order(num_images, 0, 0, workers)
        self._check_share(self.batch_size // workers)

    def build(self, classes: Sequence[str]) -> Segmenter:
        """The segmenter before its first step."""
        network = super().build(classes)
        if self.seeds == "accumulate":
            network.memory = SeedMemory()
        return network

    def stored(self, network: nn.Module) -> nn.Module:
        """The segmenter without the seeds of its training."""
        if hasattr(network, "memory"):
            del network.memory
        return network

    def reseed(self, network: nn.Module, step: int, worker: Worker) -> None:
        """Several workers leave out together what one leaves out."""
        super().reseed(network, step, worker)
        assert isinstance(network, Segmenter)
        if isinstance(network.head, BranchedHead):
            network.head.reseed(self.seed, step, worker.rank, worker.world)
        if self.seeds == "accumulate":
            assert isinstance(network.memory, SeedMemory)
            # a method would have copies of the network copy the worker
            network.memory.gather = lambda share: worker.gather(share)  # noqa: PLW0108

    def batches(
        self, work: Work, samples: Sequence[Sample], first_step: int, worker: Worker
    ) -> Iterator[Batch]:
        """Warped images with their cues and classes."""
        crops = LabelledCrops(samples, work.labels, self.crops, self.seed)
        order = self.order(len(samples), first_step, worker.rank, worker.world)
        numbers = {sample.id: number for number, sample in enumerate(samples)}
        loader = labelled_batches(crops, order, work.loader_workers)
        for (images, cues, ids), keys in zip(loader, order, strict=True):
            draws = [np.random.default_rng([self.seed, draw]) for draw, _ in keys]
            yield (
                images.to(worker.device, non_blocking=True).contiguous(
                    memory_format=torch.channels_last
                ),
                Cued(
                    cues,
                    [samples[numbers[id_]].tags for id_ in ids],
                    [numbers[id_] for id_ in ids],
                    [draw % self.batch_size for draw, _ in keys],
                    [self.crops.mirrored(generator) for generator in draws],
                ),
                list(ids),
            )

    def losses(self, model: nn.Module, batch: Batch, dtype: torch.dtype) -> Mapping[str, Share]:
        """The loss of the grown seeds and that of boundaries, means over images.

        The CRF runs on the CPU, image by image.
        """
        images, cued, _ = batch
        with torch.autocast(images.device.type, dtype, dtype != torch.float32):
            (logits,) = model(images)
        logs = log_probabilities(logits)
        refined = self.refined(images, logs)
        memory = getattr(getattr(model, "module", model), "memory", None)
        seeds = self.grown(refined, cued, memory).to(images.device)
        planes = torch.from_numpy(refined).to(logs)
        over = seeds if self.boundary == "seeds" else None
        parts = {
            "loss_seeds": seed_loss(logs, seeds),
            "loss_boundary": boundary_loss(logs, planes, over, self.through_crf),
        }
        number = torch.tensor([len(images)], device=images.device)
        return {name: Share(one.sum()[None], number) for name, one in parts.items()}

    def refined(
        self, images: Float[Tensor, "n 3 s s"], logs: Float[Tensor, "n l h w"]
    ) -> Float[np.ndarray, "n l h w"]:
        """Q: what the CRF makes of H, each image at the size of the logits.

        The small image has the large one's pixels on a grid whose corners are its own, without
        smoothing, as scipy's zoom of order 1 gives the authors' code.
        """
        planes = logs.detach().exp().float().cpu().numpy()
        if not np.isfinite(planes).all():
            return planes  # the loop names what is no number
        small = functional.interpolate(
            images.detach().float(), logs.shape[2:], mode="bilinear", align_corners=True
        )
        levels = small.permute(0, 2, 3, 1).cpu().numpy() * DEVIATION_RGB + MEAN_RGB
        pixels = np.rint(levels * 255).clip(0, 255).astype(np.uint8)
        pairs = zip(pixels, planes, strict=True)
        return np.stack([self.crf.probabilities(image, one) for image, one in pairs])

    def grown(
        self, refined: Float[np.ndarray, "n l h w"], cued: Cued, memory: SeedMemory | None = None
    ) -> UInt8[Tensor, "n h w"]:
        """The seeds of each image after growing, on the logits' grid."""
        seeds = labels_on_grid(cued.cues.cpu(), (refined.shape[2], refined.shape[3]))
        if memory:
            visits = zip(cued.numbers, cued.mirrored, seeds, strict=True)
            seeds = torch.stack([memory.recall(*visit) for visit in visits])
        triples = zip(refined, seeds.numpy(), cued.classes, strict=True)
        grown = [torch.from_numpy(self._grown_in(*triple)) for triple in triples]
        if memory:
            memory.keep(zip(cued.places, cued.numbers, cued.mirrored, grown, strict=True))
        return torch.stack(grown)

    def _grown_in(
        self,
        planes: Float[np.ndarray, "l h w"],
        seeds: UInt8[np.ndarray, "h w"],
        classes: Sequence[int],
    ) -> UInt8[np.ndarray, "h w"]:
        """The seeds of one image after growing, one a cell."""
        labels = np.arange(len(planes))
        present = np.isin(labels, [one + 1 for one in classes])
        grown = self.growing(planes, seeds == labels[:, None, None], present)
        return np.where(grown.any(0), grown.argmax(0), IGNORE).astype(np.uint8)
