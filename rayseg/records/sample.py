"""The nouns of rayseg: plain records of arrays, checked when they are made.

Legend of shape letters, used in every signature of the project:
    n  images (a batch)           k  classes present in one image
    c  all classes                d  feature channels
    h, w  pixels of an image or cells of a map (height, width)
    o  objects (instances)

Class numbers: a *class index* counts the dataset's foreground classes from 0. A *label* in a mask
is 0 for background, class index + 1 for foreground, and 255 for pixels to ignore.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

BACKGROUND = 0
IGNORE = 255
MAX_CLASSES = 254  # labels 1..254 in an 8-bit mask; 0 and 255 are taken


def _check(name: str, array: ndarray, dtype: type, shape: tuple[int | None, ...], why: str) -> None:
    expected = "(" + ", ".join("?" if side is None else str(side) for side in shape) + ")"
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} {expected} ({why}), "
            f"got {array.dtype.name} {array.shape}"
        )


@dataclass(frozen=True)
class Sample:
    """One image of a dataset and the cheap labels that came with it; a row of the manifest.

    Attributes:
        id: unique within its manifest.
        path: where the image lies: a local path or a URI.
        height: rows of pixels as the image is seen, in whose frame boxes, masks and maps are. These
            are the stored rows (EXIF rotation not applied, as in VOC's and COCO's annotations),
            but where `seen_side` says otherwise.
        width: columns of pixels as the image is seen.
        tags: class indices present in the image, ascending, without repeats.
        boxes_xyxy: float32 (o, 4) object boxes in pixels, x and y of the upper left corner, then
            of the lower right, exclusive.
        box_classes: int64 (o,) class index of each box.
        split: the list that the image belongs to, such as ``train``.
        mask_path: true semantic mask (indexed PNG), empty where there is none; read by scores only.
        difficult: positions of boxes whose objects are hard to see: trained on, but neither hit nor
            miss when detections are scored, as in VOC.
        crowds: positions of boxes that hold many objects as one: neither trained on nor scored.
        true_masks: COCO's run-length counts of each box's object, empty where not known; () where
            none is.
        source_id: the image's id in the data set's own file, as JSON, such as ``1`` or ``"a"``;
            empty where the data set has none.
        file_name: of the image, as the data set's own file says it; empty where it has none.
        image_digest: of the image file; empty where it was not read.
        image_bytes: of the image file; -1 where not known.
        image_mtime_ns: when it was last written, in nanoseconds of the epoch; -1 where not known.
        mask_digest: of the file of the true mask; empty where there is none, or it was not read.
        negative: whether the image is known to show nothing of any class; without tags and not so,
            nobody knows what it shows.
        seen_side: longer side at which a photograph is seen that is too large or has to be turned:
            it is turned as EXIF says and made smaller to that. 0 for pixels as they are stored.
        photo_hw: height and width as a viewer shows it, where there is a `seen_side`; else (0, 0).
    """

    id: str
    path: str
    height: int
    width: int
    tags: tuple[int, ...]
    boxes_xyxy: Float[ndarray, "o 4"]
    box_classes: Int[ndarray, " o"]
    split: str = "train"
    mask_path: str = ""
    difficult: tuple[int, ...] = ()
    crowds: tuple[int, ...] = ()
    true_masks: tuple[bytes, ...] = ()
    source_id: str = ""
    file_name: str = ""
    image_digest: str = ""
    image_bytes: int = -1
    image_mtime_ns: int = -1
    mask_digest: str = ""
    negative: bool = False
    seen_side: int = 0
    photo_hw: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        number = len(self.boxes_xyxy)
        _check("boxes_xyxy", self.boxes_xyxy, np.float32, (None, 4), "one row a box")
        _check("box_classes", self.box_classes, np.int64, (number,), "one a box")
        for name in ("difficult", "crowds"):
            wrong = [i for i in getattr(self, name) if not 0 <= i < number]
            if wrong:
                raise ValueError(f"{name} must be of boxes 0..{number - 1}, got {wrong[0]}")
        if len(self.true_masks) not in (0, number):
            raise ValueError(f"true_masks must be {number}, one a box, got {len(self.true_masks)}")
        if tuple(sorted(set(self.tags))) != self.tags:
            raise ValueError(f"tags must ascend without repeats, got {self.tags} for {self.id!r}")


@dataclass(frozen=True)
class Seeds:
    """Localization maps of the classes that are present in one image.

    Attributes:
        id: the image's id.
        classes: class index of each map, ascending.
        maps: float32 (k, h, w) in [0, 1]; h and w may be smaller than the image.
        size_hw: height and width of the image that the maps belong to.
    """

    id: str
    classes: tuple[int, ...]
    maps: Float[ndarray, "k h w"]
    size_hw: tuple[int, int]

    def __post_init__(self) -> None:
        _check("maps", self.maps, np.float32, (len(self.classes), None, None), "one a class")
        low, high = (self.maps.min(), self.maps.max()) if self.maps.size else (0.0, 0.0)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"maps must lie in [0, 1], got {low} to {high} for {self.id!r}")


@dataclass(frozen=True)
class LabelMap:
    """A semantic mask: one label a pixel.

    Attributes:
        id: the image's id.
        labels: uint8 (h, w): 0 background, class index + 1, or 255 to ignore.
    """

    id: str
    labels: UInt8[ndarray, "h w"]

    def __post_init__(self) -> None:
        _check("labels", self.labels, np.uint8, (None, None), "one label a pixel")


@dataclass(frozen=True)
class InstanceMasks:
    """One binary mask for each object of an image.

    Attributes:
        id: the image's id.
        masks: bool (o, h, w).
        classes: int64 (o,) class index of each object.
    """

    id: str
    masks: ndarray
    classes: Int[ndarray, " o"]

    def __post_init__(self) -> None:
        _check("masks", self.masks, np.bool_, (None, None, None), "one an object")
        _check("classes", self.classes, np.int64, (len(self.masks),), "one a mask")
