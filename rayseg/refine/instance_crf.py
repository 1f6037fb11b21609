"""The CRF on each instance that a Mask R-CNN found, at test time, with BBAM's constants.

Source: Lee et al., "BBAM", CVPR 2021, the authors' public code
(maskrcnn_benchmark/modeling/roi_heads/mask_head/inference.py, paste_mask_in_image and Masker;
METHODS 9). The field itself is in `lattice`; it sees the image as R, G, B, which its kernel cannot
tell from theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray
from scipy.ndimage import map_coordinates

from rayseg.refine.lattice import Kernels, Lattice, check_image


@dataclass(frozen=True)
class InstanceCRF(Kernels):
    """A binary CRF over one instance's probabilities; a small one is enlarged with its image.

    Around a box of less than `zoom_below` pixels a part of the image is cut out, which holds
    1 / zoom of what the image has on each side of the box, and enlarged to the image's size. The
    CRF sees that, and what it says is brought back; outside the part nothing is of the instance.

    Attributes:
        zoom: Factor by which the surroundings of a small box shrink; 1 never cuts.
        zoom_below: Area in square pixels below which a box is small.
        sure: Probability after the CRF above which a pixel is of the mask.
    """

    zoom: float = 3.0
    zoom_below: float = 20_000
    sure: float = 0.5

    def __post_init__(self) -> None:
        if self.zoom < 1 or self.zoom_below < 0:
            raise ValueError(
                "zoom must be 1 or more and zoom_below not negative, "
                f"got {self.zoom} and {self.zoom_below}"
            )
        if not 0 <= self.sure < 1:
            raise ValueError(f"sure must lie in [0, 1), got {self.sure}")
        super().__post_init__()

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        probabilities: Float[ndarray, "h w"],
        box_xyxy: Float[ndarray, " 4"],
    ) -> Bool[ndarray, "h w"]:
        """The instance's mask."""
        return self.on(image)(probabilities, box_xyxy)

    def on(
        self, image: UInt8[ndarray, "h w 3"]
    ) -> Callable[[Float[ndarray, "h w"], Float[ndarray, " 4"]], Bool[ndarray, "h w"]]:
        """The same for one instance of an image after the other; they share the image's lattice."""
        check_image(image)
        return partial(self._mask, image, cache(partial(Lattice, self, image, 2)))

    def _mask(
        self,
        image: UInt8[ndarray, "h w 3"],
        whole: Callable[[], Lattice],
        probabilities: Float[ndarray, "h w"],
        box_xyxy: Float[ndarray, " 4"],
    ) -> Bool[ndarray, "h w"]:
        if probabilities.shape != image.shape[:2]:
            raise ValueError(
                f"probabilities must be {image.shape[:2]}, the image's size, "
                f"got {probabilities.shape}"
            )
        given = np.clip(probabilities, 0, 1).astype(np.float32)
        top, left, bottom, right = self.part(box_xyxy, given.shape)
        if (top, left, bottom, right) == (0, 0, *given.shape):
            return self._refined(whole(), given) > self.sure
        seen = np.rint(_resized(image[top:bottom, left:right], given.shape)).astype(np.uint8)
        enlarged = _resized(given[top:bottom, left:right], given.shape)
        refined = self._refined(Lattice(self, seen, 2), enlarged)
        mask = np.zeros(given.shape, bool)
        mask[top:bottom, left:right] = _resized(refined, (bottom - top, right - left)) > self.sure
        return mask

    def part(
        self, box_xyxy: Float[ndarray, " 4"], size_hw: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of the part of the image that the CRF sees enlarged."""
        height, width = size_hw
        x1, y1, x2, y2 = (float(side) for side in box_xyxy)
        if self.zoom == 1 or (x2 - x1) * (y2 - y1) >= self.zoom_below:
            return 0, 0, height, width
        x1, x2 = (min(max(x, 0), width) for x in (x1, x2))
        y1, y2 = (min(max(y, 0), height) for y in (y1, y2))
        top, left = (int(low * (1 - 1 / self.zoom)) for low in (y1, x1))
        bottom = int((height + (self.zoom - 1) * y2) / self.zoom)
        right = int((width + (self.zoom - 1) * x2) / self.zoom)
        return top, left, max(bottom, top + 1), max(right, left + 1)

    def _refined(
        self, lattice: Lattice, probabilities: Float32[ndarray, "h w"]
    ) -> Float32[ndarray, "h w"]:
        planes = np.stack([1 - probabilities, probabilities])
        return lattice.refine(planes, self.iterations)[1]


def _resized(plane: ndarray, size_hw: tuple[int, int]) -> Float32[ndarray, "h w ..."]:
    """A plane or picture at another size: bilinear, outer edges on outer edges."""
    lines = [
        np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        for new, old in zip(size_hw, plane.shape[:2], strict=True)
    ]
    where = np.meshgrid(*lines, indexing="ij")
    planes = plane.astype(np.float32).reshape(*plane.shape[:2], -1)
    resized = [map_coordinates(planes[..., i], where, order=1) for i in range(planes.shape[2])]
    return np.stack(resized, -1).reshape(*size_hw, *plane.shape[2:])
