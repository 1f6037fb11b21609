"""What a run is about to do, folder by folder, and how much of it is there already."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from rayseg.config import RunConfig
from rayseg.learn import TRAININGS, load_state
from rayseg.steps.parts import Part, settings_of
from rayseg.steps.sources import asked_for
from rayseg.steps.status import PLAN
from rayseg.store import KINDS, DamagedError, Folder, Manifest, peek_index, read_manifest, read_run


@dataclass(frozen=True)
class Planned:
    """A folder that a run is to fill.

    Attributes:
        place: of it in the run.
        total: what is to be in it.
        unit: of the total: image or step.
        there: how much of it is there.
        images: that a training learns from.
    """

    place: str
    total: int
    unit: str
    there: int
    images: int = 0

    @property
    def words(self) -> str:
        """The folder, how much it is to hold, and what it holds."""
        done = self.there >= self.total
        there = "; done" if done else f"; {self.there} are there" if self.there else ""
        images = f" on {self.images} images" if self.images else ""
        return f"  {self.place}: {self.total} {self.unit}s{images}{there}"


def plan(config: RunConfig, parts: list[Part]) -> list[Planned]:
    """The folders of these jobs, in their order.

    Raises:
        ValueError: no image is asked for.
    """
    return [planned for part in parts if part.kind for planned in _planned(config, part)]


def write_plan(run: Folder, planned: list[Planned]) -> None:
    """Keeps the plan, for `rayseg status`."""
    run.write(PLAN, json.dumps([asdict(one) for one in planned], indent=1).encode())


def _planned(config: RunConfig, part: Part) -> Iterator[Planned]:
    run = Folder(config.run)
    manifest = read_manifest(run / "manifest")
    for name in part.names:
        place = f"{KINDS[part.kind].folder}/{name}".rstrip("/")
        if part.kind in TRAININGS:
            images = _learnt_from(config, manifest)
            total = settings_of(config, part.kind).steps(images)
            yield Planned(place, total, "step", _steps_there(run / place, total), images)
            continue
        kind = KINDS[part.kind]
        asked = (
            manifest.select(config.val_split)
            if kind.predicted
            else asked_for(manifest, config.split, config.ids)
        )
        ids = {*asked.table.column("id").to_pylist()}
        there = {*peek_index(run / place).column("id").to_pylist()}
        yield Planned(place, len(ids), "image", len(ids & there))


def _learnt_from(config: RunConfig, manifest: Manifest) -> int:
    """Images of the split that is trained on, of which labels may lack later."""
    table = manifest.select(config.train_split).table
    return sum(map(bool, table.column("tags").to_pylist())) or table.num_rows


def _steps_there(folder: Folder, total: int) -> int:
    with suppress(DamagedError):  # the training says so, and mends it
        if read_run(folder).get("done"):
            return total
        return int(load_state(folder).facts.get("iteration", 0))
    return 0


def in_lines(config: RunConfig, planned: list[Planned]) -> list[str]:
    """The plan as it is shown."""
    manifest = read_manifest(Folder(config.run) / "manifest")
    splits = manifest.table.column("split").to_pylist()
    counted = ", ".join(f"{splits.count(one)} {one}" for one in dict.fromkeys(splits))
    classes = len(manifest.classes)
    first = f"{config.run}: {counted} images, {classes} classes; to be made, in this order:"
    return [first, *(one.words for one in planned)]
