"""The manifest: one image of a data set a row."""

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayseg.records import Sample
from rayseg.store.damage import read_parquet
from rayseg.store.fingerprints import FileFacts, content_digest, file_facts
from rayseg.store.folder import Folder
from rayseg.store.schemas import MANIFEST_SCHEMA
from rayseg.store.shards import PARQUET, RowsById, rows_to_table


def write_manifest(
    folder: Folder,
    samples: Iterable[Sample],
    classes: Sequence[str],
    category_ids: Sequence[int | str] = (),
    known: Mapping[str, FileFacts] | None = None,
) -> int:
    """Writes samples as the folder's one manifest and returns their number.

    Each row says what its image and its true mask are, so that a change is noticed later.

    Args:
        category_ids: their numbers in the data set's own counting; 1, 2, ... where none are given.
        known: what images were, by path; those of the same size and time are not read again.

    Raises:
        ValueError: an id comes twice, or there is no sample at all.
    """
    seen: set[str] = set()
    sink = io.BytesIO()
    numbers = list(category_ids) or list(range(1, len(classes) + 1))
    schema = MANIFEST_SCHEMA.with_metadata(
        {"classes": json.dumps(list(classes)), "category_ids": json.dumps(numbers)}
    )
    with pq.ParquetWriter(sink, schema, **PARQUET) as writer:
        for group in _groups(samples, 1000):
            for sample in group:
                if sample.id in seen:
                    raise ValueError(f"ids must be unique, got {sample.id!r} twice: {sample.path}")
                seen.add(sample.id)
            with ThreadPoolExecutor(max_workers=8) as pool:  # reading waits for the disk
                rows = list(pool.map(partial(_manifest_row, known or {}), group))
            writer.write_table(rows_to_table(rows, schema))
    if not seen:
        raise ValueError("the manifest must have at least one image, got 0 rows")
    folder.write("manifest.parquet", sink.getvalue())
    return len(seen)


