"""The images of COCO's JSON: which file each is, in which frame it is annotated, and by what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rayseg.datasets.coco_annotations import Annotation, read_annotation
from rayseg.datasets.coco_ids import Key, as_json, id_key, image_id, is_text, whole_number
from rayseg.datasets.coco_outlines import BrokenError, Outline
from rayseg.datasets.faults import box_fault
from rayseg.datasets.finding import find_image, leaves
from rayseg.datasets.tally import Tally
from rayseg.records.images import ImageError, read_size, read_turn

_MAX_PIXELS = 178_956_970  # of an image that PIL opens


@dataclass(frozen=True)
class CocoImage:
    """One image of the JSON's list.

    Attributes:
        key: what the image_id of its annotations must mean.
        id: as COCO's files are named.
        source_id: the id as JSON.
        file_name: as the JSON has it.
        path: of the file, or where it should be.
        found: there is something at that path.
        given_hw: height and width as the JSON has them; None where no image can have them.
        size_hw: of the file in stored pixels; zeros where it is not known.
        other_frame: why boxes and outlines are not of the file's pixels; empty where they are.
    """

    key: Key
    id: str
    source_id: str
    file_name: str
    path: Path
    found: bool
    given_hw: tuple[int, int] | None
    size_hw: tuple[int, int] = (0, 0)
    other_frame: str = ""

    @property
    def frame_hw(self) -> tuple[int, int] | None:
        """The size that outlines are drawn in; None where they cannot be."""
        return None if self.other_frame or not any(self.size_hw) else self.size_hw


def read_images(entries: Sequence[Any], folder: Path, file: Path, tally: Tally) -> list[CocoImage]:
    """The images that can be taken, in their order; no file is opened.

    Args:
        file: the JSON, for reasons.
    """
    images: list[tuple[str, CocoImage]] = []
    for place, entry in enumerate(entries):
        where = f"{file}: image {place + 1} of the list"
        try:
            images.append((where, _listed(entry, folder)))
        except BrokenError as error:
            tally.leave_out("images", error.reason, f"{where}{error.found}")
    return _without_repeats(images, tally)


def _listed(entry: object, folder: Path) -> CocoImage:
    if not isinstance(entry, dict):
        raise BrokenError("image is no object", entry)
    key, name = id_key(entry.get("id")), entry.get("file_name")
    if key is None or not is_text(str(key)):
        raise BrokenError("id is lacking or no id", entry.get("id"))
    if isinstance(name, bool) or not isinstance(name, str | int) or not is_text(str(name)):
        raise BrokenError("file_name is lacking or no name", name)
    if not str(name) or "\0" in str(name):
        raise BrokenError("file_name names no file", name)
    path = find_image(folder, str(name))
    if path is None and leaves(str(name)):
        raise BrokenError("file_name leads out of the folder of images", name)
    return CocoImage(
        key,
        image_id(entry["id"]),
        as_json(entry["id"]),
        str(name),
        path or folder / str(name),
        path is not None,
        _given_size(entry),
    )


def _given_size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = (whole_number(entry.get(side)) for side in ("height", "width"))
    if height is None or width is None or min(height, width) < 1 or height * width > _MAX_PIXELS:
        return None
    return height, width


def _without_repeats(images: Sequence[tuple[str, CocoImage]], tally: Tally) -> list[CocoImage]:
    """One image an id: the first of equal ones, none where two files claim it."""
    names = _names(images)
    # "007" and "07" of two files mean what they say and not the same number
    images = [
        (
            where,
            replace(one, key=one.source_id, id=one.source_id) if len(names[one.key]) > 1 else one,
        )
        for where, one in images
    ]
    names = _names(images)
    taken: dict[Key, CocoImage] = {}
    files: set[Path] = set()
    for where, image in images:
        if len(names[image.key]) > 1:
            reason = "id is that of another file too, so its annotations may be of either"
            tally.leave_out("images", reason, f"{where}: id {image.source_id}")
        elif image.key in taken:
            tally.leave_out("images", "the same image twice", f"{where}: id {image.source_id}")
        else:
            taken[image.key] = image
            if image.path in files:
                tally.note("images", "file of another image too", f"{where}: {image.file_name}")
            files.add(image.path)
    return list(taken.values())


def _names(images: Sequence[tuple[str, CocoImage]]) -> dict[Key, set[str]]:
    names: dict[Key, set[str]] = {}
    for _, image in images:
        names.setdefault(image.key, set()).add(image.file_name)
    return names


def measured(image: CocoImage, folder: Path, number: int, tally: Tally) -> CocoImage:
    """The image with the size of its file, which is opened, and what that says of its frame.

    Args:
        number: of images that its file lists.
    """
    if not image.found:
        tally.leave_out("images", f"not found, of {number} that are listed", str(image.path))
        return image
    if image.path != folder / image.file_name:
        tally.note("images", "found under another name", f"{image.file_name}: {image.path}")
    try:
        size_hw = read_size(image.path)
    except ImageError as error:
        tally.leave_out("images", "file cannot be read", f"{image.path}: {error}")
        return image
    if image.given_hw is None:
        reason = "height and width are lacking or none of an image, those of the file count"
        tally.note("images", reason, str(image.path))
    return replace(image, size_hw=size_hw, other_frame=_other_frame(image, size_hw))


def _other_frame(image: CocoImage, size_hw: tuple[int, int]) -> str:
    if image.given_hw in (None, size_hw):
        return ""
    if image.given_hw != size_hw[::-1]:
        return "height and width in the JSON are not those of the image file"
    turn = read_turn(image.path) or "no EXIF orientation"
    return f"height and width in the JSON are swapped against the image file's, which has {turn}"


def annotations_of(
    image: CocoImage,
    entries: Sequence[tuple[int, Mapping[str, Any]]],
    index: Mapping[Key, int],
    file: Path,
    tally: Tally,
    outlines: bool,
) -> list[Annotation]:
    """The annotations of an image that can be used; one that cannot costs itself.

    Args:
        entries: as the JSON has them, each with its place in the list.
        file: the JSON, for reasons.
    """
    found: list[Annotation] = []
    seen: set[tuple[object, ...]] = set()
    for place, entry in entries:
        where = f"{file}: image {image.file_name}: {annotation_name(entry, place)}"
        try:
            one = read_annotation(entry, index, image.frame_hw, outlines)
        except BrokenError as error:
            tally.leave_out("annotations", error.reason, f"{where}{error.found}")
            continue
        for note in one.notes:
            tally.note("annotations", note, where)
        if entry.get("bbox") == []:
            tally.leave_out("boxes", "bbox is an empty list", where)
        if one.outline.without:
            tally.leave_out("outlines", one.outline.without, where)
        content = one.class_index, one.box_xyxy, one.crowd, one.outline.counts
        if one.box_xyxy and content in seen:
            tally.note("annotations", "the same as another of its image, both are taken", where)
        seen.add(content)
        outlined = bool(entry.get("segmentation"))
        found.append(_in_frame(one, outlined, image, where, tally))
        fault = found[-1].box_xyxy and box_fault(found[-1].box_xyxy, image.size_hw)
        if fault:
            tally.note("boxes", f"{fault}: kept as it is, and left out of trainings", where)
    return found


def _in_frame(
    one: Annotation, outlined: bool, image: CocoImage, where: str, tally: Tally
) -> Annotation:
    """The annotation without a box or outline that is not of the file's pixels."""
    if not image.other_frame or (one.box_xyxy is None and not outlined):
        return one
    size = "x".join(map(str, image.given_hw or ()))
    own = "x".join(map(str, image.size_hw))
    example = f"{where}: {size} in the JSON, {own} in the file"
    tally.leave_out(
        "boxes", f"{image.other_frame}: boxes and outlines are of another frame", example
    )
    return replace(one, box_xyxy=None, outline=Outline())


def annotation_name(entry: object, place: int) -> str:
    """What an annotation is called in reasons: by its id, else by its place in the list."""
    own = entry.get("id") if isinstance(entry, dict) else None
    return f"annotation {place + 1} of the list" if own is None else f"annotation {own!r:.40}"
