"""Images of the manifest, as what a folder of the run is filled from."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from rayseg.store import Folder, Manifest, fingerprint, read_manifest


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


def images_identity(images: Manifest, labelled: Set[str]) -> dict[str, Any]:
    """What a training follows from besides settings and what made its labels: its images.

    A folder that was trained before this was recorded is refused, not trained anew: the hours that
    it took are not thrown away unasked.

    Args:
        images: of the split that is trained on.
        labelled: ids of the images that have labels, of whatever split.
    """
    ids = [id_ for id_ in images.table.column("id").to_pylist() if id_ in labelled]
    return {"trained_on": {"images": len(ids), "list": fingerprint(ids)}}
