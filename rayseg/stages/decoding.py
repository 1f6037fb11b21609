"""Manifest rows to rows with pixels."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from jaxtyping import UInt8
from numpy import ndarray

from rayseg.records.images import ImageError, decode_image
from rayseg.stages.rows import Row, Rows
from rayseg.store import MISSING, Folder, content_digest, read_file, read_manifest

_KEPT = ("id", "height", "width", "boxes_xyxy", "box_classes")


class DecodeImages:
    """Manifest rows to rows with pixels: `pixels` holds the RGB bytes, row by row.

    `places` are those of the objects in the lists of boxes, which hold crowds too.

    An image that cannot be used has status ``error`` and its reason, one without tags has status
    ``empty``; the others wait for theirs.

    Args:
        untagged: images without tags wait like the others, for what needs no tags.
    """

    def __init__(self, untagged: bool = False):
        self.untagged = untagged

    def __call__(self, rows: Rows) -> Rows:
        """Reads the files of a batch side by side, since a remote store answers slowly."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            files = pool.map(read_file, [row["path"] for row in rows])
        return [self._decode(row, data) for row, data in zip(rows, files, strict=True)]

    def _decode(self, row: Row, data: bytes | None) -> Row:
        kept = {name: row[name] for name in _KEPT}
        places = range(len(row["box_classes"]))
        kept["places"] = [place for place in places if place not in row["crowds"]]
        kept |= {"status": "", "error": "", "note": "", "classes": list(row["tags"]), "pixels": b""}
        try:
            _check_same(row, data)
            decoded = decode_image(data, row.get("seen_side") or 0)
        except ImageError as error:
            return kept | {"status": "error", "error": f"{row['path']}: {error}"}
        height, width = decoded.pixels.shape[:2]
        kept |= {"height": height, "width": width, "pixels": decoded.pixels.tobytes()}
        if row["tags"] or self.untagged:
            return kept | {"note": decoded.note}
        return kept | {
            "status": "empty",
            "note": "; ".join(filter(None, [decoded.note, _untagged(row)])),
        }


def _untagged(row: Row) -> str:
    return "negative: shows none of the classes" if row.get("negative") else "no tags"


class SeenImages:
    """The images of a manifest, decoded as they are seen.

    Args:
        manifest: says where the images lie, and at which size they are seen.
    """

    def __init__(self, manifest: Folder):
        self._sources = _sources(manifest)

    def pixels(self, id_: str) -> UInt8[ndarray, "h w 3"]:
        """One image.

        Raises:
            ImageError: it cannot be used.
        """
        path, seen_side = self._sources[id_]
        return decode_image(read_file(path), seen_side).pixels

    def seen_side(self, id_: str) -> int:
        """At which one image is seen, as `Sample` has it."""
        return self._sources[id_][1]


@lru_cache(maxsize=1)
def _sources(manifest: Folder) -> dict[str, tuple[str, int]]:
    """Path and side of each image by id.

    Read once a process: tasks are many and short, the manifest of a large data set is long.
    """
    ids, *columns = read_manifest(manifest).table.select(["id", "path", "seen_side"]).columns
    pairs = zip(*(column.to_pylist() for column in columns), strict=True)
    return dict(zip(ids.to_pylist(), pairs, strict=True))


def _check_same(row: Row, data: bytes | None) -> None:
    """Refuses another file than the one that the manifest was made from.

    Raises:
        ImageError: its bytes are others.
    """
    known = row.get("image_digest") or MISSING
    if data is None or known == MISSING or "://" in row["path"]:
        return
    if content_digest(data) != known:
        raise ImageError("file has changed since `rayseg prepare`; run that again")
