"""Networks and how they are trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rayseg.learn import Crops, HalvedAdam, PolySGD, SegmentationCrops, SegmenterSGD
from rayseg.nets.backbones import Trunk, check_stride
from rayseg.nets.inputs import Precision
from rayseg.toml import check_literals


@dataclass(frozen=True)
class ClassifierConfig:
    """The CAM classifier and its training.

    Attributes:
        trunk: what makes the features, one of the classifiers named.
        stride: image pixels a feature cell: 8, 16 or 32; wide_resnet38 has 8.
        weights: none, a torchvision weight set such as IMAGENET1K_V1, or a path.
        batch_norm: frozen keeps the statistics of the weights; trained learns them; auto freezes
            them where there are weights.
        freeze: the last stage that does not train: none, stem, stage1 to stage4.
        epochs: passes over the images.
        batch_size: images of a step, over all workers.
        crops: how images are cut.
        schedule: the optimiser.
        seed: of the head, the order and the crops.
    """

    trunk: Trunk = "resnet50"
    stride: Literal[8, 16, 32] = 16
    weights: str = "IMAGENET1K_V1"
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    freeze: Literal["none", "stem", "stage1", "stage2", "stage3", "stage4"] = "stem"
    epochs: int = 5
    batch_size: int = 16
    crops: Crops = Crops()
    schedule: PolySGD = PolySGD()
    seed: int = 0

    def __post_init__(self) -> None:
        check_literals(self)
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size must be 1 or more, got {self.epochs}, {self.batch_size}"
            )

    @classmethod
    def as_written(cls) -> ClassifierConfig:
        """Momentum as the text has it; everything else is the code's."""
        return cls(schedule=PolySGD.as_written())

    @property
    def frozen_statistics(self) -> bool:
        """Whether batch normalisation keeps its statistics."""
        return self.weights != "none" if self.batch_norm == "auto" else self.batch_norm == "frozen"


@dataclass(frozen=True)
class FickleNetConfig(ClassifierConfig):
    """FickleNet's classifier and its training.

    Recalled from the paper (METHODS 7; there is no public code): VGG-16 without its last pooling
    and with a dilated last block, crops of 321 to maps of 41x41, a kernel of 9, the drop rate,
    batches of 10 and the optimiser. Ours, for want of a source: the number of epochs, that the
    stem trains too, and the range of sizes that crops are cut from.

    Attributes:
        trunk: what makes the features, one of the classifiers named.
        stride: image pixels a feature cell: 8, 16 or 32; wide_resnet38 has 8.
        dilated: the trunk's last stages are dilated where they lost their stride.
        kernel: side of the head's windows in cells; odd.
        drop_rate: chance of each hidden unit of a window to be left out, in [0, 1).
        selection: closed or expanded (Figure 3.2b); the same numbers, the second far slower.
        freeze: the last stage that does not train: none, stem, stage1 to stage4.
        epochs: passes over the images.
        batch_size: images of a step, over all workers.
        crops: how images are cut.
        schedule: the optimiser.
        seed: of the head, the order, the crops and the selections.
    """

    trunk: Trunk = "vgg16"
    stride: Literal[8, 16, 32] = 8
    freeze: Literal["none", "stem", "stage1", "stage2", "stage3", "stage4"] = "none"
    epochs: int = 20
    batch_size: int = 10
    crops: Crops = Crops(crop=321)
    schedule: HalvedAdam = HalvedAdam()  # type: ignore[assignment]
    dilated: bool = True
    kernel: int = 9
    drop_rate: float = 0.9
    selection: Literal["closed", "expanded"] = "closed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and 3 or more, got {self.kernel}")
        if not 0 <= self.drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {self.drop_rate}")

    @classmethod
    def as_written(cls) -> FickleNetConfig:
        """The same: the dissertation gives no constants."""
        return cls()


@dataclass(frozen=True)
class SegmenterConfig:
    """A segmenter and its training.

    The defaults are what the dissertation's author used for AdvCAM and RIB (official); the preset
    ``as_written`` is DeepLab-v2 with the "default settings" that the text names, which are those of
    deeplab-pytorch. They differ in the loss, the steps, the scales and the batches of a step
    (METHODS 10), and the loss is worth points.

    Attributes:
        network: deeplab_v2 (summed ASPP) or deeplab_v3 (torchvision's head).
        trunk: what makes the features, one of the classifiers named.
        stride: image pixels a cell of the logits: 8 or 16.
        input_scales: the network sees the image at these, and takes the maximum; (1.0,) for one.
        weights: where the trunk starts: none, a torchvision weight set such as IMAGENET1K_V1, a
            path, or classifier for the trunk of the run's own.
        batch_norm: of the trunk; frozen keeps statistics, scale and shift of the weights; trained
            learns them; auto freezes them where there are weights.
        iterations: steps of the training.
        batch_size: images of a step, over all workers.
        accumulate: batches that a step is cut into, for want of memory.
        loss: cross_entropy over pixels, or balanced: background and foreground weigh the same.
        crops: how images are cut.
        schedule: the optimiser.
        precision: of the activations; auto is bf16 where the device is fast in it.
        log_every: steps between two entries of the loss curve.
        save_every: steps between two checkpoints: the most that a lost worker costs.
        judge_images: images of the val split on which each checkpoint is judged; 0 for none.
        seed: of the head, the order and the crops.
    """

    network: Literal["deeplab_v2", "deeplab_v3"] = "deeplab_v2"
    trunk: Trunk = "resnet101"
    stride: Literal[8, 16] = 8
    input_scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    weights: str = "IMAGENET1K_V1"
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    iterations: int = 30_000
    batch_size: int = 10
    accumulate: int = 1
    loss: Literal["cross_entropy", "balanced"] = "balanced"
    crops: SegmentationCrops = SegmentationCrops(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0))
    schedule: SegmenterSGD = SegmenterSGD()
    precision: Precision = "auto"
    log_every: int = 20
    save_every: int = 500
    judge_images: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_literals(self)
        for name in ("iterations", "batch_size", "accumulate", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.judge_images < 0:
            raise ValueError(f"judge_images must be 0 or more, got {self.judge_images}")
        if self.input_scales[:1] != (1.0,) or min(self.input_scales) <= 0:
            raise ValueError(
                f"input_scales must be positive and begin with 1, got {self.input_scales}"
            )
        check_stride(self.trunk, self.stride)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size must divide by accumulate, got {self.batch_size}, {self.accumulate}"
            )

    @classmethod
    def as_written(cls) -> SegmenterConfig:
        """DeepLab-v2 as deeplab-pytorch trains it."""
        return replace(
            cls(),
            loss="cross_entropy",
            iterations=20_000,
            accumulate=2,
            crops=SegmentationCrops(),
        )

    @property
    def frozen_statistics(self) -> bool:
        """Whether the trunk's batch normalisation stays as it is."""
        return self.weights != "none" if self.batch_norm == "auto" else self.batch_norm == "frozen"
