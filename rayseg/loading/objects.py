"""Whole images with their objects for the training of detectors and Mask R-CNNs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rayseg.boxes import box_problem, clip_boxes
from rayseg.images import ImageError, decode_image
from rayseg.labels import StoredRows
from rayseg.loading.batches import make_loader
from rayseg.loading.order import DrawOrder
from rayseg.records import Sample
from rayseg.rle import decode_mask
from rayseg.store import Folder, Manifest, read_file, read_manifest

logger = logging.getLogger(__name__)

Targets = dict[str, Tensor]

_TRIES = 20


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
    ) -> ObjectMasks:
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


class GivenBoxes:
    """The boxes of a manifest.

    Args:
        manifest: with the boxes; those of difficult objects are trained on.
        split: only its images; empty means all.
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


class TrueInstances:
    """The true masks of a manifest's objects.

    The masks are read when the first is asked for, in each process anew: they are as large as all
    else in a manifest together.

    Args:
        manifest: with true masks.
        split: only its images; empty means all.
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
        """The boxes of the sample with the masks of its manifest.

        Raises:
            ValueError: the manifest has other objects of that image.
        """
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
        """The objects that the row of that image holds, which are no crowds.

        Raises:
            ValueError: the row is missing, cannot be read, or is of an image of another size.
        """
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


class ObjectImages(Dataset[tuple[Tensor, Targets, str]]):
    """Images as uint8 (3, h, w), their objects and ids; a key is (draw, index) as in `DrawOrder`.

    Images keep their size, since the networks resize them, and stay levels, a quarter of what
    floats would take to a device. An image that cannot be read, is of another size than its boxes
    were drawn in, or has stored masks of another size is replaced by the next one.

    Args:
        samples: images; the index counts them.
        labels: of each of the samples.
        flip: half of the draws are mirrored.
        seed: of the training; whether a draw is mirrored follows from it and the draw.

    Raises:
        ValueError: a sample has no labels.
        ImageError: when read, all of an image's neighbours are unusable too.
    """

    def __init__(self, samples: Sequence[Sample], labels: ObjectLabels, flip: bool, seed: int):
        missing = [sample.id for sample in samples if sample.id not in labels.ids]
        if missing:
            raise ValueError(
                f"all {len(samples)} images must have objects to learn, {len(missing)} have none, "
                f"such as {missing[0]!r}"
            )
        self.samples, self.labels, self.flip, self.seed = samples, labels, flip, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Targets, str]:
        draw, index = key
        sample, pixels, targets = self._usable(index)
        if self.flip and np.random.default_rng([self.seed, draw]).random() < 0.5:
            pixels, targets = pixels[:, ::-1], targets.mirrored(sample.width)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (3, h, w)
        return torch.from_numpy(planes), targets.as_tensors(), sample.id

    def _usable(self, index: int) -> tuple[Sample, UInt8[ndarray, "h w 3"], ObjectTargets]:
        """The image of that index, or the next one that can be used."""
        reasons = []
        for step in range(min(len(self.samples), _TRIES)):
            sample = self.samples[(index + step) % len(self.samples)]
            try:
                return sample, _fitting_pixels(sample), self.labels.read(sample)
            except ValueError as error:
                reasons.append(f"{sample.path}: {error}")
                logger.warning("another image trains in its place: %s", reasons[-1])
        raise ImageError(f"{len(reasons)} images in a row cannot be used, such as {reasons[0]}")


def _fitting_pixels(sample: Sample) -> UInt8[ndarray, "h w 3"]:
    """The image, of the size that the manifest says.

    Raises:
        ImageError: it cannot be read, or is of another size.
    """
    pixels = decode_image(read_file(sample.path)).pixels
    if pixels.shape[:2] != (sample.height, sample.width):
        raise ImageError(
            f"image must be {(sample.height, sample.width)} as in the manifest, "
            f"got {pixels.shape[:2]}"
        )
    return pixels


def object_batches(
    images: ObjectImages, order: DrawOrder, loader_workers: int = 0
) -> DataLoader[Any]:
    """The batches of one worker, as lists of images, targets and ids, in order."""
    return make_loader(images, order, loader_workers, _as_lists)


def _as_lists(
    items: Sequence[tuple[UInt8[Tensor, "3 h w"], Targets, str]],
) -> tuple[list[UInt8[Tensor, "3 h w"]], list[Targets], list[str]]:
    planes, targets, ids = zip(*items, strict=True)
    return list(planes), list(targets), list(ids)
