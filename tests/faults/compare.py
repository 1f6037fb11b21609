"""What a disturbed run lacks, has twice or has otherwise, beside the undisturbed one."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

TIMES = ("seconds", "step_seconds", "seconds_per_image")
FREE = ("run.toml", "report.html", "best.toml", "sensitivity.png", "table.csv")
"""Files that hold the place of the run or seconds; they must be there."""
FACTS = ("config", "counts", "done", "kind", "images", "left_out", "best", "tally")
"""What a run.json must say alike."""


@dataclass
class Differences:
    """What is not as it was in the undisturbed run.

    Attributes:
        lost: rows and files.
        doubled: rows.
        wrong: rows and files that are others, or ought not to be there.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.wrong)

    def __str__(self) -> str:
        named = {"lost": self.lost, "doubled": self.doubled, "wrong": self.wrong}
        return "; ".join(f"{name} {found[:4]}" for name, found in named.items() if found)


def compare(run: Path, undisturbed: Path) -> Differences:
    """Compares all that two runs hold, but for times."""
    found = Differences()
    _compare_rows(run, undisturbed, found)
    there, here = (dict(_files(one)) for one in (undisturbed, run))
    for name, path in there.items():
        if name not in here:
            found.lost.append(name)
        elif _content(here[name], run) != _content(path, undisturbed):
            found.wrong.append(name)
    found.wrong += [f"{name} is new" for name in here.keys() - there.keys()]
    return found


def _compare_rows(run: Path, undisturbed: Path, found: Differences) -> None:
    there, here = (_folders(one) for one in (undisturbed, run))
    for name in sorted(there | here):
        before = _rows(undisturbed / name)
        now = _rows(run / name)
        ids = Counter(row["id"] for row in now)
        found.doubled += [f"{name}: {id_}" for id_, number in ids.items() if number > 1]
        by_id = {row["id"]: row for row in now}
        for row in before:
            if row["id"] not in by_id:
                found.lost.append(f"{name}: {row['id']}")
            elif row != by_id[row["id"]]:
                found.wrong.append(f"{name}: {row['id']}")
        new = by_id.keys() - {row["id"] for row in before}
        found.wrong += [f"{name}: {id_} is new" for id_ in sorted(new)]


def _folders(run: Path) -> set[str]:
    return {str(path.parent.relative_to(run)) for path in run.rglob("part-*.parquet")}


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Rows without their seconds; a shard that cannot be read has none."""
    rows = []
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            rows += pq.ParquetFile(path, page_checksum_verification=True).read().to_pylist()
        except (OSError, ValueError):
            continue
    return [{key: row[key] for key in row if key != "seconds"} for row in rows]


def _files(run: Path) -> Iterator[tuple[str, Path]]:
    """Files beside shards; of hidden ones, only drafts, which ought to be gone."""
    for path in run.rglob("*"):
        name = str(path.relative_to(run))
        is_shard = path.suffix == ".parquet" and path.name.startswith("part-")
        hidden = path.name.startswith((".", "_"))
        if not path.is_file() or is_shard:
            continue
        if not hidden or path.name.endswith(".tmp"):
            yield name, path


def _content(path: Path, run: Path) -> Any:
    """What must be alike of a file."""
    if path.name in FREE:
        return bool(path.stat().st_size)
    data = path.read_bytes()
    try:
        if path.suffix == ".json":
            said = json.loads(data.replace(str(run).encode(), b"RUN"))
            facts = {key: said[key] for key in FACTS if key in said}
            return without_times(facts if path.name == "run.json" else said)
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                facts = json.loads(arrays["facts"].tobytes())
                return arrays["counts"].tolist(), without_times(facts)
        if path.suffix in (".parquet", ".pq"):
            return pq.read_table(path).to_pylist()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return data


def without_times(value: Any) -> Any:
    """The same without seconds, at any depth."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value
