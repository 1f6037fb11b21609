"""What every exporter is asked to write, and what it is."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

PHOTO = "photo"
"""Column of a row that has the photograph as it was seen, uint8 (h, w, 3)."""


class Export(NamedTuple):
    """Rows of results, read once, and what they are called in the foreign format."""

    rows: Iterable[Mapping[str, Any]]
    folder: str | Path
    classes: Sequence[str]
    category_ids: Sequence[int | str]
    split: str


class Written(Protocol):
    """What was written; its `str` says it in one line."""

    @property
    def masks(self) -> int:
        """Masks in it, of objects or of whole images."""

    @property
    def left_out(self) -> int:
        """Masks that the format cannot hold."""


class Exporter(Protocol):
    """A foreign format: a frozen dataclass whose fields are its settings, and flags of `export`.

    Attributes:
        columns: of a row of masks or instances; its `id`, and `path`, `source_id` and `file_name`
            of its image from the manifest, come with it. Objects that a row lacks are the connected
            parts of its mask. With PHOTO results are
            of the size at which it was seen, else of the file's.
        statuses: of the rows that it takes; an image without objects is one of COCO's too.
    """

    columns: ClassVar[tuple[str, ...]]
    statuses: ClassVar[tuple[str, ...]]

    def write(self, export: Export) -> Written:
        """Writes the rows."""
