"""The job that reads a data set into the run's manifest, and again where the data set changes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayseg.config import PrepareConfig, as_plain, identity_of
from rayseg.datasets.tally import Tally
from rayseg.steps.changes import tell_changes
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import digest
from rayseg.steps.step import Once, Step, carry_out
from rayseg.steps.taken import tell_classes, tell_taken
from rayseg.store import (
    SOURCES,
    FileFacts,
    Folder,
    Manifest,
    listing_digest,
    read_manifest,
    read_run,
    write_manifest,
    write_run,
    write_sources,
)


def prepare(config: PrepareConfig, engine: Engine) -> Outcome:
    """Reads the data set and writes the manifest; a data set that has changed is read again."""
    return carry_out([manifest_step(config)], engine, config.compute)


def manifest_step(config: PrepareConfig) -> Step:
    """The folder of the manifest."""
    plain = as_plain(config.dataset())
    files = {name: digest(value) for name, value in plain.items() if Path(str(value)).is_file()}
    reading = _Reading(config)
    return Step(
        "manifest",
        Folder(config.run) / "manifest",
        {"data": config.data, config.data: identity_of(config.dataset()), "files": files},
        Once(reading.read, reading.is_done),
        "manifest",
        reading.tell,
        renews=True,
    )


@dataclass(frozen=True)
class _Reading:
    """One reading of a data set.

    Attributes:
        config: of the job.
        changes: what this reading found changed, for the user.
    """

    config: PrepareConfig
    changes: list[str] = field(default_factory=list)

    @property
    def sources(self) -> str:
        """Digest of the files that the data set consists of, by their sizes and times."""
        return listing_digest(self.config.dataset().files())

    def is_done(self, folder: Folder) -> bool:
        """Whether the manifest is that of the files as they are."""
        facts = read_run(folder)
        if not folder.exists("manifest.parquet") or facts.get("done") is False:
            return False
        if "sources" not in facts:  # an earlier version's
            return True
        return folder.exists(SOURCES) and facts["sources"] == self.sources

    def read(self, folder: Folder, engine: Engine) -> dict[str, Any]:
        """Writes the manifest, and says what is not as it was."""
        before = read_manifest(folder) if folder.exists("manifest.parquet") else None
        write_run(folder, {"done": False})  # until all of it is written
        sources = self.sources  # first, so that what is written meanwhile is read again
        dataset, tally = self.config.dataset(), Tally()
        samples = dataset.samples(Path((Folder(self.config.run) / "images").location), tally)
        write_manifest(
            folder, samples, dataset.classes, dataset.category_ids, known=_image_facts(before)
        )
        now = read_manifest(folder)
        write_sources(folder, self.config.dataset().files(), now.table.column("path").to_pylist())
        if before:
            self.changes.extend(tell_changes(before, now))
        return {"counts": _splits(folder), "tally": tally.facts(), "sources": sources}

    def tell(self, folder: Folder) -> Outcome:
        """What the manifest holds, what was left out, and what has changed."""
        splits = ", ".join(f"{number} {split}" for split, number in _splits(folder).items())
        classes = read_manifest(folder).classes
        told = Outcome([f"manifest: {splits}; {len(classes)} classes", *self.changes])
        return told + tell_taken(read_run(folder).get("tally", {})) + tell_classes(classes)


def _splits(folder: Folder) -> Counter[str]:
    return Counter(read_manifest(folder).table.column("split").to_pylist())


def _image_facts(manifest: Manifest | None) -> Mapping[str, FileFacts]:
    """What the images of a manifest were, by path."""
    if not manifest:
        return {}
    columns = manifest.table.select(["path", "image_digest", "image_bytes", "image_mtime_ns"])
    return {
        path: FileFacts(*facts)
        for path, *facts in zip(*columns.to_pydict().values(), strict=True)
        if facts[0]
    }
