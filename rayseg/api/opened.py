"""What is read once of a run that is looked at: its manifest, and which folders it has."""

from dataclasses import replace
from functools import cached_property

from rayseg.records import BACKGROUND, IGNORE, Sample
from rayseg.store import Folder, Manifest, read_manifest, shard_names
from rayseg.toml import hint


class NoResultError(ValueError, KeyError):
    """There is no such image, or nothing was made of it; the text says why."""

    __str__ = Exception.__str__  # KeyError's own puts quotes around it


class Opened:
    """A run's folder and its manifest.

    Attributes:
        folder: of the run.
    """

    def __init__(self, folder: Folder):
        self.folder = folder

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class's label in a mask is its place here + 1."""
        return self._manifest.classes

    @property
    def names_of_labels(self) -> dict[int, str]:
        """The name of each label that a mask can hold."""
        foreground = {number + 1: name for number, name in enumerate(self.classes)}
        return {BACKGROUND: "background", **foreground, IGNORE: "undecided"}

    def names(self, kind: str) -> list[str]:
        """The folders of a kind that hold something, such as those of ``masks``."""
        folders = (self.folder / kind).folders()
        return [name for name in folders if shard_names(self.folder / kind / name)]

    def sample(self, id_: str) -> Sample:
        """The record of an image of the run.

        Raises:
            NoResultError: there is none of that id.
        """
        if id_ not in self.places:
            raise NoResultError(f"image {id_!r} is none of the run{hint(id_, self.places)}")
        table = self._manifest.table.slice(self.places[id_], 1)
        return next(replace(self._manifest, table=table).samples())

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each image in the manifest, by id."""
        ids = self._manifest.table.column("id").to_pylist()
        return {id_: place for place, id_ in enumerate(ids)}

    @cached_property
    def _manifest(self) -> Manifest:
        return read_manifest(self.folder / "manifest")
