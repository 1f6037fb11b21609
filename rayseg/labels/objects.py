"""What is known of the objects of images: given boxes, true masks, masks that a run made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from rayseg.labels.masks import StoredRows
from rayseg.records import Sample
from rayseg.records.boxes import box_problem, clip_boxes
from rayseg.records.rle import decode_mask
from rayseg.store import Folder, Manifest, read_manifest

Targets = dict[str, Tensor]


@dataclass(frozen=True)
class ObjectMasks:
    """What is known of the pixels of an image's objects.

    Attributes:
        foreground: bool (o, h, w), surely of the object.
        possible: bool (o, h, w), may be of it; the pixels beyond surely are not.
        known: bool (o,), whether there is a mask; without one both are all False.
    """

    foreground: Bool[ndarray, "o h w"]
    possible: Bool[ndarray, "o h w"]
    known: Bool[ndarray, " o"]

    @classmethod
    def decoded(
        cls, foreground: Sequence[bytes], possible: Sequence[bytes], size_hw: tuple[int, int]
    ) -> Self:
        """The masks of COCO's counts; empty ones of `possible` leave no doubt."""
        sure, maybe = np.zeros((2, len(foreground), *size_hw), bool)
        for i, (counts, wider) in enumerate(zip(foreground, possible, strict=True)):
            sure[i] = decode_mask(counts, size_hw)
            maybe[i] = sure[i] | decode_mask(wider, size_hw) if wider else sure[i]
        known = np.asarray(sure.any((1, 2)))
        maybe[~known] = False
        return cls(sure, maybe, known)


@dataclass(frozen=True)
class ObjectTargets:
    """What a network learns of one image's objects.

    Attributes:
        boxes_xyxy: float32 (o, 4) in pixels, in the image and each of some area.
        classes: int64 (o,) class indices.
        masks: of the same objects; None where only boxes are learnt.
    """

    boxes_xyxy: Float[ndarray, "o 4"]
    classes: Int[ndarray, " o"]
    masks: ObjectMasks | None = None

    def mirrored(self, width: int) -> ObjectTargets:
        """Those of the image of that width, left and right exchanged."""
        boxes = self.boxes_xyxy[:, [2, 1, 0, 3]]
        boxes[:, [0, 2]] = width - boxes[:, [0, 2]]
        masks = self.masks and replace(
            self.masks,
            foreground=self.masks.foreground[..., ::-1],
            possible=self.masks.possible[..., ::-1],
        )
        return ObjectTargets(boxes, self.classes, masks)

    def as_tensors(self) -> Targets:
        """As networks take them: boxes, classes, and of masks foreground, possible, has_mask."""
        parts = {"boxes": self.boxes_xyxy, "classes": self.classes}
        if self.masks:
            parts |= {"foreground": self.masks.foreground, "possible": self.masks.possible}
            parts["has_mask"] = self.masks.known
        # 50 masks of a photo of 12 megapixels are 1.2 GB: no copy but of what is mirrored
        return {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in parts.items()}


class ObjectLabels(Protocol):
    """Objects of images; picklable, so that each worker reads its own."""

    @property
    def ids(self) -> Set[str]:
        """Of the images that can be trained on."""

    def read(self, sample: Sample) -> ObjectTargets:
        """The objects of an image, without crowds and boxes that name no pixels of it.

        Raises:
            ValueError: what is stored is missing or of an image of another size.
        """


class GivenTags:
    """The tags of a manifest, none of a negative."""

    def __init__(self, manifest: Folder, split: str = ""):
        self._ids = frozenset(
            s.id for s in _open(manifest, split).samples() if s.tags or s.negative
        )

    @property
    def ids(self) -> Set[str]:
        """Of the images that have a tag, or are known to show none of the classes."""
        return self._ids

    def content(self, sample: Sample) -> bytes:
        """What is learnt of an image, to be compared."""
        return repr((sample.id, sorted(sample.tags))).encode()


class GivenBoxes:
    """The boxes of a manifest.

    Args:
        manifest: with the boxes; those of difficult objects are trained on.
        keep_empty: images without an object are trained on as well.
    """

    def __init__(self, manifest: Folder, split: str = "", keep_empty: bool = False):
        samples = _open(manifest, split).samples()
        self._ids = frozenset(s.id for s in samples if keep_empty or _taught(s))

    @property
    def ids(self) -> Set[str]:
        """Of the images that can be trained on."""
        return self._ids

    def read(self, sample: Sample) -> ObjectTargets:
        """The boxes of the sample itself."""
        kept = _taught(sample)
        boxes = clip_boxes(sample.boxes_xyxy[kept], (sample.height, sample.width))
        return ObjectTargets(boxes, sample.box_classes[kept])

    def content(self, sample: Sample) -> bytes:
        """What is learnt of an image, to be compared."""
        targets = self.read(sample)
        learnt = (sample.id, targets.boxes_xyxy.tolist(), targets.classes.tolist())
        return repr(learnt).encode()


