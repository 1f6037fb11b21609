"""The CAM classifier: a trunk, global average pooling and a linear head without bias.

Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016; built as in Ahn et
al., *Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations*, CVPR 2019.
"""

from collections.abc import Sequence
from typing import Self

from jaxtyping import Float
from torch import Tensor, nn

from rayseg.nets.backbones import TRUNKS, build_trunk, feature_channels, freeze_statistics
from rayseg.nets.stored import load_network
from rayseg.nets.trunks import STAGES


class CamClassifier(nn.Module):
    """Multi-label classifier whose head also weighs its features into class activation maps.

    Attributes:
        trunk: images (n, 3, h, w), normalised with ImageNet's mean and deviation, to features
            (n, d, ceil(h / stride), ceil(w / stride)).
        head: 1x1 convolution (d to c) without bias; its weight is the w_c of Eq. 2.1.
        stride: image pixels a feature cell.
        adapts_from: number of stages that RIB leaves as they are; the authors' classifier cuts
            them off by a detach.
        frozen_statistics: batch normalisation keeps its stored statistics also in training.
    """

    def __init__(
        self,
        trunk: str,
        num_classes: int,
        stride: int = 16,
        weights: str = "none",
        frozen_statistics: bool = True,
    ):
        super().__init__()
        self.trunk = build_trunk(trunk, stride, weights)
        self.head = nn.Conv2d(feature_channels(self.trunk), num_classes, 1, bias=False)
        self.stride = stride
        self.adapts_from = STAGES.index(TRUNKS[trunk].adapts_from)
        self.frozen_statistics = frozen_statistics

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d h' w'"]:
        """The features that the head weighs."""
        return self.trunk(images)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Logits of the classes."""
        return self.classify(self.features(images))

    def classify(self, features: Float[Tensor, "n d h' w'"]) -> Float[Tensor, "n c"]:
        """Logits of features: the head on their global average."""
        return self.head(features.mean(dim=(2, 3), keepdim=True)).flatten(1)

    def train(self, mode: bool = True) -> Self:
        """As every module's, but frozen statistics stay frozen."""
        super().train(mode)
        if self.frozen_statistics:
            freeze_statistics(self)
        return self


def load_classifier(path: str, classes: Sequence[str] | None = None) -> CamClassifier:
    """A classifier from the file that training wrote; see `load_network`."""
    return load_network(
        path, "classifier", classes,
        lambda facts: CamClassifier(facts["trunk"], len(facts["classes"]), facts["stride"]),
    )  # fmt: skip
