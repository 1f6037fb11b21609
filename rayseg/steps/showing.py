"""The job that shows one image with the masks of a run on it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.config import ShowConfig
from rayseg.config.borders import SHOWN
from rayseg.export.files import write_anew
from rayseg.records import BACKGROUND, IGNORE, Sample
from rayseg.records.file_names import file_stem
from rayseg.records.painting import encode_png, painted
from rayseg.records.palette import decode_labels
from rayseg.report.contents import find_rows
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.store import Folder, Manifest, read_manifest, read_pixels, shard_names
from rayseg.toml import hint

_GAP = 8  # white pixels between two pictures


def show(config: ShowConfig, engine: Engine) -> Outcome:
    """Writes the photograph and beside it each result on it, and says what they hold.

    Raises:
        FileNotFoundError: a folder of results holds nothing.
        ValueError: the run has no such image, or it cannot be read, or the picture would be
            written over it.
    """
    del engine
    if not config.id:
        raise ValueError("id must name an image, got nothing: `rayseg show RUN ID`")
    run = Folder(config.run)
    manifest = read_manifest(run / "manifest")
    sample = _sample(manifest, config.id)
    out = Path(config.picture or f"{file_stem(sample.id).replace('/', '_')}.overlay.png")
    if os.path.realpath(out) == os.path.realpath(sample.path):
        raise ValueError(f"picture must be another file than the photo, got {out}")
    photo = read_pixels(sample, min_side=1)
    pictures, lines = [photo], []
    for name in config.results or tuple(_results(run)):
        if not shard_names(run / name):
            raise FileNotFoundError(f"{run / name} holds nothing; {run} has: {_listed(run)}")
        row = find_rows(run / name, {sample.id}).get(sample.id, {"status": "no row yet"})
        if row.get("labels"):
            labels = decode_labels(row["labels"])
            pictures.append(painted(photo, labels))
            lines.append(f"{name}: {_shares(labels, manifest.classes)}")
        else:
            lines.append(f"{name}: {_reason(row)}")
    write_anew(out, encode_png(_side_by_side(pictures)))
    shown = "the photo, then in this order:" if len(pictures) > 1 else "the photo; no mask of it"
    return Outcome([f"show: {out}: {shown}", *lines])


def _sample(manifest: Manifest, name: str) -> Sample:
    """The image of that id, or whose file is called so."""
    columns = manifest.table.select(["id", "file_name"]).to_pydict()
    for column in ("id", "file_name"):
        if name in columns[column]:
            id_ = columns["id"][columns[column].index(name)]
            return next(manifest.select(ids=[id_]).samples())
    near = hint(name, columns["id"])
    raise ValueError(f"id must be of an image of the run, got {name!r}{near}")


def _results(run: Folder) -> Iterator[str]:
    """The folders of a run that hold masks."""
    for kind in SHOWN:
        for name in (run / kind).folders():
            if shard_names(run / kind / name):
                yield f"{kind}/{name}"


def _listed(run: Folder) -> str:
    return ", ".join(_results(run)) or "no masks"


def _shares(labels: UInt8[ndarray, "h w"], classes: tuple[str, ...]) -> str:
    """What part of the image each label covers, in words."""
    names = {BACKGROUND: "background", IGNORE: "undecided"}
    names |= {i + 1: name for i, name in enumerate(classes)}
    counts = np.bincount(labels.ravel(), minlength=256)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda label: (-counts[label], label))
    return ", ".join(f"{names[label]} {100 * counts[label] / labels.size:.0f} %" for label in order)


def _reason(row: Mapping[str, Any]) -> str:
    why = row.get("error") or row.get("note")
    return f"no mask, {row['status']}" + (f" ({why})" if why else "")


def _side_by_side(pictures: list[UInt8[ndarray, "h w 3"]]) -> UInt8[ndarray, "h v 3"]:
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)
