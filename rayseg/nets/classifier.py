"""The CAM classifier: a trunk, global average pooling and a linear head without bias.

Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016; built as in Ahn et
al., *Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations*, CVPR 2019.
"""

from collections.abc import Sequence
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from rayseg.nets.backbones import TRUNKS, build_trunk, feature_channels, freeze_statistics
from rayseg.nets.trunks import STAGES
from rayseg.nets.weights import load_into, read_facts, read_tensors


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
    """A classifier from the safetensors file that training wrote, in eval mode.

    Args:
        path: the file.
        classes: names that it must have been trained on, in this order; None accepts any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a classifier of ours, or of other classes.
    """
    facts = read_network_facts(path, "classifier", classes)
    network = CamClassifier(str(facts["trunk"]), len(facts["classes"]), int(facts["stride"]))
    load_into(network, read_tensors(path), path)
    return network.eval()


def read_network_facts(
    path: str, kind: str, classes: Sequence[str] | None = None, needed: Sequence[str] = ()
) -> dict[str, Any]:
    """The facts of a weights file that must hold a network of that kind.

    Args:
        needed: what the facts must say beside trunk, stride and classes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a network of another kind, or of other classes.
    """
    facts: dict[str, Any] = read_facts(path)
    found = str(facts.get("network", "classifier"))
    if found != kind:
        named = f"{found} segmenter" if found.startswith("deeplab") else found
        raise ValueError(f"{path} holds a {named}, not a {kind}")
    needed = ("trunk", "stride", "classes", *needed)
    if not set(needed) <= facts.keys():
        listed = f"{', '.join(needed[:-1])} and {needed[-1]}"
        raise ValueError(f"weights file {path} must say its {listed}, got {sorted(facts)}")
    _check_trunk(path, facts["trunk"], facts["stride"])
    check_trained_on(path, facts["classes"], classes)
    return facts


def _check_trunk(path: str, trunk: object, stride: object) -> None:
    known = TRUNKS[trunk].strides if isinstance(trunk, str) and trunk in TRUNKS else ()
    if stride not in known:
        raise ValueError(
            f"weights file {path} must be of a trunk and stride that are known, got "
            f"{str(trunk)[:200]} at {str(stride)[:200]}"
        )


def check_trained_on(path: str, trained: Sequence[str], classes: Sequence[str] | None) -> None:
    """Refuses weights of other classes than those asked for; None asks for none.

    Raises:
        ValueError: both sides are said.
    """
    if not isinstance(trained, list | tuple) or not all(isinstance(one, str) for one in trained):
        raise ValueError(f"weights file {path} must name its classes, got {str(trained)[:200]}")
    if classes is not None and list(trained) != list(classes):
        raise ValueError(
            f"{path} was trained on {len(trained)} classes ({_first(trained)}), "
            f"the manifest has {len(classes)} ({_first(classes)}); "
            "--compute.remake-stale trains a run's own network anew, others must be of its classes"
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
