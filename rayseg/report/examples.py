"""Images shown side by side: the photograph, the truth, every method's maps and masks."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.records import BACKGROUND, IGNORE, MAX_CLASSES, Sample
from rayseg.records.images import decode_image
from rayseg.records.palette import decode_labels
from rayseg.report import overlays
from rayseg.report.contents import PREDICTED, Score, find_rows
from rayseg.report.instances import box_maps_panel, instances_panel, true_objects_panel
from rayseg.report.panels import Chip, LabelNames, Panel, mark_at
from rayseg.store import VIEW_STRIDES, Folder, Manifest, read_manifest, unpack_grid, unpack_seeds

_UNTAGGED = MAX_CLASSES  # after every class index
_Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Example:
    """One image and everything known of it.

    Attributes:
        id: the image's id.
        photo: data URI of the photograph; empty where it cannot be opened.
        missing: why it cannot be opened.
        size_hw: height and width at which it is embedded.
        chips: the classes of its tags and of all its pictures.
        panels: what is shown beside the photograph.
        ignored: whether a picture has pixels to ignore.
    """

    id: str
    photo: str
    missing: str
    size_hw: tuple[int, int]
    chips: tuple[Chip, ...]
    panels: tuple[Panel, ...]
    ignored: bool

    @property
    def weight(self) -> int:
        """Characters of the page that its pictures take; the photograph is written twice."""
        return 2 * len(self.photo) + sum(len(panel.layer) for panel in self.panels)


def choose_ids(manifest: Manifest, split: str, usable: Collection[str], count: int) -> list[str]:
    """Ids that take the classes in turn, the same at every call.

    Args:
        split: only images of it; empty means all.
        usable: ids that have a result; empty where nothing has one yet, and all are taken.
        count: how many at most.
    """
    columns = manifest.table.select(["id", "tags", "split"]).to_pydict()
    rows = zip(columns["id"], columns["tags"], columns["split"], strict=True)
    queues: dict[int, list[str]] = {}
    for name, tags, of_split in rows:
        if split in ("", of_split) and (not usable or name in usable):
            for tag in tags or [_UNTAGGED]:
                queues.setdefault(tag, []).append(name)
    shuffled = [
        sorted(queues[tag], key=lambda name: hashlib.sha256(name.encode()).digest())
        for tag in sorted(queues)
    ]
    turns = chain.from_iterable(zip_longest(*shuffled))
    return list(dict.fromkeys(name for name in turns if name is not None))[:count]


def load_examples(
    run: Folder,
    manifest: Manifest,
    ids: Collection[str],
    stages: Collection[str],
    thresholds: Mapping[str, float],
) -> dict[str, Example]:
    """Opens those images with their truth and the stages' results.

    Args:
        ids: the images; one that the manifest lacks is left out.
        stages: folders of results, in the order in which they are shown.
        thresholds: background threshold of each folder of seeds that is scored.
    """
    wanted = set(ids)
    known = wanted.intersection(manifest.table.column("id").to_pylist())
    if not known:
        return {}
    rows = {stage: find_rows(run / stage, wanted) for stage in stages}
    samples = manifest.select(ids=known).samples()
    if any(map(_of_objects, rows.values())):
        samples = read_manifest(run / "manifest", true_masks=True).select(ids=known).samples()
    names = LabelNames(manifest.classes)
    return {sample.id: make_example(sample, names, rows, thresholds) for sample in samples}


def _of_objects(rows: Mapping[str, Mapping[str, Any]]) -> bool:
    return any("object_status" in row for row in rows.values())


def make_example(
    sample: Sample,
    names: LabelNames,
    rows: _Rows,
    thresholds: Mapping[str, float],
    long_side: int = overlays.LONG_SIDE,
) -> Example:
    """One image with its truth and its rows.

    Args:
        rows: by stage, then by id; an image without a row says that it is not made yet.
        thresholds: background threshold of each folder of seeds that is scored.
        long_side: pixels of the pictures' longer side.
    """
    photo, missing, size_hw = _open_photo(sample, long_side)
    panels = [_truth(sample, size_hw, names)] if sample.mask_path else []
    if any(map(_of_objects, rows.values())):
        panels.append(true_objects_panel(sample, size_hw, names))
    for stage, found in rows.items():
        row = found.get(sample.id)
        panels.append(_result(stage, row, size_hw, thresholds.get(stage), names))
        panels += _views(stage, row or {}, size_hw)
    seen = frozenset(tag + 1 for tag in sample.tags).union(*(panel.labels for panel in panels))
    chips = tuple(names.chip(label) for label in sorted(seen - {BACKGROUND, IGNORE}))
    return Example(sample.id, photo, missing, size_hw, chips, tuple(panels), IGNORE in seen)


def _read(path: str) -> bytes:
    parent, slash, name = path.rpartition("/")
    return Folder(parent or slash or ".").read(name)


def _open_photo(sample: Sample, long_side: int) -> tuple[str, str, tuple[int, int]]:
    """Data URI, or the reason why there is none, and the size of the pictures."""
    size_hw = overlays.fit((max(1, sample.height), max(1, sample.width)), long_side)
    try:
        pixels = decode_image(_read(sample.path), sample.seen_side, min_side=1).pixels
    except (OSError, ValueError) as error:
        return "", str(error), size_hw
    size_hw = overlays.fit((pixels.shape[0], pixels.shape[1]), long_side)
    return overlays.jpeg_uri(overlays.resize_photo(pixels, size_hw)), "", size_hw


def _truth(sample: Sample, size_hw: tuple[int, int], names: LabelNames) -> Panel:
    try:
        labels = decode_labels(_read(sample.mask_path))
    except (OSError, ValueError) as error:
        return Panel("truth", missing=str(error))
    return _mask_panel("truth", labels, size_hw, names)


def _mask_panel(
    caption: str, labels: UInt8[ndarray, "h w"], size_hw: tuple[int, int], names: LabelNames
) -> Panel:
    layer = overlays.label_layer(overlays.resize_labels(labels, size_hw))
    alt = f"{caption}: {names.shares(labels)}"
    present = frozenset(np.unique(labels).tolist())
    return Panel(caption, alt, overlays.png_uri(layer), labels=present, marks=names.marks(labels))


def _result(
    stage: str,
    row: Mapping[str, Any] | None,
    size_hw: tuple[int, int],
    threshold: float | None,
    names: LabelNames,
) -> Panel:
    score = Score(stage, {})
    caption = _caption(score)
    if row is None:
        return Panel(caption, missing="not made yet")
    if row["status"] not in ("ok", "empty"):
        return Panel(caption, missing=f"{row['status']}: {row['error']}")
    if score.kind == "box_maps":
        return box_maps_panel(caption, row, size_hw, names)
    if row.get("foreground"):
        return instances_panel(caption, row, size_hw, names)
    if score.kind != "seeds":
        return _stored_mask(caption, row, size_hw, names)
    return _seed_panel(caption, row, size_hw, threshold, names)


def _caption(score: Score) -> str:
    """The method; of a network's answers what it saw, as "truth" is the caption of the truth."""
    if score.kind not in PREDICTED:
        return score.method
    return f"trained on {score.trained_on}{', CRF' if score.has_crf else ''}"


