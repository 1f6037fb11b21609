"""Small pictures made when they are asked for, and files of photographs as they lie there."""

import threading
from collections.abc import Sequence
from contextlib import suppress

from rayseg.records.images import decode_image
from rayseg.records.painting import painted
from rayseg.records.palette import decode_labels
from rayseg.report import overlays
from rayseg.report.view.cache import Recent
from rayseg.report.view.runs import ViewedRun
from rayseg.store import read_file

SMALL = 256
"""Pixels of the longer side of a picture in the gallery."""
HELD_BYTES = 48 << 20
"""Bytes of small pictures that are held."""
AT_ONCE = 2
"""Photographs that are decoded at once; a large one takes up to 1.4 GB."""
_STARTS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}


class Pictures:
    """Pictures of the gallery, those that were made last held in bounded memory."""

    def __init__(self, held_bytes: int = HELD_BYTES):
        self.held = Recent[bytes](held_bytes, len)
        self._turn = threading.BoundedSemaphore(AT_ONCE)
        self._closed = threading.Event()

    def make_ahead(self, run: ViewedRun, result: str, ids: Sequence[str]) -> threading.Thread:
        """Makes small pictures before they are asked for, in the thread that is returned."""

        def make() -> None:
            for id_ in ids:
                if self._closed.is_set():
                    return
                with suppress(LookupError, ValueError, OSError):  # who asks for it is told
                    self.small(run, result, id_)

        thread = threading.Thread(target=make, daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Ends what is made ahead."""
        self._closed.set()

    def small(self, run: ViewedRun, result: str, id_: str) -> bytes:
        """A photograph with its mask on it, as JPEG; without a mask the photograph.

        Raises:
            LookupError: the run has no such image or folder.
            ValueError: the photograph cannot be read.
        """
        place = run.result(result).part_of.get(id_) if result else None
        return self.held.get(
            (run.run.location, result, id_, place), lambda: self._made(run, result, id_)
        )

    def _made(self, run: ViewedRun, result: str, id_: str) -> bytes:
        sample = run.sample(id_)
        # what is seen smaller than it is stored may be seen smaller still, which is sooner decoded
        side = min(sample.seen_side, SMALL)
        with self._turn:
            pixels = decode_image(read_file(sample.path), side, min_side=1).pixels
            size_hw = overlays.fit((pixels.shape[0], pixels.shape[1]), SMALL)
            photo = overlays.resize_photo(pixels, size_hw)
            if png := run.labels_png(result, id_) if result else b"":
                photo = painted(photo, overlays.resize_labels(decode_labels(png), size_hw))
            return overlays.jpeg_bytes(photo)


def photo_file(run: ViewedRun, id_: str) -> tuple[str, bytes]:
    """The photograph's file as it lies there, and its media type.

    Raises:
        LookupError: the run has no such image, or the file is gone or no picture.
    """
    path = run.sample(id_).path
    data = read_file(path)
    if data is None:
        raise LookupError(f"{path} cannot be read; it was there when `rayseg prepare` read it")
    kind = _media_type(data)
    if not kind:
        raise LookupError(f"{path} is no picture that a browser would know")
    return kind, data


def _media_type(data: bytes) -> str:
    """By the first bytes; empty for what is no picture."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return "image/heic"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), "")