def _groups(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    for sample in samples:
        group.append(sample)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _manifest_row(known: Mapping[str, FileFacts], sample: Sample) -> dict[str, Any]:
    row = {name: _listed(getattr(sample, name)) for name in MANIFEST_SCHEMA.names}
    image = file_facts(sample.path, known.get(sample.path))
    mask = file_facts(sample.mask_path).digest if sample.mask_path else ""
    return row | {
        "image_digest": image.digest, "image_bytes": image.size, "image_mtime_ns": image.mtime_ns,
        "mask_digest": mask,
    }  # fmt: skip


def _listed(value: Any) -> Any:
    """As Arrow takes it."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Manifest:
    """An opened manifest.

    Attributes:
        classes: foreground class names; a tag is an index into them.
        table: rows of MANIFEST_SCHEMA.
        category_ids: number of each class in the data set's own counting, such as COCO's 1 to 90.
    """

    classes: tuple[str, ...]
    table: pa.Table
    category_ids: tuple[int | str, ...] = ()

    def select(self, split: str = "", ids: Iterable[str] | None = None) -> Self:
        """Only the rows of that split, and of those ids; empty and None mean all.

        Raises:
            ValueError: nothing is left, or an id is not in the manifest.
        """
        table = self.table
        if split:
            table = table.filter(pc.equal(table.column("split"), split))
        if ids is not None:
            wanted = set(ids)
            missing = wanted.difference(table.column("id").to_pylist())
            if missing:
                raise ValueError(
                    f"{len(missing)} of {len(wanted)} ids are not in the manifest"
                    f"{f' split {split!r}' if split else ''}, such as {min(missing)!r}"
                )
            kept = pa.array(sorted(wanted), pa.string())
            table = table.filter(pc.is_in(table.column("id"), kept))
        if not table.num_rows:
            have = sorted(set(self.table.column("split").to_pylist()))
            raise ValueError(f"no image is left of split {split!r}; the manifest has {have}")
        return replace(self, table=table)

    def digests(self, reads: Collection[str] = ()) -> dict[str, str]:
        """Digest of what is made of each image: of its file, and of what else is read of its row.

        Args:
            reads: columns beside the image; numbers of classes count with the classes' names.

        Returns:
            By id; empty where an earlier version did not note what the image file is.
        """
        columns = ["id", "image_digest", "seen_side", *reads]
        return {
            row["id"]: self._digest(row) if row["image_digest"] else ""
            for batch in self.table.select(columns).to_batches(max_chunksize=1000)
            for row in batch.to_pylist()
        }

    def _digest(self, row: Mapping[str, Any]) -> str:
        numbers = {*row.get("tags", ()), *row.get("box_classes", ())}
        named = [(number, self.classes[number]) for number in sorted(numbers)]
        read = {**row, "classes": named, "id": ""}
        if not read["seen_side"]:  # as the digests of earlier versions have it
            del read["seen_side"]
        return content_digest(repr(sorted(read.items())).encode())

    def samples(self) -> Iterator[Sample]:
        """The rows as records, one at a time."""
        for batch in self.table.to_batches(max_chunksize=1000):
            yield from map(_sample, batch.to_pylist())


def _sample(row: Mapping[str, Any]) -> Sample:
    given: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in row.items()
    }
    given["boxes_xyxy"] = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)
    given["box_classes"] = np.array(row["box_classes"], np.int64)
    return Sample(**given)


def read_manifest(folder: Folder, true_masks: bool = False, only: Collection[str] = ()) -> Manifest:
    """Opens the manifest of a run.

    Args:
        true_masks: whether to load the objects' true masks, which only scores and a training on
            them need.
        only: columns to load; empty loads all others too. Without all of them it has no samples.

    Raises:
        FileNotFoundError: ``prepare`` has not made one yet.
        ValueError: the file is damaged, no manifest, or has no rows.
    """
    if not folder.exists("manifest.parquet"):
        run = folder.location.rpartition("/")[0]
        raise FileNotFoundError(
            f"{folder} holds no manifest; make one with `rayseg prepare --run {run}` and the flags "
            "of the data set"
        )
    columns = [name for name in MANIFEST_SCHEMA.names if true_masks or name != "true_masks"]
    columns = [name for name in columns if not only or name in only]
    read = partial(_read_columns, columns=columns)
    table = _complete(read_parquet(folder, "manifest.parquet", read), columns, folder)
    if not table.num_rows:
        raise ValueError(f"{folder.path('manifest.parquet')} must have rows, got 0")
    facts = table.schema.metadata or {}
    path = folder.path("manifest.parquet")
    classes = _listed_facts(facts.get(b"classes", b""), path, "classes")
    numbers = _listed_facts(facts.get(b"category_ids", b"[]"), path, "category_ids")
    manifest = Manifest(classes, table, numbers or tuple(range(1, len(classes) + 1)))
    _check_numbers(manifest, path)
    return manifest


def _listed_facts(text: bytes, path: str, key: str) -> tuple[Any, ...]:
    with suppress(ValueError):
        if isinstance(found := json.loads(text), list):
            return tuple(found)
    raise ValueError(f"{path} must have {key} as a list in JSON, has {text[:80]!r}")


def _check_numbers(manifest: Manifest, path: str) -> None:
    read = manifest.table.column_names
    for column in (one for one in ("tags", "box_classes") if one in read):
        used = pc.min_max(pc.list_flatten(manifest.table.column(column))).as_py()
        highest = len(manifest.classes) - 1
        if used["max"] is not None and (used["min"] < 0 or used["max"] > highest):
            raise ValueError(
                f"{path} must have {column} from 0 to {highest}, the last of its classes, "
                f"has {used['min']} to {used['max']}"
            )
    if len(manifest.category_ids) != len(manifest.classes):
        raise ValueError(
            f"{path} must have a number for each of its {len(manifest.classes)} classes, "
            f"has {len(manifest.category_ids)}"
        )


def _read_columns(file: pq.ParquetFile, columns: list[str]) -> pa.Table:
    return file.read(columns, use_threads=False)


_LATER = {
    field.name: field.default
    for field in fields(Sample)
    if field.name
    in (
        "source_id",
        "file_name",
        "image_digest",
        "image_bytes",
        "image_mtime_ns",
        "mask_digest",
        "negative",
        "seen_side",
        "photo_hw",
    )
}
"""Columns that manifests of earlier versions lack, and what stands there then."""


def _complete(table: pa.Table, columns: Sequence[str], folder: Folder) -> pa.Table:
    lacking = [name for name in columns if name not in table.column_names]
    if not _LATER.keys() >= set(lacking):
        raise ValueError(
            f"{folder.path('manifest.parquet')} must have columns {MANIFEST_SCHEMA.names}, "
            f"lacks {[name for name in lacking if name not in _LATER]}"
        )
    for name in columns:
        if name not in table.column_names:
            given = [_LATER[name]] * table.num_rows
            table = table.append_column(name, pa.array(given, MANIFEST_SCHEMA.field(name).type))
    return table.select(columns)


def manifest_rows_by_id(folder: Folder, ids: Iterable[str], columns: Sequence[str]) -> RowsById:
    """Rows of a manifest, read a row group (of a thousand, as written here) at a time."""
    group_of = read_parquet(folder, "manifest.parquet", _groups_of_ids)
    read = partial(_read_group, folder, ["id", *columns])
    return RowsById({id_: group_of[id_] for id_ in ids}, read)


def _groups_of_ids(file: pq.ParquetFile) -> dict[str, int]:
    group_of: dict[str, int] = {}
    for group in range(file.num_row_groups):
        found = file.read_row_group(group, ["id"]).column("id").to_pylist()
        group_of |= dict.fromkeys(found, group)
    return group_of


def _read_group(folder: Folder, columns: list[str], group: int) -> pa.Table:
    return read_parquet(
        folder, "manifest.parquet", lambda file: file.read_row_group(group, columns)
    )