class TrueInstances:
    """The true masks of a manifest's objects.

    The masks are read when the first is asked for, in each process anew: they are as large as all
    else in a manifest together.
    """

    def __init__(self, manifest: Folder, split: str = ""):
        self.manifest, self.split = manifest, split
        samples = _open(manifest, split, true_masks=True).samples()
        self._ids = frozenset(
            s.id for s in samples if any(s.true_masks[i] for i in _taught(s) if s.true_masks)
        )
        self._masks: dict[str, Any] = {}

    @property
    def ids(self) -> Set[str]:
        """Of the images that have a true mask."""
        return self._ids

    def read(self, sample: Sample) -> ObjectTargets:
        """The boxes of the sample with the masks of its manifest."""
        counts: list[bytes] = self._counts(sample.id)
        if len(counts) not in (0, len(sample.boxes_xyxy)):
            raise ValueError(
                f"true masks of {sample.id!r} in {self.manifest} must be "
                f"{len(sample.boxes_xyxy)}, one a box, got {len(counts)}"
            )
        kept = _taught(sample)
        size_hw = (sample.height, sample.width)
        chosen = [counts[i] if counts else b"" for i in kept]
        masks = ObjectMasks.decoded(chosen, [b""] * len(kept), size_hw)
        boxes = clip_boxes(sample.boxes_xyxy[kept], size_hw)
        return ObjectTargets(boxes, sample.box_classes[kept], masks)

    def _counts(self, id_: str) -> list[bytes]:
        if not self._masks:
            table = _open(self.manifest, self.split, true_masks=True).table
            ids = table.column("id").to_pylist()
            self._masks = dict(zip(ids, table.column("true_masks"), strict=True))
        return self._masks[id_].as_py() if id_ in self._masks else []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_masks": {}}

    def content(self, sample: Sample) -> bytes:
        """What is learnt of an image, to be compared."""
        boxes, classes = sample.boxes_xyxy.tolist(), sample.box_classes.tolist()
        return repr((sample.id, boxes, classes, self._counts(sample.id))).encode()


class StoredInstances(StoredRows):
    """Masks of objects that a run made; those of images of status ok with a mask of some object.

    Args:
        folder: shards of INSTANCES_SCHEMA.

    Raises:
        FileNotFoundError: the folder has no shard.
        ValueError: its shards hold no masks of objects.
    """

    def __init__(self, folder: Folder):
        columns = ["height", "width", "boxes_xyxy", "classes", "foreground", "possible"]
        super().__init__(folder, columns, "object mask", needed="foreground")

    def read(self, sample: Sample) -> ObjectTargets:
        """The objects that the row of that image holds, which are no crowds."""
        size_hw = (sample.height, sample.width)
        row = self.row(sample.id)
        if (row["height"], row["width"]) != size_hw:
            raise ValueError(
                f"{self.name(sample.id)} must be of {size_hw} as its image, "
                f"got {(row['height'], row['width'])}"
            )
        boxes = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)
        classes = np.array(row["classes"], np.int64)
        kept = _sound(boxes, size_hw)
        masks = ObjectMasks.decoded(
            [row["foreground"][i] for i in kept], [row["possible"][i] for i in kept], size_hw
        )
        return ObjectTargets(clip_boxes(boxes[kept], size_hw), classes[kept], masks)


def bad_boxes(samples: Iterable[Sample]) -> Iterator[tuple[str, str]]:
    """Boxes that cannot be trained on: the id of each one's image, and why; crowds are none."""
    for sample in samples:
        size_hw = (sample.height, sample.width)
        for i, box in enumerate(sample.boxes_xyxy):
            reason = box_problem(box, size_hw) if all(size_hw) else "image could not be read"
            if reason and i not in sample.crowds:
                yield sample.id, reason


def _open(manifest: Folder, split: str, true_masks: bool = False) -> Manifest:
    return read_manifest(manifest, true_masks=true_masks).select(split)


def _taught(sample: Sample) -> list[int]:
    """Places of the boxes that are trained on."""
    sound = _sound(sample.boxes_xyxy, (sample.height, sample.width))
    return [i for i in sound if i not in sample.crowds]


def _sound(boxes_xyxy: Float[ndarray, "o 4"], size_hw: tuple[int, int]) -> list[int]:
    return [i for i, box in enumerate(boxes_xyxy) if not box_problem(box, size_hw)]
