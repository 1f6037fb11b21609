"""The job that writes results of a run in a foreign format."""

from rayseg.config import ExportConfig
from rayseg.export import Export
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import others_there, staleness
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
    table = manifest.table.select(["id", "path"])
    paths = dict(zip(*table.to_pydict().values(), strict=True))
    if config.split and paths.keys().isdisjoint(stored_ids(masks)):
        raise ValueError(
            f"{masks} holds no image of split {config.split!r}; without --split all are written"
        )
    rows = read_rows(masks, ["id", "status", *exporter.columns])
    ready = (
        row | {"path": paths.get(row["id"], "")}
        for row in rows
        if row["status"] in exporter.statuses and (not config.split or row["id"] in paths)
    )
    split = config.split or ("train" if kind == "masks" else "val")
    written = exporter.write(
        Export(ready, config.out, manifest.classes, manifest.category_ids, split)
    )
    return Outcome([f"export: {written}"])
