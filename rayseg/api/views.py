"""Something of each image of a run, by its id or its place, read when it is asked for."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from rayseg.api.opened import NoResultError, Opened
from rayseg.export import at_full_size
from rayseg.records import BACKGROUND, Sample
from rayseg.records.palette import decode_labels
from rayseg.store import FAILED, RowsById, parts_of, peek_index, read_rows_about, unpack_seeds
from rayseg.toml import hint

T = TypeVar("T")


class ByImage(Mapping[str, T], Generic[T]):
    """Something of each image, by its id or by its place.

    Args:
        ids: in the order that places count in.
        run: kept while this lives.
    """

    def __init__(self, ids: Sequence[str], run: Opened):
        self.ids, self._run = ids, run

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def id_at(self, key: str | int) -> str:
        """The id of the image that an id or a place means.

        Raises:
            NoResultError: the place is too large. An unknown id is returned as it is.
        """
        if isinstance(key, str):
            return key
        if not -len(self.ids) <= key < len(self.ids):
            raise NoResultError(f"image must be one of {len(self.ids)}, got number {key}")
        return self.ids[key]


class RunImages(ByImage[Sample]):
    """The images of a run as records, in the order of its manifest; see `Sample`."""

    def __init__(self, run: Opened):
        super().__init__([*run.places], run)

    def __getitem__(self, key: str | int) -> Sample:
        return self._run.sample(self.id_at(key))

    def __contains__(self, id_: object) -> bool:
        return id_ in self._run.places


class RowsByImage(ByImage[T]):
    """What a folder of results holds of each image.

    Iterating gives the ids of images with a result, in the order in which these are stored, so that
    going through all of them reads each file once.

    Attributes:
        name: of the folder in the run, such as ``masks/advcam+label_crf``.
        failed: why an image has no result, by its id.
    """

    columns: tuple[str, ...]
    statuses: tuple[str, ...] = ("ok",)
    """Of rows that have a result."""

    def __init__(self, run: Opened, name: str, places: Sequence[str] | None = None):
        self.name, self._folder = name, run.folder / name
        lines = peek_index(self._folder).select(["id", "status", "shard"]).to_pylist()
        if not lines:
            kind, _, own = name.partition("/")
            there = run.names(kind)
            known = f"; the run has {', '.join(there)}" if there else ""
            raise ValueError(f"{self._folder} holds nothing{known}{hint(own, there)}")
        self._status = {line["id"]: line["status"] for line in lines}
        self._good = [id_ for id_, status in self._status.items() if status in self.statuses]
        super().__init__(self._good if places is None else places, run)
        placed = {line["id"]: part for line, part in zip(lines, parts_of(lines), strict=True)}
        columns = ["id", "status", "error", "note", "height", "width", *self.columns]
        self._rows = RowsById(placed, partial(read_rows_about, self._folder, columns=columns))

    def __iter__(self) -> Iterator[str]:
        return iter(self._good)

    def __len__(self) -> int:
        return len(self._good)

    def __contains__(self, id_: object) -> bool:
        return self._status.get(id_) in self.statuses

    def __getitem__(self, key: str | int) -> T:
        id_ = self.id_at(key)
        if id_ not in self._status:
            near = hint(id_, self._good)
            raise NoResultError(f"image {id_!r} has no row in {self.name}{near}")
        row = self._rows[id_]
        if row["status"] not in self.statuses:
            raise NoResultError(f"image {id_!r} has none of {self.name}: {_reason(row)}")
        return self._unpacked(row)

    @property
    def failed(self) -> dict[str, str]:
        """Why an image has no result, by its id."""
        failed = (id_ for id_, status in self._status.items() if status in FAILED)
        return {id_: _reason(self._rows[id_]) for id_ in failed}

    def note(self, id_: str) -> str:
        """What was done to an image, such as that it was grey; empty for nothing."""
        return str(self._rows[id_]["note"]) if id_ in self._status else ""

    @abstractmethod
    def _unpacked(self, row: Mapping[str, Any]) -> T:
        """What the row of an image with a result holds."""


class Masks(RowsByImage[UInt8[ndarray, "h w"]]):
    """Masks by id: uint8 (h, w), of the photograph as a viewer shows it.

    0 is background, class index + 1 a class, 255 undecided; `Run.names_of_labels` has the names.
    An image that is known to show none of the classes is background.
    """

    columns = ("labels",)
    statuses = ("ok", "empty")

    def _unpacked(self, row: Mapping[str, Any]) -> UInt8[ndarray, "h w"]:
        sample = self._run.sample(row["id"])
        if not row["labels"]:
            return np.full(_shown_hw(sample), BACKGROUND, np.uint8)
        if sample.seen_side:
            row = at_full_size(row, _shown_hw(sample))
        return decode_labels(row["labels"])


class SeedMaps(RowsByImage[dict[str, Float[ndarray, "h w"]]]):
    """Localization maps by id, each a dict of class name to float32 (h, w) in [0, 1].

    Height and width are those at which the image was seen: a photograph's are at most
    ``folder.max_side``, and its mask may be larger.
    """

    columns = ("classes", "maps")
    statuses = ("ok", "empty")

    def _unpacked(self, row: Mapping[str, Any]) -> dict[str, Float[ndarray, "h w"]]:
        from rayseg.labels import enlarge  # noqa: PLC0415  # loads torch

        seeds = unpack_seeds(row)
        names = [self._run.classes[number] for number in seeds.classes]
        return dict(zip(names, enlarge(seeds), strict=True))


def _shown_hw(sample: Sample) -> tuple[int, int]:
    return sample.photo_hw if sample.seen_side else (sample.height, sample.width)


def _reason(row: Mapping[str, Any]) -> str:
    return " ".join(str(row["error"] or row["note"] or row["status"]).split())
