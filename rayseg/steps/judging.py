"""Masks judged without true masks: what they show of each class, and whom to warn of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rayseg.config import ScoreConfig
from rayseg.scores import ClassQuality, TagCounts, qualities
from rayseg.stages import CountTagged
from rayseg.steps.engine import Engine, Pool, Stored
from rayseg.store import Folder, Manifest, find_pending, holds_objects, read_manifest, read_rows

COUNTED_ROWS = 256
"""Rows counted together: few rows of counts come back to be added."""
JudgedMasks = dict[str, list[ClassQuality]]
"""Classes by the name of the masks."""


def judge_masks(
    run: Folder, config: ScoreConfig, engine: Engine, ids: Sequence[str] | None = None
) -> JudgedMasks:
    """Every folder of masks from tags, whether or not there is truth."""
    manifest = read_manifest(run / "manifest")
    tags = tags_of(manifest.select(config.split, ids))
    judged: JudgedMasks = {}
    for name in (run / "masks").folders():
        folder, maps = run / "masks" / name, _maps_of(run, name)
        if maps is None and holds_objects(folder):  # from boxes, of which no classifier knows
            continue
        counts = _count(folder, tags, manifest, config, engine)
        asked = _recognised(maps, tags, len(manifest.classes)) if maps else (None, None)
        if found := qualities(manifest.classes, counts, *asked):
            judged[name] = found
    return judged


def tags_of(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """The class indices of each image that has some."""
    columns = manifest.table.select(["id", "tags"]).to_pydict()
    return {id_: tuple(own) for id_, own in zip(columns["id"], columns["tags"], strict=True) if own}


def as_entry(judged: JudgedMasks) -> dict[str, Any]:
    """What scores.json has of it: counts, shares and words of each class, by masks and class."""
    return {
        f"masks/{masks}": {one.name: one.as_dict() for one in found}
        for masks, found in judged.items()
    }


def _maps_of(run: Folder, masks: str) -> Folder | None:
    """The maps that masks were made of; their names begin with those of their maps."""
    names = [name for name in (run / "seeds").folders() if masks.startswith(f"{name}+")]
    return run / "seeds" / max(names, key=len) if names else None


def _count(
    folder: Folder,
    tags: Mapping[str, tuple[int, ...]],
    manifest: Manifest,
    config: ScoreConfig,
    engine: Engine,
) -> TagCounts:
    total = TagCounts.zeros(len(manifest.classes))
    statuses = {row["id"]: row["status"] for row in read_rows(folder, ["id", "status"])}
    left_out = {id_ for id_, status in statuses.items() if status != "ok" or id_ not in tags}
    pending = find_pending(folder, left_out)
    if not pending.rows:
        return total
    make = partial(CountTagged, tags, len(manifest.classes))
    pool = Pool(make, rows=COUNTED_ROWS)
    for row in engine.collect(Stored(pending), pool, config.compute):
        total = total + TagCounts.from_flat(row["counts"])
    return total


def _recognised(
    maps: Folder, tags: Mapping[str, tuple[int, ...]], num_classes: int
) -> tuple[list[int], list[int]]:
    """Images with the tag and a map, and those in which the classifier denies it, by class."""
    asked, denied = [0] * num_classes, [0] * num_classes
    for row in read_rows(maps, ["id", "status", "classes", "scores"]):
        if row["status"] != "ok" or row["id"] not in tags:
            continue
        for index, logit in zip(row["classes"], row["scores"], strict=False):
            asked[index] += 1
            denied[index] += logit < 0
    return asked, denied
