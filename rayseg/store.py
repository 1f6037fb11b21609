"""The one place for files: folders of Parquet shards, maps and labels as PNG bytes, run.json.

Everything here is plain Arrow types, so that pyarrow, pandas or DuckDB read it without rayseg. A
folder is a local path or a URI that pyarrow knows (``s3://bucket/run``); a file appears whole or
not at all. A shard is named after the ids in it: writing the same rows twice leaves one file, so a
task that is retried repeats nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from pyarrow import fs

from rayseg.records import Sample, Seeds

MANIFEST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("tags", pa.list_(pa.int32())),
        ("boxes_xyxy", pa.list_(pa.list_(pa.float32()))),
        ("box_classes", pa.list_(pa.int32())),
        ("split", pa.string()),
        ("mask_path", pa.string()),
        ("difficult", pa.list_(pa.int32())),
        ("crowds", pa.list_(pa.int32())),
        ("true_masks", pa.list_(pa.binary())),  # COCO's counts, one a box or none at all
    ]
)
"""One image of a dataset a row; the class names stand in the file's metadata as JSON."""

_OUTCOME = [
    ("id", pa.string()),
    ("status", pa.string()),  # ok, empty, error or poison
    ("error", pa.string()),  # why there is no result
    ("note", pa.string()),  # what was done to the image, such as "grey converted to RGB"
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("seconds", pa.float32()),
]
SEEDS_SCHEMA = pa.schema(
    [
        *_OUTCOME,
        ("classes", pa.list_(pa.int32())),
        ("maps", pa.list_(pa.binary())),  # one grey PNG a class, at a quarter of the image
        ("scores", pa.list_(pa.float32())),  # logit of each class on the image itself
        ("gains", pa.list_(pa.float32())),  # logit gained by the method
        ("steps", pa.int32()),
    ]
)
MASKS_SCHEMA = pa.schema(
    [
        *_OUTCOME,
        ("labels", pa.binary()),  # indexed PNG: 0, class index + 1, 255
        ("ignored", pa.float32()),  # share of pixels that are 255
    ]
)
_OBJECTS = [
    ("boxes_xyxy", pa.list_(pa.list_(pa.float32()))),
    ("classes", pa.list_(pa.int32())),
    ("object_status", pa.list_(pa.string())),  # ok, missed, or why there is no map
]
BOX_MAPS_SCHEMA = pa.schema(
    [
        *_OUTCOME,
        *_OBJECTS,  # one entry an object in each of these lists
        ("maps", pa.list_(pa.binary())),  # grey PNG of a grid whose corners are the image's
        ("positives", pa.list_(pa.int32())),  # candidates that predict the object
        ("box_loss", pa.list_(pa.float32())),  # what the map changes in the box head's answer
        ("class_loss", pa.list_(pa.float32())),  # ... in the class head's
        ("steps", pa.int32()),
    ]
)
INSTANCES_SCHEMA = pa.schema(
    [
        *MASKS_SCHEMA,
        *_OBJECTS,
        ("scores", pa.list_(pa.float32())),  # of a network's detections; 1 for given boxes
        ("foreground", pa.list_(pa.binary())),  # COCO's counts: surely of the object
        ("possible", pa.list_(pa.binary())),  # ... and what may be; empty where there is no doubt
    ]
)
ANALYSES_SCHEMA = pa.schema(
    [
        *_OUTCOME,
        ("objects", pa.string()),  # JSON, of each object its box's share and what variants come to
    ]
)
FAILED = ("error", "poison")
MAP_STRIDE = 4
"""Stored maps have ceil(h / 4) x ceil(w / 4) cells; cell i covers pixels 4i to 4i + 3."""


