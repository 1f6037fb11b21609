"""One's own photographs: the size at which each is seen, and the frame of its labels."""

from dataclasses import dataclass
from pathlib import Path

from rayseg.records.images import ImageError, read_header
from rayseg.records.scaling import fit


@dataclass(frozen=True)
class Photo:
    """The sizes of a photograph.

    Attributes:
        shown_hw: height and width as a viewer shows it, in which its labels are; (0, 0) where it
            cannot be read.
        seen_hw: height and width at which it is seen.
        turn: EXIF orientation; 1 where it lies as it is looked at.
    """

    shown_hw: tuple[int, int] = (0, 0)
    seen_hw: tuple[int, int] = (0, 0)
    turn: int = 1

    @property
    def seen_side(self) -> int:
        """As `Sample` has it: 0 where the stored pixels are taken as they are."""
        return max(self.seen_hw) if self.turn != 1 or self.seen_hw != self.shown_hw else 0

    @property
    def photo_hw(self) -> tuple[int, int]:
        """As `Sample` has it: the size that results leave in, where that is not the seen one."""
        return self.shown_hw if self.seen_side else (0, 0)


def read_photo(path: Path, max_side: int) -> Photo:
    """Reads the header of a photograph.

    Args:
        path: of a local file.
        max_side: longest side at which it is seen; 0 for no bound.
    """
    try:
        header = read_header(path)
    except ImageError:
        return Photo()
    shown_hw = header.shown_hw
    return Photo(shown_hw, fit(shown_hw, max_side or max(shown_hw)), header.turn)
