"""Companions: crops of other images, which a method takes into its batch beside its own image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rayseg.nets.inputs import normalise


@dataclass(frozen=True)
class Draw:
    """Companions of one step.

    Attributes:
        indices: which of the bank's crops.
        overlapping: how many of them share a class with the image.
    """

    indices: Int[Tensor, " b"]
    overlapping: int


@dataclass(frozen=True)
class Companions:
    """A bank of crops with their tags, cut once and shared by all who draw from it.

    Attributes:
        ids: of the images that the crops were cut from.
        pixels: RGB, 0 to 255; tensors may lie in read-only shared memory and are never written to.
        boxes_yxyx: where each crop holds image: first row and column, and those after the last.
            What is outside is ImageNet's mean colour, whatever `pixels` hold there.
        tags: which classes each image has.
    """

    ids: tuple[str, ...]
    pixels: UInt8[Tensor, "m s s 3"]
    boxes_yxyx: Int[Tensor, "m 4"]
    tags: Bool[Tensor, "m c"]

    def __post_init__(self) -> None:
        count = len(self.ids)
        if not count:
            raise ValueError("companions must be at least one crop, got none")
        shapes = [tuple(part.shape) for part in (self.pixels, self.boxes_yxyx, self.tags)]
        if (
            self.pixels.dtype != torch.uint8
            or shapes[0] != (count, *shapes[0][1:3], 3)
            or shapes[1] != (count, 4)
            or shapes[2][:1] != (count,)
        ):
            raise ValueError(
                f"companions must be uint8 (m, s, s, 3), boxes (m, 4) and tags (m, c) for m = "
                f"{count} ids, got {self.pixels.dtype} {shapes[0]}, {shapes[1]}, {shapes[2]}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def draws(
        self,
        classes: Sequence[int],
        number: int,
        generator: torch.Generator,
        disjoint: bool = True,
        image_id: str = "",
    ) -> Iterator[Draw]:
        """Companions for one step after the other, without end.

        They are drawn without replacement until fewer than `number` are left, then from all again.
        Where fewer than `number` are free of the image's classes, all steps take those that share
        the fewest classes.

        Args:
            classes: those of the image.
            number: companions a step; a smaller bank gives all it has.
            generator: of the image.
            disjoint: only images without a class in common; else any but the image itself.
            image_id: the image's own.
        """
        order = torch.randperm(len(self), generator=generator)
        shared = self.tags[:, list(classes)].sum(1)[order]
        others = torch.tensor([self.ids[i] != image_id for i in order.tolist()])
        if others.any():  # an image is its own companion only where there is no other
            order, shared = order[others], shared[others]
        pool = order[shared == 0] if disjoint else order
        if len(pool) < number:
            pool = order[shared.argsort(stable=True)][:number] if disjoint else order
        overlapping = self.tags[:, list(classes)].any(1)
        while True:
            for start in range(0, len(pool) - min(number, len(pool)) + 1, max(number, 1)):
                indices = pool[start : start + number]
                yield Draw(indices, int(overlapping[indices].sum()))
            pool = pool[torch.randperm(len(pool), generator=generator)]

    def images(self, indices: Int[Tensor, " b"], device: torch.device) -> Float[Tensor, "b 3 s s"]:
        """Normalised crops, as a network takes them."""
        planes = self.pixels[indices].to(device).permute(0, 3, 1, 2)
        top, left, bottom, right = self.boxes_yxyx[indices].to(device)[:, :, None].unbind(1)
        rows, columns = (torch.arange(side, device=device) for side in planes.shape[2:])
        inside_y = (rows >= top) & (rows < bottom)  # (b, s)
        inside_x = (columns >= left) & (columns < right)
        inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
        return torch.where(inside, normalise(planes), 0.0)
