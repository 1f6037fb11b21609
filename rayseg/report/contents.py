"""What a run folder holds, as the page needs it: scores in order, tallies of rows, chosen rows.

Every part of the folder may be missing. Shards are read one at a time and, but for the few rows
that are shown, without their maps.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from rayseg.store import (
    FAILED,
    KINDS,
    QUALITY,
    Folder,
    RowsById,
    kind_of,
    parts_of,
    read_index,
    read_rows,
    read_rows_about,
    read_run,
    read_shard,
    shard_sizes,
)

MAX_FAILURES = 50
RESULTS = tuple(dict.fromkeys(k.folder for k in KINDS.values() if k.schema and k.shown))
"""Folders of results in the order in which they are made."""
PREDICTED = tuple(kind.folder for kind in KINDS.values() if kind.predicted)
"""What networks say of other images than those that the other folders are of."""
FULL_SUPERVISION = "truth"
"""What a network is called that was trained on true masks."""
WITHOUT_MAP = "no map"
"""Status of a failure that is one object's and not its image's."""
_CRF = "+crf"
_MEASURES = {FULL_SUPERVISION: 0, "cam": 1}  # the others are measured against them


def number(value: object) -> float | None:
    """The value as a finite number; None for null, NaN and anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


@dataclass(frozen=True)
class Score:
    """One entry of scores.json.

    Attributes:
        name: the folder that was scored, such as ``masks/advcam+crf``.
        facts: its figures as stored; any may be null.
    """

    name: str
    facts: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """One of RESULTS."""
        return self.name.partition("/")[0]

    @property
    def method(self) -> str:
        """The folder's own name, such as ``advcam+crf``."""
        return self.name.partition("/")[2] or self.name

    @property
    def split(self) -> str:
        """The images that it is of; empty where that is not known."""
        return str(self.facts.get("split") or "")

    @property
    def trained_on(self) -> str:
        """Of a network's answers the labels that it was trained on, whether or not with CRF."""
        return self.method.removesuffix(_CRF)

    @property
    def has_crf(self) -> bool:
        """Of predictions whether a CRF was put on the segmenter."""
        return self.method.endswith(_CRF)

    @property
    def is_full_supervision(self) -> bool:
        """Whether these are predictions of a network that was trained on true masks."""
        return self.kind in PREDICTED and self.trained_on == FULL_SUPERVISION

    def number(self, *keys: str) -> float | None:
        """One of its figures, by its key or by its table's and its own."""
        *tables, key = keys
        facts = self.facts
        for table in tables:
            facts = facts.get(table) or {}
        return number(facts.get(key))

    def part(self, key: str) -> dict[str, Any]:
        """One of its tables, such as ``per_class``; empty where there is none."""
        return self.facts.get(key) or {}

    def extremes(self, key: str, count: int) -> list[tuple[str, float]]:
        """Ids and mIoU of the ``best`` images, highest first, or of the ``worst``, lowest first."""
        listed = [(item["id"], number(item.get("miou"))) for item in self.facts.get(key) or []]
        known = [(name, miou) for name, miou in listed if miou is not None]
        return sorted(known, key=lambda item: item[1], reverse=key == "best")[:count]


def reading_order(name: str) -> tuple[int, int, str]:
    """Sorts by RESULTS; first of each the one that the others are measured against."""
    kind, _, method = name.partition("/")
    place = RESULTS.index(kind) if kind in RESULTS else len(RESULTS)
    return place, _MEASURES.get(method.split("+")[0], len(_MEASURES)), method


def read_scores(run: Folder) -> list[Score]:
    """All entries of folders in scores.json in reading order; none where the file is missing."""
    if not run.exists("scores.json"):
        return []
    entries: dict[str, Any] = json.loads(run.read("scores.json"))
    names = sorted(entries.keys() - {QUALITY}, key=reading_order)
    return [Score(name, entries[name] or {}) for name in names]


def final_score(scores: Iterable[Score]) -> Score | None:
    """The masks of the highest mIoU, or the seeds where no masks are scored; no predictions."""
    known = list(scores)
    return _best(known, "masks", "miou") or _best(known, "seeds", "miou")


def final_prediction(scores: Iterable[Score]) -> Score | None:
    """The predictions of the highest mIoU without true masks, or with them where there are none."""
    return _best(scores, "predictions", "miou")


def final_instances(scores: Iterable[Score]) -> Score | None:
    """The instances of the highest AP50 without true masks, or with them where there are none."""
    return _best(scores, "instances", "ap50")


def final_objects(scores: Iterable[Score]) -> Score | None:
    """The masks from boxes that overlap the objects' true ones most."""
    return _best(scores, "objects", "mean_iou")


def _best(scores: Iterable[Score], kind: str, key: str) -> Score | None:
    known = [one for one in scores if one.kind == kind and one.number(key) is not None]
    known.sort(key=lambda one: (one.is_full_supervision, -(one.number(key) or 0)))
    return known[0] if known else None


@dataclass(frozen=True)
class Failure:
    """An image without a result.

    Attributes:
        id: the image's id.
        status: error, poison, not scored, left out, or no map of one of its objects.
        reason: why.
        stages: the folders in which it failed so.
    """

    id: str
    status: str
    reason: str
    stages: tuple[str, ...]


