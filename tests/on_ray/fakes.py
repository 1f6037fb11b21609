"""Stages that cost nothing and misbehave on demand."""

import os
import signal
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rayseg.attribution import RIB, AdvCAM
from rayseg.labels import ObjectLabels
from rayseg.learn import Crops, JitteredCrops, PairCrops, SegmentationCrops, WarpedImages
from rayseg.steps.trials import read_trial
from rayseg.store import MANIFEST_SCHEMA, Folder, pack_maps, rows_to_table


def manifest_table(number, **columns):
    """Rows of a manifest whose images do not exist."""
    rows = [
        {"id": f"i{n:04d}", "path": "nowhere", "height": 8, "width": 8, "split": "train"}
        for n in range(number)
    ]
    return rows_to_table([row | columns for row in rows], MANIFEST_SCHEMA)


@dataclass
class Undecoded:
    """Stands in for DecodeImages where pixels do not matter.

    Attributes:
        deadly: ids that kill the process, as a file can that makes a decoder crash.
    """

    deadly: tuple[str, ...] = ()

    def __call__(self, rows):
        if any(row["id"] in self.deadly for row in rows):
            os.abort()
        return [row | {"note": "", "error": "", "status": ""} for row in rows]


@dataclass
class Counting:
    """Leaves a file for each row that it computes; row n has n % 3 maps, its note is the actor.

    Attributes:
        marks: folder of these files.
        held_after: rows after which the next ones wait until a file "go" lies beside the marks; 0
            never waits.
        deadly: ids that make the process die of a fatal signal.
        killed: ids whose process somebody kills, the first three times.
        meet: processes that wait for each other before they compute anything.
    """

    marks: str
    held_after: int = 0
    deadly: tuple[str, ...] = ()
    killed: tuple[str, ...] = ()
    meet: int = 0

    def __call__(self, rows):
        met = Path(self.marks).parent
        (met / f"process-{os.getpid()}").touch()
        while len(list(met.glob("process-*"))) < self.meet:
            time.sleep(0.05)
        return [self._compute(row) for row in rows]

    def _compute(self, row):
        if row["status"]:
            return row
        id_, marks = row["id"], Path(self.marks)
        while 0 < self.held_after <= len(computed(marks)) and not (marks.parent / "go").exists():
            time.sleep(0.05)
        seen = list(Path(self.marks).glob(f"{id_}.*"))
        (Path(self.marks) / f"{id_}.{uuid.uuid4().hex}").touch()
        if id_ in self.deadly:
            os.abort()
        if id_ in self.killed and len(seen) < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        row["classes"] = []  # a stage may change its rows: they are nobody else's
        classes = list(range(int(id_[1:]) % 3))
        maps = np.full((len(classes), 2, 2), int(id_[1:]) % 256 / 255, np.float32)
        return {
            **{name: row[name] for name in ("id", "height", "width")},
            "status": "ok",
            "note": str(os.getpid()),
            "classes": classes,
            "maps": pack_maps(maps),
        }


def computed(marks):
    """How often each row was computed."""
    names = [path.name.split(".")[0] for path in Path(marks).iterdir()]
    return {name: names.count(name) for name in names}


class Broken:
    """A stage that cannot be made."""

    def __init__(self):
        raise ValueError("the weights are of another network")


class Raising:
    """A stage that fails as a whole."""

    def __call__(self, rows):
        raise ValueError(f"no stage for {len(rows)} rows")


@dataclass(frozen=True)
class DeadlyRIB(RIB):
    """RIB that kills its process at one image, once, and writes down what each image makes it do.

    Attributes:
        marks: folder of a file for each image that was looked at.
        id_: the image.
    """

    marks: str = ""
    id_: str = ""

    def localize(self, network, batch):
        for id_ in batch.ids:
            seen = list(Path(self.marks).glob(f"{id_}.*"))
            (Path(self.marks) / f"{id_}.{uuid.uuid4().hex}").touch()
            if id_ == self.id_ and not seen:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().localize(network, batch)


@dataclass(frozen=True)
class WaitingAdvCAM(AdvCAM):
    """AdvCAM that looks at no further image once a trial of $WAITING_SWEEP, a run, is done.

    It has no field of its own, since the identity of a sweep follows from them.
    """

    def course(self, *given):
        while done_trials(os.environ["WAITING_SWEEP"]):
            time.sleep(0.05)
        return super().course(*given)


def done_trials(run):
    """Bytes of the files of trials that have counted all images, by name."""
    sweep = Path(run) / "tuning/advcam"
    found = {path.name: path.read_bytes() for path in sweep.glob("trials/*.npz")}
    done = {name: read_trial(Folder(str(sweep)), name)[1]["done"] for name in found}
    return {name: data for name, data in found.items() if done[name]}


@dataclass(frozen=True)
class CountedCrops(Crops):
    """Crops that leave a file for each one that is cut to levels.

    Attributes:
        marks: folder of these files.
    """

    marks: str = ""

    def cut_levels(self, pixels, generator):
        (Path(self.marks) / uuid.uuid4().hex).touch()
        return super().cut_levels(pixels, generator)


def no_extension_types(schema: pa.Schema):
    """Whether each column is of a type that any reader of Parquet knows."""
    return not any(isinstance(field.type, pa.BaseExtensionType) for field in schema)


@dataclass(frozen=True)
class Deadly:
    """What works as before but kills its process, once, some calls after the first checkpoint.

    Attributes:
        state: what a checkpoint leaves behind.
        armed: a file that is there until the death; it counts the calls since the checkpoint.
        after: calls between the checkpoint and the death.
    """

    state: str = ""
    armed: str = ""
    after: int = 0

    def die_in_time(self):
        armed = Path(self.armed)
        if Path(self.state).exists() and armed.exists():
            armed.write_text(armed.read_text() + ".")
            if len(armed.read_text()) > self.after:
                armed.unlink()
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class DeadlyCuts(Deadly):
    """For crops of any kind, before which it stands among the bases."""

    def cut(self, *given):
        self.die_in_time()
        return super().cut(*given)


@dataclass(frozen=True)
class DeadlySegmentationCrops(DeadlyCuts, SegmentationCrops):
    pass


@dataclass(frozen=True)
class DeadlyPairCrops(DeadlyCuts, PairCrops):
    pass


@dataclass(frozen=True)
class DeadlyJitteredCrops(DeadlyCuts, JitteredCrops):
    pass


@dataclass(frozen=True)
class DeadlyWarpedImages(DeadlyCuts, WarpedImages):
    pass


@dataclass(frozen=True)
class DeadlyLabels(Deadly):
    """Labels that are read.

    Attributes:
        labels: those.
    """

    labels: ObjectLabels | None = None

    @property
    def ids(self):
        return self.labels.ids

    def read(self, sample):
        self.die_in_time()
        return self.labels.read(sample)


@dataclass(frozen=True)
class BrokenCrops(SegmentationCrops):
    """Crops that cannot be cut, and write down each time that they are asked for.

    Attributes:
        asked: a file that grows.
    """

    asked: str = ""

    def cut(self, pixels, labels, generator):
        with open(self.asked, "a") as file:
            file.write(".")
        raise ValueError("no crop of this image")
