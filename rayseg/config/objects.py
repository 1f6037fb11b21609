"""Detectors and Mask R-CNNs, how they are trained, and the jobs that do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayseg.config.base import JobConfig, SegmentersConfig
from rayseg.learn import DetectorSGD
from rayseg.nets.backbones import PyramidTrunk
from rayseg.nets.inputs import Precision
from rayseg.toml import check_literals

Frozen = Literal["none", "stem", "stage1", "stage2", "stage3", "stage4"]


@dataclass(frozen=True)
class ObjectTraining:
    """What detectors and Mask R-CNNs have in common.

    The defaults are those of BBAM's public configuration (METHODS 9), whose ImageNet weights are
    MSRA's and not torchvision's. Ours, for want of a source: `log_every`, `save_every` and
    `judge_images`. The text gives no constants, so that there is no preset ``as_written``.

    Attributes:
        trunk: what the feature pyramid stands on, one of the classifiers named.
        weights: of the trunk: none, a torchvision weight set such as IMAGENET1K_V1, a path, or
            classifier for the trunk of the run's own.
        batch_norm: of the trunk; frozen keeps statistics, scale and shift of the weights; trained
            learns them; auto freezes them where there are weights.
        freeze: the last stage of the trunk that does not train, where it has weights: none, stem,
            stage1 to stage4.
        upsample: of the pyramid's coarser levels: bilinear as BBAM, nearest as torchvision.
        channels: of the pyramid.
        width: of the box head's hidden layers; the detectors of one stage have none.
        anchors: sides of the anchors in input pixels, one a level of the pyramid; the detectors of
            one stage have torchvision's.
        regions: proposals of an image that the heads of two stages learn from.
        min_sides: the shorter side of a training image is resized to one of these, drawn for each.
        test_side: ... of other images to this,
        max_side: ... unless the longer side would exceed this.
        flip: half of the images are mirrored.
        iterations: steps of the training.
        batch_size: images of a step, over all workers.
        schedule: the optimiser.
        precision: of the activations of trunk and pyramid; auto is bf16 where the device is fast
            in it. Boxes and losses are float32.
        log_every: steps between two entries of the loss curve.
        save_every: steps between two checkpoints: the most that a lost worker costs.
        judge_images: images of the val split on which each checkpoint is judged, a detector's last
            one on all; 0 for none.
        seed: of the heads, the order, the mirroring and the draws of the network.
    """

    trunk: PyramidTrunk = "resnet101"
    weights: str = "IMAGENET1K_V1"
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
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
    precision: Precision = "auto"
    log_every: int = 20
    save_every: int = 1000
    judge_images: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_literals(self)
        for name in (
            "iterations", "batch_size", "log_every", "save_every", "test_side", "max_side",
            "channels", "width", "regions",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.judge_images < 0:
            raise ValueError(f"judge_images must be 0 or more, got {self.judge_images}")
        for name in ("min_sides", "anchors"):
            sides = getattr(self, name)
            if not sides or min(sides) < 1:
                raise ValueError(f"{name} must be one or more numbers from 1, got {sides}")

    @property
    def frozen_statistics(self) -> bool:
        """Whether the trunk's batch normalisation stays as it is."""
        return self.weights != "none" if self.batch_norm == "auto" else self.batch_norm == "frozen"


@dataclass(frozen=True)
class DetectorConfig(ObjectTraining):
    """A detector and its training.

    Attributes:
        first_level: of the pyramid, 2 at stride 4, which is as published; detectors of one stage
            begin at 3.
        kind: faster_rcnn, or of one stage retinanet or fcos. BBAM trained its RetinaNet at lr 0.005
            in batches of 8, on images of 800 only.
        keep_empty: images without an object are trained on as well.
    """

    kind: Literal["faster_rcnn", "retinanet", "fcos"] = "faster_rcnn"
    keep_empty: bool = False
    first_level: Literal[2, 3, 4] = 2


@dataclass(frozen=True)
class MaskRCNNConfig(ObjectTraining):
    """A Mask R-CNN and its training on masks that leave pixels in doubt.

    True masks leave no doubt: on them nothing is grown and the mask loss is plain, whatever stands
    here, since what pseudo masks are held against is the ordinary Mask R-CNN.

    Attributes:
        anchors: sides of the anchors in input pixels, one a level of the pyramid.
        min_sides: the shorter side of a training image is resized to one of these, drawn for each.
        test_side: ... of other images to this,
        max_side: ... unless the longer side would exceed this.
        iterations: steps of the training.
        batch_size: images of a step, over all workers.
        schedule: the optimiser.
        grow: pixels in doubt become foreground or background where the network is sure of them.
        sure_foreground: probability above which it is.
        sure_background: ... and below which.
        mask_loss: balanced weighs foreground and background the same; plain weighs pixels.
    """

    anchors: tuple[int, ...] = (21, 42, 84, 168, 332)
    min_sides: tuple[int, ...] = (416, 440, 464, 488, 512)
    test_side: int = 512
    max_side: int = 800
    iterations: int = 20_005
    batch_size: int = 8
    schedule: DetectorSGD = DetectorSGD(lr=0.008, drops=(16_000 / 20_005,))
    grow: bool = True
    sure_foreground: float = 0.9
    sure_background: float = 0.1
    mask_loss: Literal["balanced", "plain"] = "balanced"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sure_background <= self.sure_foreground <= 1:
            raise ValueError(
                "sure_background and sure_foreground must ascend in [0, 1], got "
                f"{self.sure_background}, {self.sure_foreground}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainDetectorConfig(JobConfig):
    """Trains the detector on the boxes of one split.

    Attributes:
        train_split: the images to train on.
        val_split: the images that checkpoints are judged on.
        detector: network and training.
    """

    train_split: str = "train"
    val_split: str = "val"
    detector: DetectorConfig = DetectorConfig()


@dataclass(frozen=True, kw_only=True)
class TrainMaskRCNNConfig(SegmentersConfig):
    """Trains a Mask R-CNN on masks of objects of one split, pseudo or true.

    Attributes:
        train_split: the images to train on.
        mask_rcnn: network and training.
    """

    train_split: str = "train"
    mask_rcnn: MaskRCNNConfig = MaskRCNNConfig()
