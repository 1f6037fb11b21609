"""What every exporter is asked to write, and what it is."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol


class Export(NamedTuple):
    """Rows of results, read once, and what they are called in the foreign format."""

    rows: Iterable[Mapping[str, Any]]
    folder: str | Path
    classes: Sequence[str]
    category_ids: Sequence[int]
    split: str


class Exporter(Protocol):
    """A foreign format: a frozen dataclass whose fields are its settings, and flags of `export`.

    Attributes:
        columns: of a row of masks or instances; its `id`, and the `path` of its image from the
            manifest, come with it.
        statuses: of the rows that it takes; an image without objects is one of COCO's too.
    """

    columns: ClassVar[tuple[str, ...]]
    statuses: ClassVar[tuple[str, ...]]

    def write(self, export: Export) -> object:
        """What was written, whose `str` says it in one line."""