@dataclass(frozen=True)
class Folder:
    """A folder of the run, local or remote.

    Attributes:
        location: a local path or a URI; a path is made absolute, since workers start elsewhere.
    """

    location: str

    def __post_init__(self) -> None:
        local = self.location.removeprefix("file://")
        if "://" not in local:
            object.__setattr__(self, "location", str(Path(local).absolute()))

    @cached_property
    def _where(self) -> tuple[fs.FileSystem, str]:
        if "://" in self.location:
            return fs.FileSystem.from_uri(self.location)
        return fs.LocalFileSystem(), self.location

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path(name))

    def __str__(self) -> str:
        return self.location

    def exists(self, name: str = "") -> bool:
        """Whether the folder, or the file of that name in it, is there."""
        return self._info(name).type != fs.FileType.NotFound

    def names(self, suffix: str = "") -> list[str]:
        """Names of the files directly in the folder that end so, sorted; none if it is missing."""
        filesystem, path = self._where
        found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(
            item.base_name for item in found if item.is_file and item.base_name.endswith(suffix)
        )

    def folders(self) -> list[str]:
        """Names of the folders directly in the folder, sorted; none if it is missing."""
        filesystem, path = self._where
        found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(item.base_name for item in found if item.type == fs.FileType.Directory)

    def path(self, name: str) -> str:
        """The absolute path or URI of a file in the folder."""
        return f"{self.location.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> pa.NativeFile:
        """The file, opened for reading any part of it.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        if not self.exists(name):
            raise FileNotFoundError(f"{self.path(name)} does not exist")
        filesystem, path = self._where
        return filesystem.open_input_file(f"{path}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Writes the file so that a reader sees all of it or nothing.

        Raises:
            OSError: the folder cannot be written to.
        """
        filesystem, path = self._where
        draft = f"{path}/.{name}.{uuid4().hex[:8]}.tmp"  # of this writer's own
        try:
            filesystem.create_dir(path, recursive=True)
            with filesystem.open_output_stream(draft) as file:
                file.write(data)
            filesystem.move(draft, f"{path}/{name}")
        except OSError as error:
            raise OSError(f"cannot write {self.path(name)}: {error}") from error

    def delete(self, name: str) -> None:
        """Deletes the file."""
        filesystem, path = self._where
        filesystem.delete_file(f"{path}/{name}")

    def remove(self) -> None:
        """Deletes the folder with all that is in it, where there is one."""
        filesystem, path = self._where
        if self.exists():
            filesystem.delete_dir(path)

    def _info(self, name: str) -> fs.FileInfo:
        filesystem, path = self._where
        return filesystem.get_file_info(f"{path}/{name}" if name else path)


def read_file(address: str) -> bytes | None:
    """The bytes of one file, a local path or a URI; None where it cannot be read."""
    parent, _, name = address.rpartition("/")
    try:
        return Folder(parent or ("/" if address.startswith("/") else ".")).read(name)
    except (OSError, pa.ArrowException):
        return None


def local_copy(address: str) -> str:
    """The path of a file for libraries that open only local ones; a remote file is fetched.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if "://" not in address:
        return address
    data = read_file(address)
    if data is None:
        raise FileNotFoundError(f"{address} does not exist")
    name = f"rayseg-{hashlib.sha256(data).hexdigest()[:16]}-{address.rpartition('/')[2]}"
    path = Path(tempfile.gettempdir()) / name
    if not path.exists():
        Folder(str(path.parent)).write(name, data)
    return str(path)


# Tables


def rows_to_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of that schema; a column that a row lacks gets its type's zero value."""
    zeros = {field.name: _zero(field.type) for field in schema}
    return pa.Table.from_pylist([zeros | dict(row) for row in rows], schema=schema)


def _zero(kind: pa.DataType) -> object:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return b""
    return "" if pa.types.is_string(kind) else 0


def write_shard(folder: Folder, table: pa.Table) -> str:
    """Writes the rows as one shard and returns its name, which follows from the ids alone."""
    ids = "\n".join(sorted(table.column("id").to_pylist()))
    name = f"part-{hashlib.sha256(ids.encode()).hexdigest()[:16]}.parquet"
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    folder.write(name, sink.getvalue())
    return name


