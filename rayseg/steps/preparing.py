"""The job that reads a data set into the run's manifest."""

from collections import Counter
from pathlib import Path
from typing import Any

from rayseg.config import PrepareConfig, as_plain
from rayseg.datasets.tally import Tally
from rayseg.export.voc import class_problem
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import digest
from rayseg.steps.step import Once, Step, carry_out
from rayseg.steps.taken import tell_taken
from rayseg.store import Folder, read_manifest, read_run, write_manifest


def prepare(config: PrepareConfig, engine: Engine) -> Outcome:
    """Reads the data set and writes the manifest."""
    return carry_out([manifest_step(config)], engine, config.compute)


def manifest_step(config: PrepareConfig) -> Step:
    """The folder of the manifest."""
    run_folder, dataset = Folder(config.run), config.dataset()
    plain = as_plain(dataset)
    files = {name: digest(value) for name, value in plain.items() if Path(str(value)).is_file()}

    def read(folder: Folder, engine: Engine) -> dict[str, Any]:
        workspace = Path((run_folder / "images").location)
        tally = Tally()
        samples = dataset.samples(workspace, tally)
        write_manifest(folder, samples, dataset.classes, dataset.category_ids)
        return {"counts": _splits(folder), "tally": tally.facts()}

    return Step(
        "manifest",
        run_folder / "manifest",
        {"data": config.data, config.data: plain, "files": files},
        Once(read, done=lambda folder: folder.exists("manifest.parquet")),
        "manifest",
        _tell,
    )


def _splits(folder: Folder) -> Counter[str]:
    return Counter(read_manifest(folder).table.column("split").to_pylist())


def _tell(folder: Folder) -> Outcome:
    splits = ", ".join(f"{number} {split}" for split, number in _splits(folder).items())
    classes = read_manifest(folder).classes
    told = Outcome([f"manifest: {splits}; {len(classes)} classes"])
    told += tell_taken(read_run(folder).get("tally", {}))
    problem = class_problem(classes)
    return told + Outcome([f"export --format voc will refuse this: {problem}"] if problem else [])
