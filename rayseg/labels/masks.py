"""Where the labels of images come from: true masks, or masks that a run made; checked when read."""

from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from rayseg.records import IGNORE, Sample
from rayseg.records.palette import decode_labels
from rayseg.store import (
    DamagedError,
    Folder,
    Manifest,
    RowsById,
    parts_of,
    read_file,
    read_index,
    read_manifest,
    read_rows_about,
    read_shard,
    shard_columns,
    shard_names,
)


class LabelSource(Protocol):
    """Labels of images by id; picklable, so that each worker reads its own."""

    @property
    def ids(self) -> Set[str]:
        """Of the images that have labels."""

    def name(self, id_: str) -> str:
        """What an error calls the mask of an image, with its file."""

    def content(self, sample: Sample) -> bytes:
        """What is learnt of an image, to be compared."""

    def read(self, id_: str, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"]:
        """The labels of an image of that size.

        Raises:
            ValueError: the mask is missing, no mask, of another size or with labels of no class.
        """


class UnlabelledError(ValueError):
    """Labels of which no pixel counts."""


def read_trainable(
    source: LabelSource, id_: str, size_hw: tuple[int, int]
) -> UInt8[ndarray, "h w"]:
    """Labels that a segmenter can learn from.

    Raises:
        UnlabelledError: all pixels are to be ignored, so that there is nothing to learn.
        ValueError: as the source's `read` has it.
    """
    labels = source.read(id_, size_hw)
    if (labels == IGNORE).all():
        raise UnlabelledError(
            f"{source.name(id_)} must have a pixel that is not ignored ({IGNORE}), got only those"
        )
    return labels


class Truths:
    """True masks of a manifest's images, by id.

    Args:
        manifest: names the mask of each image that has one; a folder or what was read of it.
    """

    def __init__(
        self, manifest: Folder | Manifest, split: str = "", ids: Sequence[str] | None = None
    ):
        read = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
        opened = read.select(split, ids)
        self.classes = opened.classes
        self.num_classes = len(opened.classes)
        table = opened.table.select(["id", "mask_path"])
        self.paths = {
            id_: path for id_, path in zip(*table.to_pydict().values(), strict=True) if path
        }

    @property
    def ids(self) -> Set[str]:
        """Of the images that have a true mask."""
        return self.paths.keys()

    def name(self, id_: str) -> str:
        """The mask's path."""
        return f"true mask {self.paths[id_]}" if id_ in self.paths else f"true mask of {id_!r}"

    def content(self, sample: Sample) -> bytes:
        """What is learnt of an image, to be compared."""
        return repr((sample.id, sample.mask_digest)).encode()

    def read(self, id_: str, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"]:
        """The true labels of an image of that size."""
        path = self.paths.get(id_)
        data = read_file(path) if path else None
        return _labels(data, self.name(id_), size_hw, self.num_classes)

    def counted(
        self, id_: str, size_hw: tuple[int, int], crowds: Sequence[int] = ()
    ) -> Bool[ndarray, "h w"]:
        """The pixels of an image by which masks of its objects are judged; all without a true mask.

        What the true mask ignores counts for neither side: in VOC the borders, which are of no
        object. In an image with crowds it ignores these, as COCO's do, and all pixels count: crowds
        are judged by a rule of their own.

        Args:
            id_: of the image.
            size_hw: of the image.
            crowds: places of those of its objects that are crowds.

        Raises:
            ValueError: as `read` has it.
        """
        if crowds or id_ not in self.ids:
            return np.ones(size_hw, bool)
        return self.read(id_, size_hw) != IGNORE

    def rows(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that have a result and a true mask to hold it against."""
        return [row for row in rows if row["status"] == "ok" and row["id"] in self.paths]

    def of(self, row: Mapping[str, Any]) -> UInt8[ndarray, "h w"]:
        """The true labels of a row's image.

        Raises:
            ValueError: as `read` has it.
        """
        return self.read(row["id"], (row["height"], row["width"]))


class StoredRows:
    """Rows that a run made, by id; those of status ok.

    Only ids are held: reading a row reads the few that are stored beside it. The folder must not
    change meanwhile; a row that is gone is an error of its own.

    Args:
        folder: shards that have an `id`, a `status` and the columns.
        columns: that are read of a row.
        what: a row holds, for errors, such as ``mask``.
        needed: a column of lists that must hold something for a row to count; empty for none.

    Raises:
        FileNotFoundError: the folder has no shard.
        ValueError: its shards cannot be read or lack a column.
    """

    def __init__(self, folder: Folder, columns: Sequence[str], what: str, needed: str = ""):
        self.folder, self.what = folder, what
        names = shard_names(folder)
        if not names:
            raise FileNotFoundError(f"{folder} holds no {what}s")
        self._check_columns(names[0], ["id", "status", *columns])
        lines = read_index(folder).select(["id", "status", "digest", "shard"]).to_pylist()
        placed = zip(lines, parts_of(lines), strict=True)
        part_of = {line["id"]: part for line, part in placed if line["status"] == "ok"}
        self._digests = {line["id"]: line["digest"] for line in lines}
        if needed:
            shards = sorted({shard for shard, _ in part_of.values()})
            with ThreadPoolExecutor(max_workers=8) as pool:  # a remote store answers slowly
                held = pool.map(partial(_ids_that_hold, folder, needed), shards)
                kept = {id_ for ids in held for id_ in ids}
            part_of = {id_: part for id_, part in part_of.items() if id_ in kept}
        read = partial(read_rows_about, folder, columns=["id", *columns])
        self._rows = RowsById(part_of, read)

    @property
    def ids(self) -> Set[str]:
        """Of the images that have a row to read."""
        return self._rows.part_of.keys()

    def name(self, id_: str) -> str:
        """What an error calls the row of an image, with its folder and shard."""
        shard, _ = self._rows.part_of.get(id_, ("", 0))
        return f"{self.what} of {id_!r} in {self.folder.path(shard) if shard else self.folder}"

    def content(self, sample: Sample) -> bytes:
        """What is learnt of an image, to be compared."""
        return repr((sample.id, self._digests[sample.id])).encode()

    def row(self, id_: str) -> dict[str, Any]:
        """The row of an image."""
        try:
            return self._rows[id_]
        except (KeyError, FileNotFoundError):
            raise ValueError(f"{self.name(id_)} is missing") from None
        except DamagedError as error:
            raise ValueError(f"{self.name(id_)} cannot be read: {error.why}") from None

    def _check_columns(self, shard: str, columns: list[str]) -> None:
        found = shard_columns(self.folder, shard)
        if not set(columns).issubset(found):
            raise ValueError(
                f"{self.folder} must hold {self.what}s, columns {columns}, got {found}"
            )


class StoredMasks(StoredRows):
    """Masks that a run made, by id; those of status ok.

    Args:
        folder: shards of MASKS_SCHEMA.
        num_classes: foreground classes that the masks may hold.

    Raises:
        FileNotFoundError: the folder has no shard.
        ValueError: its shards are not of masks.
    """

    def __init__(self, folder: Folder, num_classes: int):
        super().__init__(folder, ["labels"], "mask")
        self.num_classes = num_classes

    def read(self, id_: str, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"]:
        """The labels made for an image of that size."""
        return _labels(self.row(id_)["labels"], self.name(id_), size_hw, self.num_classes)


def _labels(
    data: bytes | None, name: str, size_hw: tuple[int, int], num_classes: int
) -> UInt8[ndarray, "h w"]:
    """The labels in a file's bytes, None where there is no file."""
    if data is None:
        raise ValueError(f"{name} is missing")
    try:
        labels = decode_labels(data)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if labels.shape != size_hw:
        raise ValueError(f"{name} must be {size_hw} as its image, got {labels.shape}")
    top = int((labels + np.uint8(1)).max()) - 1  # 255 wraps around to 0, and is no label to check
    if top > num_classes:
        raise ValueError(f"{name} must hold labels up to {num_classes} classes, got {top}")
    return labels


def _ids_that_hold(folder: Folder, column: str, shard: str) -> set[str]:
    """Ids of the rows of a shard whose list in a column holds something."""
    table = read_shard(folder, shard, ["id", column])
    return {row["id"] for row in table.to_pylist() if any(row[column])}