@dataclass(frozen=True)
class FolderSummary:
    """A folder of results, counted.

    Attributes:
        name: such as ``seeds/cam``.
        facts: its run.json; empty where there is none.
        statuses: number of rows of each status.
        notes: number of rows of each note.
        failures: the first failed rows, and the first objects of others without a map.
        objects: number of objects of each status, ``refused`` for those with a reason of their own.
        usable: ids of the rows of status ok.
        failed_ids: ids of the rows without a result.
        busy_seconds: sum of the rows' own seconds.
        stored_bytes: size of its shards.
    """

    name: str
    facts: Mapping[str, Any]
    statuses: Counter[str]
    notes: Counter[str]
    failures: tuple[Failure, ...]
    objects: Counter[str]
    usable: frozenset[str]
    failed_ids: frozenset[str]
    busy_seconds: float
    stored_bytes: int

    @property
    def kind(self) -> str:
        """One of RESULTS."""
        return self.name.partition("/")[0]

    @property
    def images(self) -> int:
        """Number of rows."""
        return self.statuses.total()

    @property
    def refused(self) -> int:
        """Number of objects that nothing could be made of."""
        return self.objects["refused"]

    @property
    def failed(self) -> int:
        """Number of rows without a result."""
        return sum(self.statuses[status] for status in FAILED)

    @property
    def wall_seconds(self) -> float | None:
        """Seconds that the job took, as it says itself."""
        return number(self.facts.get("seconds"))

    @property
    def images_per_second(self) -> float | None:
        """Rows over the job's seconds."""
        return self.images / self.wall_seconds if self.wall_seconds else None

    @property
    def seconds_per_image(self) -> float | None:
        """Mean of the rows' own seconds: what one worker spends on one image."""
        return self.busy_seconds / self.images if self.images else None

    @property
    def bytes_per_image(self) -> float | None:
        """Size on disk over rows."""
        return self.stored_bytes / self.images if self.images else None


def read_stages(run: Folder) -> list[FolderSummary]:
    """Counts every folder of RESULTS, in reading order."""
    names = [f"{kind}/{name}" for kind in RESULTS for name in (run / kind).folders()]
    return [_read_stage(run, name) for name in sorted(names, key=reading_order)]


def _read_stage(run: Folder, name: str) -> FolderSummary:
    folder = run / name
    lines = read_index(folder).to_pylist()
    failed = [line for line in lines if line["status"] in FAILED]
    failures = list(islice(_failures(folder, name, failed), MAX_FAILURES))
    objects: Counter[str] = Counter()
    if (kind := KINDS.get(kind_of(folder))) and kind.holds_objects and not kind.predicted:
        for row in read_rows(folder, ["id", "object_status"]):
            refused = [one for one in row["object_status"] if one not in ("ok", "missed")]
            objects.update(one for one in row["object_status"] if one not in refused)
            objects["refused"] += len(refused)
            failures += [Failure(row["id"], WITHOUT_MAP, one, (name,)) for one in refused]
            del failures[MAX_FAILURES:]
    return FolderSummary(
        name=name,
        facts=read_run(folder),
        statuses=Counter(line["status"] for line in lines),
        notes=Counter(line["note"] for line in lines if line["note"]),
        failures=tuple(failures),
        objects=+objects,
        usable=frozenset(line["id"] for line in lines if line["status"] == "ok"),
        failed_ids=frozenset(line["id"] for line in failed),
        busy_seconds=sum(number(line["seconds"]) or 0.0 for line in lines),
        stored_bytes=sum(shard_sizes(folder).values()),
    )


def _failures(folder: Folder, name: str, failed: Iterable[Mapping[str, Any]]) -> Iterator[Failure]:
    """The failed rows with their reasons, for which only their own shards are read."""
    for shard in dict.fromkeys(line["shard"] for line in failed):
        for row in read_shard(folder, shard, ["id", "status", "error"]).to_pylist():
            if row["status"] in FAILED:
                yield Failure(row["id"], row["status"], row["error"], (name,))


def bad_truths(score: Score) -> list[Failure]:
    """The images that were not scored, as their true mask could not be used."""
    skipped = score.facts.get("skipped") or []
    return [Failure(item["id"], "not scored", item["reason"], (score.name,)) for item in skipped]


def merge_failures(failures: Iterable[Failure]) -> list[Failure]:
    """One entry for each image and reason, with all the stages that met it."""
    merged: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for failure in failures:
        key = (failure.id, failure.status, failure.reason)
        merged[key] = merged.get(key, ()) + failure.stages
    return [Failure(*key, names) for key, names in sorted(merged.items())][:MAX_FAILURES]


def merge_notes(stages: Iterable[FolderSummary]) -> list[tuple[str, int]]:
    """Each note with its number of images: the most of any stage, but PREDICTED are of others."""
    merged: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for stage in stages:
        merged[stage.kind in PREDICTED] |= stage.notes
    return (merged[False] + merged[True]).most_common(MAX_FAILURES)


def find_rows(folder: Folder, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The rows of those ids, whole; of others only those that are stored beside them in memory."""
    lines = read_index(folder).select(["id", "shard"]).to_pylist()
    placed = zip(lines, parts_of(lines), strict=True)
    rows = RowsById(
        {line["id"]: part for line, part in placed if line["id"] in ids},
        partial(read_rows_about, folder, columns=None),
    )
    return {id_: rows[id_] for id_ in rows}
