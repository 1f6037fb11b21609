"""VOC's XML of one image, as many tools write it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from rayseg.datasets.base import finite
from rayseg.datasets.reading import bom_encoding, cleaned, read_bytes

_DECLARATION = re.compile(rb"\A\s*<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']+)[\"'][^>]*\?>")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class XmlError(ValueError):
    """An XML that cannot be read; its text is the reason and names no file.

    Attributes:
        line: where, 0 where no line is to blame.
    """

    def __init__(self, reason: str, line: int = 0):
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class XmlObject:
    """One object: its class's name and its box.

    Attributes:
        name: without invisible characters; empty where it has none.
        box_xyxy: 0-based, end exclusive; None where there is no usable one.
        fault: why there is none.
        difficult: as the XML says.
    """

    name: str
    box_xyxy: tuple[float, float, float, float] | None
    fault: str
    difficult: bool


@dataclass(frozen=True)
class VocXml:
    """What an XML says.

    Attributes:
        size_hw: height and width, None where it says none.
        objects: in the XML's order.
    """

    size_hw: tuple[int, int] | None = None
    objects: tuple[XmlObject, ...] = ()


def read_xml(path: Path) -> VocXml:
    """Reads an XML in any encoding that it declares and Python knows, elements in any case.

    Raises:
        XmlError: it is not XML, of another kind, or in an encoding that is not known.
        DatasetError: it is no file or may not be read.
    """
    root = _parsed(read_bytes(path))
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2].lower()
    if root.tag != "annotation":
        raise XmlError(f"no <annotation> of VOC but <{root.tag[:40]}>")
    # Direct children only: VOC's people hold <part> elements with names and boxes of their own.
    return VocXml(_size(root), tuple(map(_object, root.findall("object"))))


def _parsed(data: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(_decoded(data))
    except ElementTree.ParseError as error:
        raise XmlError(f"not XML ({expat.ErrorString(error.code)})", error.position[0]) from None
    except ValueError as error:
        raise XmlError(f"not XML ({error})") from None


def _decoded(data: bytes) -> str:
    """The text without the declaration, which no longer holds for it."""
    declared = _DECLARATION.match(data)
    encoding = bom_encoding(data) or (declared[1].decode("latin-1") if declared else "utf-8")
    if declared and re.fullmatch(r"(?i)(utf|ucs)[-_ ]?(16|32).*", encoding):
        encoding = "utf-8"  # what declares itself readably is not in such an encoding
    try:
        text = data.decode(encoding)
    except (LookupError, ValueError):
        said = f"declared as {encoding[:40]}" if declared else "of no declared encoding"
        raise XmlError(f"cannot be decoded, {said}: save it as UTF-8") from None
    return re.sub(r"\A\ufeff?\s*<\?xml[^>]*\?>", lambda found: "\n" * found[0].count("\n"), text)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        height, width = (int(finite(_text(root, f"size/{side}"))) for side in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _object(item: ElementTree.Element) -> XmlObject:
    box, fault = _box(item)
    difficult = _text(item, "difficult").lower() in {"1", "true", "yes"}
    return XmlObject(cleaned(_text(item, "name")), box, fault, difficult)


def _box(item: ElementTree.Element) -> tuple[tuple[float, float, float, float] | None, str]:
    """The box of an object, else that around its polygon; VOC counts from 1, includes the last."""
    try:
        if item.find("bndbox") is not None:
            texts = [_text(item, f"bndbox/{side}") for side in _SIDES]
            xmin, ymin, xmax, ymax = map(finite, texts)
        else:
            points = item.findall("polygon//*")
            xs, ys = (_numbers(points, axis) for axis in "xy")
            if not xs and not ys:
                return None, "object has neither bndbox nor polygon"
            if len(xs) != len(ys) or len(set(zip(xs, ys, strict=True))) < 3:
                return None, "polygon has fewer than three points, and the object no bndbox"
            xmin, ymin, xmax, ymax = min(xs), min(ys), max(xs), max(ys)
    except ValueError:
        return None, "box or polygon is not of finite numbers"
    return (xmin - 1, ymin - 1, xmax, ymax), ""


def _numbers(points: Iterable[ElementTree.Element], axis: str) -> list[float]:
    return [finite(one.text or "") for one in points if re.fullmatch(rf"{axis}\d*", one.tag)]


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()