def _stored_mask(
    caption: str, row: Mapping[str, Any], size_hw: tuple[int, int], names: LabelNames
) -> Panel:
    if not row["labels"]:
        return Panel(caption, missing=f"{row['status']}: no mask")
    return _mask_panel(caption, decode_labels(row["labels"]), size_hw, names)


def _views(stage: str, row: Mapping[str, Any], size_hw: tuple[int, int]) -> list[Panel]:
    """What a walk went by, where the row has it."""
    return [
        _view_panel(f"{name} of {_caption(Score(stage, {}))}", row, name, size_hw)
        for name in VIEW_STRIDES
        if row.get(name)
    ]


def _view_panel(caption: str, row: Mapping[str, Any], name: str, size_hw: tuple[int, int]) -> Panel:
    grid = unpack_grid(row[name])
    image_hw = (row["height"], row["width"])
    layer = overlays.grey_layer(grid, VIEW_STRIDES[name], image_hw, size_hw)
    alt = f"{caption}: {grid.mean():.2f} on average"
    return Panel(caption, alt, overlays.png_uri(layer), of_walk=True)


def _seed_panel(
    caption: str,
    row: Mapping[str, Any],
    size_hw: tuple[int, int],
    threshold: float | None,
    names: LabelNames,
) -> Panel:
    seeds = unpack_seeds(row)
    if not seeds.classes:
        return Panel(caption, missing=f"{row['status']}: no class to look for")
    maps = overlays.resize_maps(seeds.maps, seeds.size_hw, size_hw)
    layer = overlays.png_uri(overlays.heat_layer(maps, seeds.classes, threshold))
    present = frozenset(index + 1 for index in seeds.classes)
    marks = tuple(
        mark_at(names.mark(index + 1), plane >= plane.max())
        for index, plane in zip(seeds.classes, maps, strict=True)
    )
    alt = f"{caption}: maps"
    if threshold is not None:
        cut = overlays.maps_to_labels(maps, seeds.classes, threshold)
        alt = f"{caption}: {names.shares(cut)} above {threshold:.2f}"
    return Panel(caption, alt, layer, labels=present, marks=marks)