def read_shard(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One shard, whole or only some of its columns."""
    with folder.open(name) as file:
        return pq.read_table(file, columns=columns)


def shard_columns(folder: Folder, name: str) -> list[str]:
    """Names of a shard's columns; none of its rows is read."""
    with folder.open(name) as file:
        return pq.read_schema(file).names


def read_rows(folder: Folder, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows of a folder, shard by shard, so that memory does not grow with their number."""
    for name in folder.names(".parquet"):
        yield from read_shard(folder, name, columns).to_pylist()


def stored_ids(folder: Folder) -> set[str]:
    """Ids of the images that have a row in the folder."""
    return {row["id"] for row in read_rows(folder, ["id"])}


class RowsById(Mapping[str, dict[str, Any]]):
    """Rows by id, of which only ids are held and the parts of a file that were read last.

    Rows are asked for in nearly the order in which they are stored, so that reading a row's whole
    part reads the next rows too. What was read does not travel to other processes.

    Args:
        part_of: the part of each id, in the order of the ids.
        read: the rows of a part, with their `id`; picklable.

    Raises:
        KeyError: when a row is asked for, the id is not known, or gone from its part.
    """

    def __init__(self, part_of: Mapping[str, Any], read: Callable[[Any], pa.Table]):
        self.part_of, self._read = part_of, read
        self._recent: dict[Any, dict[str, dict[str, Any]]] = {}

    def __getitem__(self, id_: str) -> dict[str, Any]:
        part, recent = self.part_of[id_], self._recent
        if part not in recent:
            rows = {row["id"]: row for row in self._read(part).to_pylist()}
            self._recent = recent = dict([*recent.items(), (part, rows)][-_RECENT:])
        return recent[part][id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self.part_of)

    def __len__(self) -> int:
        return len(self.part_of)

    def __contains__(self, id_: object) -> bool:
        return id_ in self.part_of  # Mapping's own would read the row

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": {}}


_RECENT = 4


@dataclass(frozen=True)
class Pending:
    """What of a source is not stored yet.

    Attributes:
        shards: addresses of the shards that hold such rows.
        skip: ids in those shards that are stored already.
        rows: number of rows that are not.
    """

    shards: list[str]
    skip: frozenset[str]
    rows: int


def find_pending(source: Folder, stored: set[str]) -> Pending:
    """The part of a source folder whose ids are not stored yet."""
    shards, skip, rows = [], set(), 0
    for name in source.names(".parquet"):
        ids = set(read_shard(source, name, ["id"]).column("id").to_pylist())
        if not stored.issuperset(ids):
            shards.append(source.path(name))
            skip |= ids & stored
            rows += len(ids - stored)
    return Pending(shards, frozenset(skip), rows)


def count_status(folder: Folder) -> dict[str, int]:
    """Number of rows of each status in a folder of seeds or masks."""
    counts = Counter(row["status"] for row in read_rows(folder, ["status"]))
    return dict(sorted(counts.items()))


def failed_ids(folder: Folder) -> frozenset[str]:
    """Ids of the images whose row says error or poison."""
    rows = read_rows(folder, ["id", "status"])
    return frozenset(row["id"] for row in rows if row["status"] in FAILED)


def forget_failed(folder: Folder) -> None:
    """Takes the rows of failed images out, so that they are tried again."""
    _keep_only(folder, lambda id_, status: status not in FAILED)


def forget_repeats(folder: Folder) -> None:
    """Leaves one row of each image.

    An actor that outlives its killed job may store rows that the next job stores too; the rows are
    alike, their shards are not.
    """
    seen: set[str] = set()

    def first(id_: str, status: str) -> bool:
        fresh = id_ not in seen
        seen.add(id_)
        return fresh

    _keep_only(folder, first)


def _keep_only(folder: Folder, wanted: Callable[[str, str], bool]) -> None:
    for name in folder.names(".parquet"):
        known = read_shard(folder, name, ["id", "status"]).to_pylist()
        keep = [wanted(row["id"], row["status"]) for row in known]
        if all(keep):
            continue
        table = read_shard(folder, name)
        folder.delete(name)  # first: rows lost to a kill here are made again, never twice
        if any(keep):
            write_shard(folder, table.filter(pa.array(keep)))


# The manifest


def write_manifest(
    folder: Folder,
    samples: Iterable[Sample],
    classes: Sequence[str],
    category_ids: Sequence[int] = (),
) -> int:
    """Writes samples as the folder's one manifest and returns their number.

    Args:
        folder: of the manifest.
        samples: the images.
        classes: names of the foreground classes.
        category_ids: their numbers in the data set's own counting; 1, 2, ... where none are given.

    Raises:
        ValueError: an id comes twice, or there is no sample at all.
    """
    seen: set[str] = set()
    sink = io.BytesIO()
    numbers = list(category_ids) or list(range(1, len(classes) + 1))
    schema = MANIFEST_SCHEMA.with_metadata(
        {"classes": json.dumps(list(classes)), "category_ids": json.dumps(numbers)}
    )
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _groups(samples, 1000):
            for sample in group:
                if sample.id in seen:
                    raise ValueError(f"ids must be unique, got {sample.id!r} twice: {sample.path}")
                seen.add(sample.id)
            writer.write_table(rows_to_table(map(_manifest_row, group), schema))
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


def _manifest_row(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "path": sample.path,
        "height": sample.height,
        "width": sample.width,
        "tags": list(sample.tags),
        "boxes_xyxy": sample.boxes_xyxy.tolist(),
        "box_classes": sample.box_classes.tolist(),
        "split": sample.split,
        "mask_path": sample.mask_path,
        "difficult": list(sample.difficult),
        "crowds": list(sample.crowds),
        "true_masks": list(sample.true_masks),
    }


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
    category_ids: tuple[int, ...] = ()

    def select(self, split: str = "", ids: Iterable[str] | None = None) -> Manifest:
        """Only the rows of that split, and of those ids; empty and None mean all.

        Raises:
            ValueError: nothing is left, or an id is not in the manifest.
        """
        table = self.table
        if split:
            table = table.filter(pa.compute.equal(table.column("split"), split))
        if ids is not None:
            wanted = set(ids)
            missing = wanted.difference(table.column("id").to_pylist())
            if missing:
                raise ValueError(
                    f"{len(missing)} of {len(wanted)} ids are not in the manifest"
                    f"{f' split {split!r}' if split else ''}, such as {min(missing)!r}"
                )
            table = table.filter(pa.compute.is_in(table.column("id"), pa.array(sorted(wanted))))
        if not table.num_rows:
            have = sorted(set(self.table.column("split").to_pylist()))
            raise ValueError(f"no image is left of split {split!r}; the manifest has {have}")
        return replace(self, table=table)

    def samples(self) -> Iterator[Sample]:
        """The rows as records, one at a time."""
        for batch in self.table.to_batches(max_chunksize=1000):
            yield from map(_sample, batch.to_pylist())


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(
        id=row["id"],
        path=row["path"],
        height=row["height"],
        width=row["width"],
        tags=tuple(row["tags"]),
        boxes_xyxy=np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4),
        box_classes=np.array(row["box_classes"], np.int64),
        split=row["split"],
        mask_path=row["mask_path"],
        difficult=tuple(row["difficult"]),
        crowds=tuple(row["crowds"]),
        true_masks=tuple(row.get("true_masks", ())),
    )


def read_manifest(folder: Folder, true_masks: bool = False) -> Manifest:
    """Opens the manifest of a run.

    Args:
        folder: of the manifest.
        true_masks: whether to load the objects' true masks, which only scores and a training on
            them need.

    Raises:
        FileNotFoundError: ``prepare`` has not made one yet.
        ValueError: the file is no manifest or has no rows.
    """
    if not folder.exists("manifest.parquet"):
        raise FileNotFoundError(f"{folder} holds no manifest; make one with `rayseg prepare`")
    columns = [name for name in MANIFEST_SCHEMA.names if true_masks or name != "true_masks"]
    with folder.open("manifest.parquet") as file:
        metadata = _manifest_metadata(folder, file)
        table = pq.read_table(file, columns=columns)
    if not table.num_rows:
        raise ValueError(f"{folder.path('manifest.parquet')} must have rows, got 0")
    classes, numbers = (
        tuple(json.loads(metadata.get(key, b"[]"))) for key in (b"classes", b"category_ids")
    )
    return Manifest(classes, table, numbers)


def _manifest_metadata(folder: Folder, file: pa.NativeFile) -> dict[bytes, bytes]:
    """What stands beside a manifest's rows, which must have all columns."""
    try:
        schema = pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{folder.path('manifest.parquet')} is no Parquet file: {error}") from None
    lacking = [name for name in MANIFEST_SCHEMA.names if name not in schema.names]
    if lacking:
        raise ValueError(
            f"{folder.path('manifest.parquet')} must have columns {MANIFEST_SCHEMA.names}, "
            f"lacks {lacking}"
        )
    return schema.metadata or {}


def manifest_rows_by_id(folder: Folder, ids: Iterable[str], columns: Sequence[str]) -> RowsById:
    """Rows of a manifest, read a row group (of a thousand, as written here) at a time.

    Args:
        folder: of the manifest.
        ids: of the rows.
        columns: of MANIFEST_SCHEMA that the rows have, besides the id.

    Raises:
        KeyError: an id is not in the manifest.
    """
    group_of: dict[str, int] = {}
    with folder.open("manifest.parquet") as file:
        manifest = pq.ParquetFile(file)
        for group in range(manifest.num_row_groups):
            found = manifest.read_row_group(group, ["id"]).column("id").to_pylist()
            group_of |= dict.fromkeys(found, group)
    read = partial(_read_group, folder, ["id", *columns])
    return RowsById({id_: group_of[id_] for id_ in ids}, read)


def _read_group(folder: Folder, columns: list[str], group: int) -> pa.Table:
    with folder.open("manifest.parquet") as file:
        return pq.ParquetFile(file).read_row_group(group, columns)


# Maps as bytes


def pack_maps(maps: Float[ndarray, "k h w"]) -> list[bytes]:
    """Maps in [0, 1] as one grey PNG each, value = round(255 * map)."""
    packed = []
    for grey in np.rint(maps * 255).astype(np.uint8):
        sink = io.BytesIO()
        Image.fromarray(grey).save(sink, "png", compress_level=9)
        packed.append(sink.getvalue())
    return packed


def unpack_seeds(row: Mapping[str, Any]) -> Seeds:
    """A row of SEEDS_SCHEMA as a record; its maps are those of `pack_maps` to within 1/510."""
    size_hw = (row["height"], row["width"])
    cells = [-(-side // MAP_STRIDE) for side in size_hw]
    planes = [np.asarray(Image.open(io.BytesIO(data))) for data in row["maps"]]
    stacked = np.stack(planes) if planes else np.zeros((0, *cells), np.uint8)
    return Seeds(row["id"], tuple(row["classes"]), stacked.astype(np.float32) / 255, size_hw)


def unpack_grid(data: bytes) -> Float[ndarray, "y x"]:
    """One map of `pack_maps` in [0, 1]."""
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.float32) / 255


# What made a folder


def claim(folder: Folder, config: Mapping[str, Any]) -> None:
    """Binds a folder to the configuration that fills it, or refuses.

    A folder that nothing was written to yet is bound anew, so that a mistyped path can be mended.

    Raises:
        ValueError: the folder was filled under another configuration, or not by rayseg.
    """
    products = [name for name in folder.names() if name != "run.json"]
    if products and not folder.exists("run.json"):
        raise ValueError(f"{folder} holds {products[0]} but no run.json; choose an empty folder")
    if not products:
        folder.write("run.json", b"{}")
        write_run(folder, {"config": config})
        return
    differing = _differences(read_run(folder).get("config", {}), json.loads(json.dumps(config)))
    if differing:
        raise ValueError(
            f"{folder} was made under another configuration ({'; '.join(differing)}); "
            "delete the folder or choose another --run"
        )


def _differences(there: object, here: object, key: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        found = []
        for name in sorted(there.keys() | here.keys()):
            path = f"{key}.{name}" if key else name
            found += _differences(there.get(name), here.get(name), path)
        return found
    return [] if there == here else [f"{key} is {there} there, {here} here"]


def read_run(folder: Folder) -> dict[str, Any]:
    """The folder's run.json: configuration, versions and figures; empty where there is none."""
    return json.loads(folder.read("run.json")) if folder.exists("run.json") else {}


def write_run(folder: Folder, facts: Mapping[str, Any]) -> None:
    """Adds facts to the folder's run.json, with the versions of what made it."""
    merged = read_run(folder) | dict(facts) | {"versions": _versions()}
    folder.write("run.json", json.dumps(merged, indent=2).encode())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("rayseg", "torch", "torchvision", "ray", "pyarrow", "numpy", "pydensecrf2"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
