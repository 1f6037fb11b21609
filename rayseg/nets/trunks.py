"""What a trunk is: all that the project knows of one is in its entry.

A trunk of a family that is here is one more entry beside its family's code. A family of others
(timm, say) is a file like `torchvision_trunks`, whose entries join TRUNKS in `backbones`:

* `publish` makes the library's network, and `cut` five modules of it whose composition maps images
  to features; what patches gave (n, tokens, d) they bring back to (n, d, h', w'). All blocks before
  the last few may be the stem, and a stage may be an `nn.Identity`, but for `adapts_from`.
* Images come with ImageNet's mean and deviation taken out (`inputs.normalise`). Weights that were
  trained on others begin their stem with the affine map from these to their own.
* A stage whose last convolution does not tell its features' channels says `out_channels`.
* Batch normalisation is found by its type, to be frozen or folded. A stage without any is never
  traced; only RIB asks that the stages from `adapts_from` on be traceable by torch.fx.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

STRIDES = (8, 16, 32)
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")


def levels_by_stage(trunk: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the last stage but two and the last but one give, and the features."""
    stem, first, second, third, last = trunk.children()
    low = second(first(stem(images)))
    middle = third(low)
    return low, middle, last(middle)


@dataclass(frozen=True)
class TrunkKind:
    """One trunk.

    Attributes:
        publish: the network as published, with a set of weights of that name; None for random ones.
        cut: the network at a stride as the modules of STAGES, in order; may change the network.
        weight_sets: names that `publish` knows.
        address: where the library fetches such a set from; None where it has none.
        heads: prefixes of keys that files of weights may hold beside the trunk's.
        strides: image pixels a feature cell that it can have.
        reached: the stride at which the convolutions of stage3 and of stage4 end as published.
        has_levels: stages 1 to 4 end at strides 4, 8, 16 and 32, as a feature pyramid asks.
        adapts_from: the first stage that RIB fine-tunes.
        levels: a trunk of these stages and images to two earlier levels, rectified, and the
            features; can be traced by torch.fx. SEAM and AffinityNet compare pixels by them.
    """

    publish: Callable[[str | None], nn.Module]
    cut: Callable[[Any, int], list[nn.Module]]
    weight_sets: tuple[str, ...] = ()
    address: Callable[[str], str] | None = None
    heads: tuple[str, ...] = ()
    strides: tuple[int, ...] = STRIDES
    reached: tuple[int, int] = (16, 32)
    has_levels: bool = False
    adapts_from: str = "stage3"
    levels: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor, Tensor]] = levels_by_stage


def unstride(block: nn.Module) -> None:
    """Takes the stride from all convolutions of a block."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
