"""Masks in PASCAL VOC's layout, readable by CVAT as "Segmentation mask 1.1".

    folder/labelmap.txt                          name:r,g,b:: of each label
    folder/SegmentationClass/<id>.png            indexed PNG, VOC's palette
    folder/ImageSets/Segmentation/<split>.txt    one id a line

Nothing that lies in the folder is ever changed: a mask that somebody corrected by hand stays. What
is there must be an earlier, perhaps interrupted, export of the same masks, or of another split with
the same classes; anything else is refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.export.base import Export
from rayseg.export.files import check_inside, draft_of, make_folder, written
from rayseg.records import IGNORE, MAX_CLASSES
from rayseg.records.file_names import file_stem
from rayseg.records.palette import VOC_PALETTE, decode_labels, encode_labels

IGNORED = "ignored"  # Datumaro's and hence CVAT's name for label 255


def write_voc(
    masks: Iterable[tuple[str, bytes]],
    folder: str | Path,
    classes: Sequence[str],
    split: str = "train",
) -> int:
    """Writes a dataset of semantic masks as VOC does.

    The list of the split is written last, so that a folder with its list is complete. Each file
    appears whole or not at all. An id with ``/`` makes subfolders.

    A name follows from its id by `rayseg.records.file_names.file_stem`, in the list too.

    Args:
        masks: id and indexed PNG bytes of each image (see
            `rayseg.records.palette.encode_labels`); read once, one at a time.
        classes: class names by index, so that label i + 1 is ``classes[i]``.
        split: name of the list.

    Raises:
        FileExistsError: the folder holds something else, other classes or other masks.
        ValueError: a class name or the split cannot be written safely, an id comes twice, or a
            mask is no indexed PNG or holds a label that no class has.
    """
    root = Path(folder)
    if file_stem(split) != split or "/" in split:
        raise ValueError(f"a split is one name without '/', got {split!r}")
    _claim(root, _labelmap(classes))
    ids: dict[str, None] = {}
    for id_, png in masks:
        if id_ in ids:
            raise ValueError(f"id {id_!r} comes twice; a VOC folder has one mask an image")
        ids[id_] = None
        _write_mask(root, id_, png, len(classes))
    _write_list(root, split, list(map(file_stem, ids)))
    return len(ids)


@dataclass(frozen=True)
class VocExport:
    """What was written: masks of so many images; every one has its place in the format."""

    folder: str | Path
    masks: int
    left_out: int = 0

    def __str__(self) -> str:
        return f"{self.masks} masks in {self.folder}"


@dataclass(frozen=True)
class VocMasks:
    """Semantic masks in VOC's layout."""

    columns: ClassVar[tuple[str, ...]] = ("labels",)
    statuses: ClassVar[tuple[str, ...]] = ("ok",)

    def write(self, export: Export) -> VocExport:
        """Writes rows as `write_voc` does."""
        masks = ((row["id"], row["labels"]) for row in export.rows)
        number = write_voc(masks, export.folder, export.classes, export.split)
        return VocExport(export.folder, number)


def class_problem(classes: Sequence[str]) -> str:
    """Why class names do not fit in labelmap.txt; empty where they do."""
    if len(classes) > MAX_CLASSES:
        return f"an 8-bit mask has room for {MAX_CLASSES} classes, got {len(classes)}"
    names = ["background", *classes, IGNORED]
    if len(set(names)) != len(names):
        return (
            f"class names must differ and not be 'background' or {IGNORED!r}, got {list(classes)}"
        )
    for name in classes:
        if name != name.strip() or name[:1] in {"", "#"} or ":" in name or not name.isprintable():
            return (
                f"class name {name!r} does not fit in labelmap.txt: it must not be empty, begin "
                "with '#', hold ':' or control characters, or begin or end with a space"
            )
    return ""


def _labelmap(classes: Sequence[str]) -> str:
    problem = class_problem(classes)
    if problem:
        raise ValueError(problem)
    names = ["background", *classes, IGNORED]
    lines = ["# label:color_rgb:parts:actions"]
    for label, name in zip([*range(len(classes) + 1), IGNORE], names, strict=True):
        lines.append(f"{name}:{','.join(map(str, VOC_PALETTE[label].tolist()))}::")
    return "\n".join(lines) + "\n"


def _claim(root: Path, labelmap: str) -> None:
    """Takes an empty folder, or one that was exported with the same classes."""
    path = root / "labelmap.txt"
    make_folder(root)
    if not path.exists():
        strangers = [p.name for p in root.iterdir() if p.name != draft_of(path).name]
        if strangers:
            raise FileExistsError(
                f"{root} holds {sorted(strangers)[0]!r} and no labelmap.txt, so it is no earlier "
                "export; choose an empty folder"
            )
        _write(root, path, labelmap.encode())
    elif path.read_bytes() != labelmap.encode():
        raise FileExistsError(f"{path} lists other classes than this export; choose another folder")


def _write_mask(root: Path, id_: str, png: bytes, num_classes: int) -> None:
    path = root / "SegmentationClass" / f"{file_stem(id_)}.png"
    check_inside(root, path)
    labels = _decode(id_, png, num_classes)
    if not path.exists():
        _write(root, path, encode_labels(labels))
    elif not _holds(path, labels):
        raise FileExistsError(f"{path} holds another mask; choose another folder")


def _holds(path: Path, labels: UInt8[ndarray, "h w"]) -> bool:
    """Whether a file is the same mask; another version of zlib may have written other bytes."""
    try:
        return np.array_equal(decode_labels(path.read_bytes()), labels)
    except ValueError:
        return False


def _decode(id_: str, png: bytes, num_classes: int) -> UInt8[ndarray, "h w"]:
    try:
        labels = decode_labels(png)
    except ValueError as error:
        raise ValueError(f"mask of {id_!r}: {error}") from error
    wrong = labels[(labels > num_classes) & (labels != IGNORE)]
    if wrong.size:
        raise ValueError(
            f"mask of {id_!r} holds label {wrong[0]}, but there are {num_classes} classes "
            f"(labels 0 to {num_classes} and {IGNORE})"
        )
    return labels


def _write_list(root: Path, split: str, ids: list[str]) -> None:
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    check_inside(root, path)
    if not path.exists():
        _write(root, path, "".join(f"{id_}\n" for id_ in ids).encode())
    elif sorted(path.read_text(encoding="utf-8").splitlines()) != sorted(ids):
        raise FileExistsError(f"{path} lists other images than this export; choose another folder")


def _write(root: Path, path: Path, content: bytes) -> None:
    with written(root, path, [content]):
        pass
