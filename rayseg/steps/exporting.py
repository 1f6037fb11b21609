"""The job that writes results of a run in a foreign format."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rayseg.config import ExportConfig
from rayseg.export import Export, Exporter, Written
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import others_there, refuse_changed, staleness
from rayseg.store import Folder, read_manifest, read_rows, shard_columns, shard_names, stored_ids


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
    missing = [column for column in exporter.columns if column not in have]
    if missing:
        raise ValueError(
            f"format {config.format} needs {missing[0]} of each object; {masks} holds labels only"
        )
    images = manifest.table.select(["id", "split", "path", "source_id", "file_name"]).to_pylist()
    known = {row.pop("id"): row for row in images}
    stored = stored_ids(masks)
    if config.split and known.keys().isdisjoint(stored):
        raise ValueError(
            f"{masks} holds no image of split {config.split!r}; without --split all are written"
        )
    skipped = Counter[str]()
    rows = _rows(masks, exporter, known, bool(config.split), skipped)
    split = config.split or ("train" if kind == "masks" else "val")
    written = exporter.write(
        Export(rows, config.out, manifest.classes, manifest.category_ids, split)
    )
    splits = {known[id_]["split"] for id_ in stored if id_ in known}
    wanted = {id_ for id_, row in known.items() if row["split"] in splits}
    skipped["without a row"] = len(wanted - stored)
    return _told(written, +skipped)


def _rows(
    masks: Folder,
    exporter: Exporter,
    known: Mapping[str, Mapping[str, Any]],
    only_known: bool,
    skipped: Counter[str],
) -> Iterator[dict[str, Any]]:
    """Rows that the format takes, with what the manifest knows of their images."""
    for row in read_rows(masks, ["id", "status", *exporter.columns]):
        if only_known and row["id"] not in known:
            continue
        if row["status"] in exporter.statuses:
            yield row | dict(known.get(row["id"], {"path": ""}))
        else:
            skipped[row["status"]] += 1


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
