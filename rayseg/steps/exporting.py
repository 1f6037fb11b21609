"""The job that writes results of a run in a foreign format."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from rayseg.config import ExportConfig
from rayseg.export import PHOTO, Export, Exporter, Written, at_full_size, connected_parts
from rayseg.records.images import ImageError, decode_image
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import others_there, refuse_changed, staleness
from rayseg.store import (
    Folder,
    read_file,
    read_manifest,
    read_rows,
    shard_columns,
    shard_names,
    stored_ids,
)

_OF_IMAGES = ("split", "path", "source_id", "file_name", "seen_side", "photo_hw")


def export(config: ExportConfig, engine: Engine) -> Outcome:
    """Writes the masks, predictions or instances of a run in a foreign format.

    Raises:
        ValueError: none of them is of the split, or they lack what the format needs.
    """
    run_folder = Folder(config.run)
    manifest = read_manifest(run_folder / "manifest").select(config.split)
    kind, name = "masks", config.masks
    if name.startswith(("predictions/", "instances/")):
        kind, _, name = name.partition("/")
    masks = run_folder / kind / name
    if not shard_names(masks):
        raise FileNotFoundError(f"{masks} holds no masks{others_there(run_folder, kind)}")
    refuse_changed(run_folder / "manifest")
    why = staleness(run_folder, masks)
    if why:
        raise ValueError(f"{masks} {why}; make it again with `rayseg run` or the job that made it")
    exporter = config.exporter()
    have = shard_columns(masks, shard_names(masks)[0])
    missing = {*exporter.columns} - {*have, PHOTO}
    if missing and "labels" not in have:
        raise ValueError(f"format {config.format} needs {min(missing)}; {masks} has none")
    images = manifest.table.select(["id", *_OF_IMAGES]).to_pylist()
    known = {row.pop("id"): row for row in images}
    stored = stored_ids(masks)
    if config.split and known.keys().isdisjoint(stored):
        raise ValueError(
            f"{masks} holds no image of split {config.split!r}; without --split all are written"
        )
    skipped = Counter[str]()
    needed = [column for column in exporter.columns if column != PHOTO]
    columns = ["labels", "height", "width"] if missing else needed
    reading = _Reading(exporter, known, bool(config.split), bool(missing), skipped)
    rows = reading.rows(read_rows(masks, ["id", "status", *columns]))
    split = config.split or ("train" if kind == "masks" else "val")
    written = exporter.write(
        Export(rows, config.out, manifest.classes, manifest.category_ids, split)
    )
    splits = {known[id_]["split"] for id_ in stored if id_ in known}
    wanted = {id_ for id_, row in known.items() if row["split"] in splits}
    skipped["without a row"] = len(wanted - stored)
    told = _told(written, +skipped)
    if missing:
        line = f"export: {masks} holds no objects: each connected part of a class is one"
        return told + Outcome([line])
    return told


@dataclass(frozen=True)
class _Reading:
    """Rows of a folder as a format takes them.

    Attributes:
        exporter: the format.
        known: what the manifest says of images, by id.
        only_known: rows of other images are passed over.
        in_parts: rows have no objects, which are the connected parts of their masks.
        skipped: counts the rows that are left out, by the reason.
    """

    exporter: Exporter
    known: Mapping[str, Mapping[str, Any]]
    only_known: bool
    in_parts: bool
    skipped: Counter[str]

    def rows(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Those that the format takes, with what the manifest knows of their images."""
        for row in rows:
            if self.only_known and row["id"] not in self.known:
                continue
            if row["status"] not in self.exporter.statuses:
                self.skipped[row["status"]] += 1
                continue
            image = self.known.get(row["id"], {"path": ""})
            made = dict(row)
            if self.in_parts:
                made |= connected_parts(made.pop("labels"))
            if PHOTO not in self.exporter.columns:
                if image.get("seen_side"):
                    made = at_full_size(made, tuple(image["photo_hw"]))
            elif (pixels := _photo(image)) is None:
                self.skipped["whose photo cannot be read"] += 1
                continue
            else:
                made[PHOTO] = pixels
            yield made | dict(image)


def _photo(image: Mapping[str, Any]) -> UInt8[ndarray, "h w 3"] | None:
    """The photograph as it was seen; None where it cannot be read."""
    try:
        return decode_image(read_file(image["path"]), image.get("seen_side", 0)).pixels
    except ImageError:
        return None


def _told(written: Written, skipped: Mapping[str, int]) -> Outcome:
    """What was written and what was not; an image without tags has nothing to be written."""
    lines = [f"export: {written}"]
    if skipped:
        shown = ", ".join(f"{number} {why}" for why, number in skipped.items())
        lines.append(f"export: left out {sum(skipped.values())} images: {shown}")
    without = sum(number for why, number in skipped.items() if why != "empty") + written.left_out
    if not written.masks:
        lines.append("export: no mask was written")
        without = max(without, 1)
    return Outcome(lines, left_out=without)
