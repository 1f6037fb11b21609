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

from rayseg.records.scaling import fit

# A closed list: some of PIL's other readers start programs (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_EXIF_ORIENTATION = 0x0112
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""
PHOTO_PIXELS = 178_000_000
"""Most pixels of a photograph that is seen smaller; at 8 bytes each while it is decoded, 1.4 GB."""
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
        pixels: uint8 (h, w, 3) RGB, C-contiguous; in stored order (EXIF rotation not applied), but
            for what was decoded with a `seen_side`.
        note: what was changed to get there, empty for a plain RGB file.
    """

    pixels: UInt8[ndarray, "h w 3"]
    note: str


def decode_image(
    data: bytes | None, seen_side: int = 0, max_pixels: int = 50_000_000, min_side: int = 16
) -> Decoded:
    """Decodes the bytes of one image file to RGB.

    Args:
        data: the whole file, or None where it could not be read.
        seen_side: as `Sample` has it: the picture is turned as EXIF says, and made smaller until no
            side is longer. 0 leaves the pixels as they are stored.
        max_pixels: most pixels (height times width) to decode, judged by the header alone; what is
            made smaller may have PHOTO_PIXELS.
        min_side: least height and width in pixels.

    Raises:
        ImageError: the file is missing, empty, no image, cut short, of more than 8 bits a channel,
            or of a size outside the limits.
    """
    if data is None:
        raise ImageError("file missing or unreadable")
    if not data:
        raise ImageError("file has zero bytes")
    image = _open(io.BytesIO(data), data[:16])
    _check_size(image, max(max_pixels, PHOTO_PIXELS) if seen_side else max_pixels, min_side)
    _check_depth(image)
    return _seen(image, seen_side) if seen_side else Decoded(*_to_rgb(image))


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        size_hw: height and width in stored pixels.
        turn: EXIF orientation, 1 to 8; 1 for a picture that lies as it is looked at.
    """

    size_hw: tuple[int, int]
    turn: int

    @property
    def shown_hw(self) -> tuple[int, int]:
        """Height and width as a viewer shows the picture."""
        return _turned(self.size_hw, self.turn)


def read_size(path: str | Path) -> tuple[int, int]:
    """Reads height and width in stored pixels from the header of a local file.

    Raises:
        ImageError: the file is missing or its header is not that of an image.
    """
    return read_header(path).size_hw


def read_header(path: str | Path) -> Header:
    """Reads the header of a local file.

    Raises:
        ImageError: the file is missing or its header is not that of an image.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe waits for who writes to it
            raise ImageError("no file: it is a folder, a pipe or a device")
        with open(path, "rb") as file:
            start = file.read(16)
            if not start:
                raise ImageError("file has zero bytes")
            file.seek(0)
            image = _open(file, start)
            return Header((image.height, image.width), _orientation(image))
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "strerror", None) or error  # a NUL in a path is a ValueError
        raise ImageError(f"file missing or unreadable: {reason}") from None


def read_turn(path: str | Path) -> str:
    """How EXIF says that a picture must be turned to be looked at; empty where it says nothing."""
    try:
        turn = read_header(path).turn
    except ImageError:
        return ""
    return "" if turn == 1 else f"EXIF orientation {turn}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences PIL's warnings about odd headers; hold it for headers only, decoding is slow."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(file: IO[bytes], start: bytes) -> Image.Image:
    try:
        with _quiet():
            return Image.open(file, formats=("HEIF",) if _is_heif(start) else _FORMATS)
    except ImageError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS)
        raise ImageError(f"not an image: expected {known}, first bytes are {start[:8]!r}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels: {_one_line(error)}") from None
    except Exception as error:  # a damaged header makes PIL's readers raise almost anything
        raise ImageError(f"damaged header: {_one_line(error)}") from None


def _is_heif(start: bytes) -> bool:
    """Whether a file begins as photos of phones do; then Pillow is taught to read it.

    Raises:
        ImageError: what reads it is not installed.
    """
    if start[4:8] != b"ftyp" or start[8:12] not in _HEIF_BRANDS:
        return False
    try:
        import pillow_heif  # noqa: PLC0415  # an extra, and needed by few
    except ImportError:
        raise ImageError(
            "a HEIC photo: `pip install 'rayseg[heic]'` reads it, or save it as JPEG"
        ) from None
    pillow_heif.register_heif_opener()
    return True


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of a picture that is opened and not yet decoded; 1 where it says none.

    Pillow turns TIFF by itself. Of a PNG only what stands before its pixels is read: its own
    `getexif` would decode them first.
    """
    if image.format == "TIFF":
        return 1
    try:
        with _quiet():
            found = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    except Exception:  # a damaged header makes PIL's readers raise almost anything
        return 1
    return found if found in _TURNS else 1


def _turned(size_hw: tuple[int, int], turn: int) -> tuple[int, int]:
    return size_hw[::-1] if turn >= 5 else size_hw


def _seen(image: Image.Image, seen_side: int) -> Decoded:
    """A picture upright, of no longer side than asked for."""
    size_hw = image.height, image.width
    turn = _orientation(image)
    shown_hw = _turned(size_hw, turn)
    height, width = fit(size_hw, seen_side)
    # JPEG is decoded at a half, quarter or eighth of its size where that is still twice as large
    image.draft(None, (2 * width, 2 * height))
    rgb, note = _as_rgb(image)
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if turn != 1:
        rgb = rgb.transpose(_TURNS[turn])
    notes = [note] if note else []
    if (height, width) != size_hw:
        notes.append(f"seen at {rgb.height}x{rgb.width} of {shown_hw[0]}x{shown_hw[1]} pixels")
    if turn != 1:
        notes.append(f"turned as EXIF orientation {turn} says")
    return Decoded(np.array(rgb), "; ".join(notes))


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
    """Pixels as they are stored, and what was changed."""
    rgb, note = _as_rgb(image)
    try:
        with _quiet():
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # as `_as_rgb`
        raise ImageError(f"cannot be decoded: {_one_line(error)}") from None
    notes = [note] if note else []
    if orientation != 1:
        notes.append(f"EXIF orientation {orientation} not applied, pixels kept in stored order")
    return np.array(rgb), "; ".join(notes)


def _as_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """The picture decoded to RGB, and what was changed for that."""
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
        return image.convert("RGB"), "; ".join(note for note in notes if note)
    except Exception as error:  # decoders of damaged data raise almost anything
        raise ImageError(f"cannot be decoded: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__
