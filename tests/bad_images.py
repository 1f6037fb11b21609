"""One image file of each kind that breaks pipelines."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(size_hw: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Returns a uint8 (h, w, 3) picture in which no two corners look alike."""
    height, width = size_hw
    rows, columns = np.mgrid[:height, :width]
    channels = rows * 255 // height, columns * 255 // width, (rows + columns) * 3 % 256
    return np.stack(channels, axis=-1).astype(np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# Those that cannot be used; the others decode with a note.
REFUSED = frozenset(
    {"truncated", "zero_byte", "text", "sixteen_bit", "sixteen_bit_rgb", "tiny", "huge", "missing"}
)


def write_bad_images(folder: Path) -> dict[str, Path]:
    """Writes one file of each kind and returns their paths; that of ``missing`` is not written."""
    rgb = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray((picture()[..., 0].astype(np.uint16) + 1) * 16)
    alpha = rgb.copy()
    alpha.putalpha(128)
    frames = [rgb, rgb.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    jpeg = encode(rgb, "JPEG", quality=95)
    contents: dict[str, tuple[str, bytes]] = {
        "truncated": ("jpg", jpeg[: len(jpeg) // 2]),
        "zero_byte": ("jpg", b""),
        "text": ("jpg", b"<html>404 not found</html>\n"),
        "cmyk": ("jpg", encode(rgb.convert("CMYK"), "JPEG")),
        "sixteen_bit": ("png", encode(grey16)),
        "sixteen_bit_rgb": ("png", _png16_rgb(picture())),
        "palette": ("png", encode(rgb.quantize(16))),
        "grey": ("jpg", encode(rgb.convert("L"), "JPEG")),
        "alpha": ("png", encode(alpha)),
        "animated": (
            "gif",
            encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100),
        ),
        "exif_rotated": ("jpg", encode(rgb, "JPEG", exif=exif)),
        "tiny": ("png", encode(Image.new("RGB", (1, 1)))),
        # 144 million pixels in 20 KB.
        "huge": ("png", encode(Image.new("1", (12_000, 12_000)))),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{kind}.{suffix}" for kind, (suffix, _) in contents.items()}
    for kind, (_, data) in contents.items():
        paths[kind].write_bytes(data)
    return paths | {"missing": folder / "missing.jpg"}


def _png16_rgb(pixels: np.ndarray) -> bytes:
    """Returns a PNG of 16 bits a channel, which PIL reads as plain RGB but cannot write."""
    height, width, _ = pixels.shape

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    lines = pixels.astype(">u2").reshape(height, -1).tobytes()
    stride = width * 6
    raw = b"".join(b"\0" + lines[i * stride : (i + 1) * stride] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
