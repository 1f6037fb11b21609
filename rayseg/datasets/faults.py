"""What is wrong with an image file, a box or a size, in words that are equal for equal faults."""

import errno
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from rayseg.datasets.base import DatasetError
from rayseg.datasets.tally import Tally
from rayseg.records import Sample
from rayseg.records.images import ImageError, read_size, read_turn


def image_fault(path: Path) -> str:
    """Why an image's size cannot be read; empty where it can."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return "a folder and no file"
        if not stat.S_ISREG(mode):
            return "a pipe or device and no file"
        read_size(path)
    except ImageError as error:
        return str(error).partition(":")[0]
    except OSError as error:
        named = {errno.ENOENT: "not found", errno.ENOTDIR: "not found"}
        named |= {errno.ELOOP: "a loop of links", errno.ENAMETOOLONG: "not found"}
        return named.get(error.errno or 0, "may not be read")
    return ""


def say_faults(samples: Iterable[Sample], tally: Tally, way_out: str) -> Iterator[Sample]:
    """Yields the samples, and counts at their end the images whose size is not known.

    Args:
        way_out: what to check where no image at all can be read.

    Raises:
        DatasetError: no image can be read.
    """
    faults: Counter[str] = Counter()
    examples: dict[str, str] = {}
    number = 0
    for sample in samples:
        number += 1
        if not sample.height:
            fault = image_fault(Path(sample.path)) or "of no size"
            faults[fault] += 1
            examples.setdefault(fault, sample.path)
        yield tally.take_sample(sample)
    if number and faults.total() == number:
        fault, count = faults.most_common(1)[0]
        raise DatasetError(
            f"{count} of {number} images {fault}, such as {examples[fault]}, and none can be read: "
            f"{way_out}"
        )
    for fault, count in faults.items():
        tally.leave_out("images", f"{fault}, of {number} that are listed", examples[fault], count)


def box_fault(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> str:
    """Why a box names no pixels of an image; empty where it does.

    A box that reaches over the edge is good: what lies in the image counts.

    Args:
        size_hw: of the image; (0, 0) where it is not known.
    """
    with np.errstate(over="ignore"):
        x1, y1, x2, y2 = np.array(box_xyxy, np.float32).tolist()
    height, width = size_hw
    if not np.isfinite([x1, y1, x2, y2]).all():
        return "box is not four finite numbers"
    if x2 <= x1 or y2 <= y1:
        return "box has no area, its second corner must lie right of and below its first"
    if min(size_hw) and (x1 > width - 1 or y1 > height - 1 or x2 < 1 or y2 < 1):
        return "box lies outside its image"
    return ""


def frame_fault(path: Path, said_hw: tuple[int, int], size_hw: tuple[int, int]) -> str:
    """Why annotations made for one size do not fit a file of another; empty where they do."""
    if said_hw == size_hw or not min(size_hw):
        return ""
    if said_hw != size_hw[::-1]:
        return "made for another size than the file's"
    turn = read_turn(path)
    why = f", as {turn} of the file turns it" if turn else ""
    return f"made for the image with height and width swapped{why}"
