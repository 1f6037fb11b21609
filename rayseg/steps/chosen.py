"""Images of the manifest, as what a folder of the run is filled from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from rayseg.store import Folder, Manifest, read_manifest


@dataclass(frozen=True)
class Chosen:
    """Images of the manifest as what a folder is filled from.

    Attributes:
        folder: of the manifest.
        split: that is asked for; empty is all.
        ids: that are asked for; None is all.
        reads: columns that rows follow from, beside the image itself.
    """

    folder: Folder
    split: str = ""
    ids: Sequence[str] | None = None
    reads: tuple[str, ...] = ()

    @cached_property
    def manifest(self) -> Manifest:
        """All of it, by which rows of earlier commands are judged too."""
        return read_manifest(self.folder)

    @property
    def table(self) -> pa.Table:
        """Rows of the images that are asked for."""
        return self.manifest.select(self.split, self.ids).table
