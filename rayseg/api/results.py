"""What `rayseg.label` gives back: masks with their images, maps and reasons."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from rayseg.api.opened import NoResultError
from rayseg.api.run import Run
from rayseg.api.views import Masks, SeedMaps
from rayseg.toml import hint


@dataclass(frozen=True)
class LabelledImage:
    """One image with what was made of it; all is read when it is asked for.

    Attributes:
        id: of the image.
        of: all images of the call.
    """

    id: str
    of: "Labels"

    @property
    def photo(self) -> UInt8[ndarray, "h w 3"]:
        """The image as a viewer shows it, RGB."""
        return self.of.run.photo(self.id)

    @property
    def mask(self) -> UInt8[ndarray, "h w"]:
        """Its labels, as `Labels.masks` has them.

        Raises:
            NoResultError: it has none; the text says why.
        """
        return self.of.masks[self.id]

    @property
    def seeds(self) -> dict[str, Float[ndarray, "h w"]]:
        """Its localization maps by class name, as `Labels.seeds` has them.

        Raises:
            NoResultError: it has none; the text says why.
        """
        return self.of.seeds[self.id]

    @property
    def note(self) -> str:
        """What was done to it, such as that it was grey; empty for nothing."""
        return self.of.masks.note(self.id)

    def overlay(self) -> Image.Image:
        """The image with its mask on it: classes in VOC's colours, undecided pixels hatched."""
        return self.of.run.overlay(self.id, self.of.masks)


class Labels(Sequence[LabelledImage]):
    """The masks of a call of `rayseg.label`; ``labels[0]`` and ``labels["meadow"]`` are one image.

    Where no folder was given to keep the run in, it is deleted with the last of this and the views
    that came from it.

    Attributes:
        run: all that was made, as `rayseg.open_run` gives it.
        ids: of the images, in the order in which they were given.
        lines: what each job found, as the command line prints it.
    """

    def __init__(self, run: Run, ids: Sequence[str], masks: str, seeds: str, lines: Sequence[str]):
        self.run, self.ids, self.lines = run, tuple(ids), tuple(lines)
        self._masks, self._seeds = masks, seeds

    def __repr__(self) -> str:
        return f"Labels({len(self)} images, {len(self.failed)} failed, classes {self.classes})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class's label in a mask is its place here + 1."""
        return self.run.classes

    @property
    def names_of_labels(self) -> dict[int, str]:
        """The name of each label: 0 background, 1 the first class and so on, 255 undecided."""
        return self.run.names_of_labels

    @cached_property
    def masks(self) -> Masks:
        """The masks, uint8 (h, w), by id or by the image's place in what was given."""
        return Masks(self.run, self._masks, self.ids)

    @cached_property
    def seeds(self) -> SeedMaps:
        """The maps that the masks were made from, by id or by place."""
        return SeedMaps(self.run, self._seeds, self.ids)

    @property
    def failed(self) -> dict[str, str]:
        """Why an image has no mask, by its id."""
        return self.masks.failed

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[LabelledImage]:
        return (LabelledImage(id_, self) for id_ in self.ids)

    @overload
    def __getitem__(self, key: int | str) -> LabelledImage: ...
    @overload
    def __getitem__(self, key: slice) -> list[LabelledImage]: ...
    def __getitem__(self, key: int | str | slice) -> LabelledImage | list[LabelledImage]:
        if isinstance(key, slice):
            return [LabelledImage(id_, self) for id_ in self.ids[key]]
        if isinstance(key, int):
            return LabelledImage(self.ids[key], self)
        if key not in self.ids:
            raise NoResultError(f"image {key!r} is none of those given{hint(key, self.ids)}")
        return LabelledImage(key, self)
