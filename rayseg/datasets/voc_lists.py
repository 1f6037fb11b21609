"""The lists of a VOC layout: which images there are, and which of them hold a class."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rayseg.datasets.base import DatasetError, DatasetNotFoundError, nearest
from rayseg.datasets.finding import IMAGE_SUFFIXES, find_image, leaves
from rayseg.datasets.listing import composed
from rayseg.datasets.reading import lines_of, read_text
from rayseg.datasets.tally import Tally
from rayseg.records.bounds import check_folder_name

_FLAGGED = re.compile(r"(.*\S)\s+(-1|0|1)")
_SUFFIX = "|".join(map(re.escape, IMAGE_SUFFIXES))
_PAIR = re.compile(rf"(.+(?:{_SUFFIX}))[\s,]+(.+(?:{_SUFFIX}))", re.IGNORECASE)


@dataclass(frozen=True)
class Listed:
    """An image that a list names.

    Attributes:
        id: its name without suffix, relative to JPEGImages; letters composed.
        path: of the image; where it would be if it is not there.
        where: file and line.
        split: the list's name.
        mask: path of its true mask, relative to the root; empty where the list gives none.
    """

    id: str
    path: Path
    where: str
    split: str
    mask: str = ""


def find_list(folder: Path, split: str) -> Path | None:
    """The list of a split in ImageSets/Segmentation, else in ImageSets/Main."""
    paths = (folder / "ImageSets" / kind / f"{split}.txt" for kind in ("Segmentation", "Main"))
    return next((path for path in paths if path.exists()), None)


def read_lists(
    folder: Path, splits: Iterable[str], list_file: Path | None, tally: Tally
) -> list[Listed]:
    """The images of the lists in their order; of the list file where there is one.

    Each image of a list file has the split that lists it, or else the first.

    Raises:
        DatasetError: no list, no such list, an image in two of them, or none at all.
    """
    names = tuple(splits)
    if not names:
        raise DatasetError("splits is empty, expected at least one name such as train")
    for split in names:
        check_folder_name("split", split)
    lists = {split: find_list(folder, split) for split in names}
    if list_file is not None:
        home = {
            one.id: split
            for split, path in reversed(lists.items())
            if path
            for one in read_list(path, split, folder, Tally())
        }
        wanted = read_list(list_file, names[0], folder, tally)
        found = [replace(one, split=home.get(one.id, one.split)) for one in wanted]
        return _none_empty(found, list_file)
    missing = [split for split, path in lists.items() if path is None]
    if missing:
        there = sorted(path.stem for path in (folder / "ImageSets" / "Segmentation").glob("*.txt"))
        raise DatasetNotFoundError(
            f"list {missing[0]}.txt not found in {folder}/ImageSets/Segmentation or Main"
            + nearest(missing[0], there)
        )
    first: dict[str, Listed] = {}
    for split, path in lists.items():
        for one in read_list(path or Path(), split, folder, tally):
            before = first.setdefault(one.id, one)
            if before is not one:
                raise DatasetError(
                    f"duplicate id {one.id!r} at {before.where} and {one.where}: remove one"
                )
    return _none_empty(list(first.values()), lists[names[0]])


def _none_empty(found: list[Listed], path: Path | None) -> list[Listed]:
    if not found:
        raise DatasetError(f"{path} lists no image that can be read, expected one id a line")
    return found


def read_list(path: Path, split: str, folder: Path, tally: Tally) -> list[Listed]:
    """The images of one list, each once.

    A line is an id, blanks in it too, or the path of an image and that of its mask. VOC's lists of
    a class have 1, 0 or -1 after the id: it is dropped where the line without it names an image
    that is there and the line as a whole does not, or where all lines end so.
    """
    lines = [(i, line.strip()) for i, line in enumerate(lines_of(read_text(path)), start=1)]
    lines = [(number, line) for number, line in lines if line]
    flagged = all(_FLAGGED.fullmatch(line) for _, line in lines)
    images = folder / "JPEGImages"
    first: dict[str, Listed] = {}
    for number, line in lines:
        where = f"{path}:{number}"
        one = _listed(line, where, split, images, flagged)
        if one is None:
            text = "of a name that leads out of the data set"
            tally.leave_out("lines", text, f"{where}: {line!r}")
            continue
        before = first.setdefault(one.id, one)
        if before is not one:
            tally.note("lines", "with an id that is listed before", f"{where}, as {before.where}")
    return list(first.values())


def read_presence(path: Path, tally: Tally) -> Iterator[tuple[str, bool]]:
    """Yields id and presence from lines such as ``2007_000032 -1``: 1, 0 difficult, -1 absent."""
    for number, line in enumerate(lines_of(read_text(path)), start=1):
        found = _FLAGGED.fullmatch(line.strip())
        if found:
            yield composed(found[1].replace("\\", "/")), found[2] != "-1"
        elif line.strip():
            text = "of no id and 1, 0 or -1, in lists of classes"
            tally.leave_out("lines", text, f"{path}:{number}: {line!r}")


def class_lists(folder: Path, splits: Iterable[str]) -> dict[str, list[Path]]:
    """The lists of each class in ImageSets/Main, ``CLASS_SPLIT.txt``, for any of the splits."""
    known = dict.fromkeys((*splits, "trainval", "train", "val"))
    main = folder / "ImageSets" / "Main"
    found: dict[str, list[Path]] = {}
    for path in filter(_is_flagged, sorted(main.glob("*_*.txt"))):
        split = next((split for split in known if path.stem.endswith(f"_{split}")), None)
        if split is not None:
            found.setdefault(path.stem.removesuffix(f"_{split}"), []).append(path)
    return found


def _is_flagged(path: Path) -> bool:
    """Whether a list is of a class, as its first line shows, and not of a split."""
    if not path.is_file():
        return False
    first = next((line.strip() for line in lines_of(read_text(path)) if line.strip()), "")
    return _FLAGGED.fullmatch(first) is not None


def _listed(line: str, where: str, split: str, images: Path, flagged: bool) -> Listed | None:
    """What a line names; None where that leads out of the data set."""
    path = _find(images, line)
    name, mask = line, ""
    if path is None and (found := _FLAGGED.fullmatch(line)):
        path = _find(images, found[1])
        name = found[1] if flagged or path else line
    if path is None and (found := _PAIR.fullmatch(line)):
        # some lists write paths from the root, with a slash in front
        name, mask = (one.lstrip("/").replace("\\", "/") for one in found.groups())
        mask = mask.removeprefix(name.partition(f"{images.name}/")[0])
        path = _find(images, name)
    if (path is None and leaves(name)) or leaves(mask):
        return None
    plain = path.relative_to(images).as_posix() if path else name.replace("\\", "/")
    id_ = _without_image_suffix(plain.removeprefix(f"{images.name}/"))
    return Listed(id_, path or images / f"{id_}.jpg", where, split, mask)


def _find(images: Path, name: str) -> Path | None:
    """The image of that name, to which a suffix belongs first of all: an id may look like one."""
    return find_image(images, f"{name}.jpg") or find_image(images, name)


def _without_image_suffix(name: str) -> str:
    stem, dot, suffix = composed(name).rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else stem + dot + suffix
