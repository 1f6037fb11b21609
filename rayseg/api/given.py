"""Images and tags from Python as a folder and a CSV, which the reader of folders reads."""

import csv
import io
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.datasets.finding import IMAGE_SUFFIXES
from rayseg.datasets.listing import composed
from rayseg.datasets.tag_cells import NO_TAG
from rayseg.records.file_names import file_stem
from rayseg.records.painting import encode_png
from rayseg.toml import hint

AnyImage: TypeAlias = str | os.PathLike[str] | UInt8[ndarray, "h w 3"]
AnyImages: TypeAlias = Sequence[AnyImage] | Mapping[str, AnyImage]
AnyTags: TypeAlias = Sequence[Iterable[str]] | Mapping[str, Iterable[str]]
PLACE = "given"
"""Folder of a run that holds what Python gave."""


@dataclass(frozen=True)
class Given:
    """Images with their tags.

    Attributes:
        images: by id, in the order in which they were given.
        tags: class names of each, in the same order.
    """

    images: Mapping[str, AnyImage]
    tags: tuple[tuple[str, ...], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """All tags, sorted."""
        return tuple(sorted({tag for own in self.tags for tag in own}))

    def check_tags(self, classes: Sequence[str]) -> None:
        """Refuses a tag of none of the classes.

        Raises:
            ValueError: the text names the image, the tag and the classes.
        """
        for id_, own in zip(self.images, self.tags, strict=True):
            for tag in own:
                if tag not in classes:
                    known = ", ".join(classes)
                    near = hint(tag, classes)
                    raise ValueError(f"tags of {id_!r} must be of {known}, got {tag!r}{near}")

    def write(self, run: Path) -> dict[str, str]:
        """Leaves images and tags in the run's folder; what is there already is not touched.

        A path becomes a link, an array a PNG.

        Returns:
            The settings of the reader that reads them.
        """
        place = run / PLACE
        folder = place / "images"
        names = [f"{id_}{_suffix(image)}" for id_, image in self.images.items()]
        for name, image in zip(names, self.images.values(), strict=True):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(image, ndarray):
                _write(path, encode_png(np.ascontiguousarray(image)))
            else:
                _link(path, Path(os.path.abspath(image)))
        wanted = {folder / name for name in names}
        for path in [one for one in folder.rglob("*") if one.is_symlink() or one.is_file()]:
            if path not in wanted:  # of an earlier call
                path.unlink()
        _write(place / "tags.csv", _table(names, self.tags))
        return {"images": str(folder), "tags": str(place / "tags.csv")}


def take(images: AnyImages, tags: AnyTags) -> Given:
    """Images and tags, checked, but for what only reading the files can tell.

    Raises:
        ValueError: the text names the image and what was expected.
    """
    if isinstance(images, str | os.PathLike | ndarray):
        raise ValueError(
            "images must be a list or a dict of paths or arrays, got one "
            f"{type(images).__name__}; of a folder take sorted(pathlib.Path(FOLDER).glob('*.jpg'))"
        )
    named = images if isinstance(images, Mapping) else _named(images)
    if not named:
        raise ValueError("images must have at least one image, got none")
    for id_, image in named.items():
        _check_image(id_, image)
    listed = _by_id(named, tags) if isinstance(tags, Mapping) else _in_order(named, tags)
    given = Given(dict(named), tuple(map(_tags_of, named, listed)))
    if not given.classes:
        raise ValueError("tags must name a class of at least one image, got none")
    return given


def _named(images: Iterable[AnyImage]) -> dict[str, AnyImage]:
    """Images by id: a file's name without its suffix, the place in the list of an array."""
    named: dict[str, AnyImage] = {}
    for place, image in enumerate(images):
        is_path = isinstance(image, str | os.PathLike)
        id_ = file_stem(composed(Path(image).stem)) if is_path else str(place)  # type: ignore[arg-type]
        if id_ in named:
            raise ValueError(
                f"images must have names of their own, got {id_!r} twice ({_brief(named[id_])} and "
                f"{_brief(image)}); give a dict of names to images"
            )
        named[id_] = image
    return named


def _check_image(id_: object, image: object) -> None:
    if not isinstance(id_, str) or not id_ or file_stem(id_) != id_ or composed(id_) != id_:
        raise ValueError(f"names of images must be such as a file can have, got {id_!r}")
    if isinstance(image, str | os.PathLike):
        if "://" in str(image):
            raise ValueError(f"image {id_!r} must be a local file or an array, got {image}")
        return
    if not isinstance(image, ndarray):
        kind = type(image).__name__
        raise ValueError(f"image {id_!r} must be a path or a uint8 array (h, w, 3), got {kind}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype.name} {image.shape}"
        raise ValueError(f"image {id_!r} must be uint8 (h, w, 3), got {found}")


def _in_order(named: Mapping[str, AnyImage], tags: Iterable[Iterable[str]]) -> list[Any]:
    listed = [*tags]
    if isinstance(tags, str) or len(listed) != len(named):
        raise ValueError(
            f"tags must be a list for each of the {len(named)} images, such as "
            f"[['cow'], []], got {_brief(tags) if isinstance(tags, str) else len(listed)}"
        )
    return listed


def _by_id(named: Mapping[str, AnyImage], tags: Mapping[str, Iterable[str]]) -> list[Any]:
    """Tags by id, or by the file's path or name."""
    found, used = [], set()
    for id_, image in named.items():
        path = None if isinstance(image, ndarray) else Path(image)
        keys = [id_, *([str(image), path, path.name] if path else [])]
        key = next((one for one in keys if one in tags), None)
        if key is None:
            raise ValueError(f"tags must name every image, lack {id_!r}; [] says that it has none")
        used.add(key)
        found.append(tags[key])  # type: ignore[index]
    if unknown := [key for key in tags if key not in used]:
        near = hint(str(unknown[0]), named)
        raise ValueError(f"tags must be of the images, got {unknown[0]!r}{near}")
    return found


def _tags_of(id_: str, tags: object) -> tuple[str, ...]:
    """The tags of an image, each once; the word none says that there is none, as in a CSV."""
    listed = None
    if not isinstance(tags, str):
        with suppress(TypeError):
            listed = [*tags]
    if listed is None or not all(isinstance(one, str) for one in listed):
        wanted = "a list of class names such as ['cow'], [] for none"
        raise ValueError(f"tags of {id_!r} must be {wanted}, got {_brief(tags)}")
    for tag in listed:
        if tag != tag.strip() or not tag.isprintable() or not tag or {"'", '"'} <= {*tag}:
            wanted = "without blanks at its ends and without both kinds of quotes"
            raise ValueError(f"a tag of {id_!r} must be a word or several, {wanted}, got {tag!r}")
    return tuple(tag for tag in dict.fromkeys(listed) if tag.lower() != NO_TAG)


def _suffix(image: AnyImage) -> str:
    own = "" if isinstance(image, ndarray) else Path(image).suffix
    return own if own.lower() in IMAGE_SUFFIXES else ".png"  # what a file is, its bytes say


def _table(names: Sequence[str], tags: Iterable[Sequence[str]]) -> bytes:
    sink = io.StringIO()
    rows = csv.writer(sink, lineterminator="\n")
    rows.writerow(("image", "tags"))
    rows.writerows(zip(names, map(_cell, tags), strict=True))
    return sink.getvalue().encode()


def _cell(tags: Sequence[str]) -> str:
    """Tags as a list in quotes, in which a name may hold any separator."""
    quoted = [f'"{tag}"' if "'" in tag else f"'{tag}'" for tag in tags]
    return f"[{', '.join(quoted)}]" if quoted else ""


def _write(path: Path, data: bytes) -> None:
    """Writes a file that is not there so: one that keeps its time is not read again."""
    if path.is_symlink() or not path.is_file() or path.read_bytes() != data:
        path.unlink(missing_ok=True)
        path.write_bytes(data)


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and Path(os.readlink(path)) == target:
        return
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(target)
    except (OSError, NotImplementedError):  # a system without links
        shutil.copy2(target, path)


def _brief(value: object) -> str:
    return f"an array {value.shape}" if isinstance(value, ndarray) else repr(value)[:100]
