"""The classes of a data set in VOC's layout."""

from collections.abc import Iterable
from pathlib import Path

from rayseg.datasets.base import DatasetError
from rayseg.datasets.class_names import ClassIndex
from rayseg.datasets.reading import cleaned, lines_of, read_text

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_NO_CLASS = ("background", "ignored", "ignore", "void")


def found_classes(names: Iterable[str]) -> tuple[str, ...]:
    """VOC's 20 if all names are of these, upper case or not; else the names, sorted."""
    names = sorted(set(names))
    official = ClassIndex(CLASSES)
    return CLASSES if all(official.of(name) is not None for name in names) else tuple(names)


def labelmap_classes(path: Path) -> tuple[str, ...]:
    """The classes of a ``labelmap.txt`` as CVAT and our exporter write it; () where there is none.

    Its lines are ``name:colour:parts:actions`` in the order of the labels, background first.

    Raises:
        DatasetError: the first label is not background, so that the masks' labels are not known.
    """
    if not path.exists():
        return ()
    lines = [line for line in lines_of(read_text(path)) if line.strip() and line[0] != "#"]
    names = [cleaned(line.partition(":")[0]) for line in lines]
    if names[:1] != ["background"]:
        raise DatasetError(
            f"{path}: expected background as the first label, got {(names or ['no line'])[0]!r}: "
            "name the classes by --voc.class-names"
        )
    return tuple(name for name in names if name not in _NO_CLASS)
