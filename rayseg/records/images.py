"""The one border for pixels: bytes of any picture file in, 8-bit RGB or a one-line reason out."""

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

# A closed list: some of PIL's other readers start programs (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_EXIF_ORIENTATION = 0x0112
_NOTES = {
    "RGB": "",
    "L": "grey converted to RGB",
    "LA": "grey converted to RGB, alpha dropped",
    "P": "palette converted to RGB",
    "PA": "palette converted to RGB, alpha dropped",
    "1": "1-bit converted to RGB",
    "RGBA": "alpha dropped",
    "CMYK": "CMYK converted to RGB",
}
# warnings.catch_warnings swaps a list that all threads share: only one of ours may do it at once.
_WARNINGS_LOCK = threading.Lock()


class ImageError(ValueError):
    """An image that cannot be used; its text is the reason, one line."""


@dataclass(frozen=True)
class Decoded:
    """One decoded image.

    Attributes:
        pixels: uint8 (h, w, 3) RGB in stored order (EXIF rotation not applied), C-contiguous.
        note: what was changed to get there, empty for a plain RGB file.
    """

    pixels: UInt8[ndarray, "h w 3"]
    note: str


def decode_image(data: bytes | None, max_pixels: int = 50_000_000, min_side: int = 16) -> Decoded:
    """Decodes the bytes of one image file to RGB.

    Args:
        data: the whole file, or None where it could not be read.
        max_pixels: most pixels (height times width) to decode, judged by the header alone.
        min_side: least height and width in pixels.

    Raises:
        ImageError: the file is missing, empty, no image, cut short, of more than 8 bits a channel,
            or of a size outside the limits.
    """
    if data is None:
        raise ImageError("file missing or unreadable")
    if not data:
        raise ImageError("file has zero bytes")
    image = _open(io.BytesIO(data), data[:8])
    _check_size(image, max_pixels, min_side)
    _check_depth(image)
    return Decoded(*_to_rgb(image))


def read_size(path: str | Path) -> tuple[int, int]:
    """Reads height and width in stored pixels from the header of a local file.

    Raises:
        ImageError: the file is missing or its header is not that of an image.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe waits for who writes to it
            raise ImageError("no file: it is a folder, a pipe or a device")
        with open(path, "rb") as file:
            start = file.read(8)
            if not start:
                raise ImageError("file has zero bytes")
            file.seek(0)
            width, height = _open(file, start).size
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "strerror", None) or error  # a NUL in a path is a ValueError
        raise ImageError(f"file missing or unreadable: {reason}") from None
    return height, width


def read_turn(path: str | Path) -> str:
    """How EXIF says that a picture must be turned to be looked at; empty where it says nothing."""
    try:
        with _quiet(), Image.open(path, formats=_FORMATS) as image:
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a damaged header makes PIL's readers raise almost anything
        return ""
    return "" if orientation == 1 else f"EXIF orientation {orientation}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences PIL's warnings about odd headers; hold it for headers only, decoding is slow."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(file: IO[bytes], start: bytes) -> Image.Image:
    try:
        with _quiet():
            return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        expected = ", ".join(_FORMATS)
        raise ImageError(f"not an image: expected {expected}, first bytes are {start!r}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels: {_one_line(error)}") from None
    except Exception as error:  # a damaged header makes PIL's readers raise almost anything
        raise ImageError(f"damaged header: {_one_line(error)}") from None


def _check_size(image: Image.Image, max_pixels: int, min_side: int) -> None:
    width, height = image.size
    if height * width > max_pixels:
        raise ImageError(f"too many pixels: {height}x{width}, at most {max_pixels} are decoded")
    if min(height, width) < min_side:
        raise ImageError(f"too small: {height}x{width}, each side must be at least {min_side}")


def _check_depth(image: Image.Image) -> None:
    """Refuses more than 8 bits a channel.

    PIL opens a 16-bit colour PNG as plain RGB and keeps the high bytes, which turns 12-bit data
    black; only the raw mode of its tiles tells. ``BGR;16`` without a letter is 5-6-5 bit BMP: fine.
    """
    raw_modes = [str(part) for tile in image.tile for part in _as_tuple(tile[3])]  # type: ignore[attr-defined]
    deep = [mode for mode in raw_modes if re.search(r";16[BLNRS]", mode)]
    if image.mode[:1] in ("I", "F") or deep:
        raise ImageError(
            f"more than 8 bits a channel (mode {deep[0] if deep else image.mode}): its value range "
            "is not known, convert to 8 bits first"
        )


def _as_tuple(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _to_rgb(image: Image.Image) -> tuple[UInt8[ndarray, "h w 3"], str]:
    mode = image.mode
    notes = [_NOTES.get(mode, f"{mode} converted to RGB")]
    try:
        # Asking a GIF whether it is animated seeks to its second frame, which may warn.
        with _quiet():
            if getattr(image, "is_animated", False):
                notes.append("first of several frames kept")
        image.load()
        if "transparency" in image.info:
            # Straight from palette to RGB, PIL warns about transparency given as bytes.
            image = image.convert("RGBA")
            notes.append("transparency dropped")
        pixels = np.array(image.convert("RGB"))
        with _quiet():
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # decoders of damaged data raise almost anything
        raise ImageError(f"cannot be decoded: {_one_line(error)}") from None
    if orientation != 1:
        notes.append(f"EXIF orientation {orientation} not applied, pixels kept in stored order")
    return pixels, "; ".join(note for note in notes if note)


def _one_line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__
