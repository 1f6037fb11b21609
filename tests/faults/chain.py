"""A run in small that nobody disturbs: its data, its commands in order, a copy before each."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from rayseg.attribution import CAM, AdvCAM
from rayseg.config import Compute, RunConfig, as_toml
from rayseg.datasets import FolderDataset
from rayseg.learn import Crops, JitteredCrops, PairCrops, SegmentationCrops, WarpedImages
from rayseg.nets.prediction import Prediction
from tests.faults.commands import Ended, run_command
from tests.faults.injection import Operations
from tests.learn.tiny import tiny

IMAGES = 7
SIZE_HW = (32, 48)


@dataclass(frozen=True)
class Command:
    """One command of the chain.

    Attributes:
        name: names it in tables.
        job: of rayseg.
        flags: beside the run, the engine and the file of settings.
        out: the command writes into this folder of the run, by `--out`.
        weight: in the draw of the command that is disturbed.
    """

    name: str
    job: str
    flags: tuple[str, ...] = ()
    out: str = ""
    weight: int = 3

    def line(self, run: Path, settings: Path, *more: str) -> list[str]:
        """Arguments of rayseg."""
        out = ["--out", str(run / self.out)] if self.out else []
        given = ["--config", str(settings), "--run", str(run)]
        return [self.job, *given, *self.flags, *out, *more]


OF_MASKS = ("--space", "threshold", "--seeds-of", "cam", "--grid", "threshold=0.1,0.3")
OF_SEEDS = ("--space", "cam", "--grid", "flip=true,false")
CHAIN = (
    Command("prepare", "prepare"),
    Command("classifier", "train-classifier"),
    Command("seeds", "make-seeds"),
    Command("masks", "refine-seeds"),
    Command("segmenter", "train-segmenter"),
    Command("predictions", "predict"),
    Command("tune masks", "tune", (*OF_MASKS, "--slice-images", "2")),
    Command("tune seeds", "tune", (*OF_SEEDS, "--slice-images", "3")),
    Command("irnet", "train-irnet", weight=1),
    Command("affinity", "train-affinity", weight=1),
    Command("dsrg", "train-dsrg", weight=1),
    Command("seam", "train-seam", weight=1),
    Command("scores", "score", ("--split", "train"), weight=1),
    Command("export", "export", ("--masks", "cam+threshold", "--format", "voc"), "exported"),
)
"""Each goes on from what those before it left."""


@dataclass(frozen=True)
class Undisturbed:
    """The chain carried out once.

    Attributes:
        folder: of data, settings and copies.
        chain: the commands.
        ended: how each ended.
        operations: on files of the run, that each did.
    """

    folder: Path
    chain: tuple[Command, ...]
    ended: tuple[Ended, ...]
    operations: tuple[int, ...]

    @property
    def settings(self) -> Path:
        """What every command is given by `--config`."""
        return self.folder / "tiny.toml"

    def before(self, number: int) -> Path:
        """The run as it was before that command of the chain."""
        return self.folder / "runs" / str(number)

    def after(self, number: int) -> Path:
        """The run as it was after it."""
        return self.before(number + 1)


def make_undisturbed(
    folder: Path, chain: tuple[Command, ...] = CHAIN, prepared: Callable[[], None] = lambda: None
) -> Undisturbed:
    """Carries out the chain where nothing disturbs it.

    Args:
        prepared: is called in each child before its command.

    Raises:
        RuntimeError: a command does not end with status 0.
    """
    write_data(folder)
    run, told = folder / "run", folder / "operations"
    run.mkdir()
    found: list[tuple[Ended, int]] = []
    for number, command in enumerate(chain):
        shutil.copytree(run, folder / "runs" / str(number))
        line = command.line(run, folder / "tiny.toml")
        ended = run_command(line, run, partial(_count, prepared, Operations(str(run), tell=told)))
        if ended.status:
            raise RuntimeError(f"{command.name} ended with {ended.status}: {ended.errors}")
        found.append((ended, int(told.read_text())))
    run.rename(folder / "runs" / str(len(chain)))
    return Undisturbed(folder, chain, *map(tuple, zip(*found, strict=True)))


def kept_undisturbed(folder: Path) -> Undisturbed:
    """The whole chain, as it was carried out there before, or is now."""
    kept = folder / "undisturbed.pickle"
    if not kept.exists():
        kept.write_bytes(pickle.dumps(make_undisturbed(folder)))
    return pickle.loads(kept.read_bytes())


def _count(prepared: Callable[[], None], operations: Operations) -> None:
    prepared()
    operations.install()


def write_data(folder: Path) -> None:
    """Images of two classes with tags and true masks, and the settings of every command."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    lines = ["image,tags"]
    for number in range(IMAGES):
        kind = number % 2
        pixels = rng.integers(90, 120, (*SIZE_HW, 3), np.uint8)
        labels = np.zeros(SIZE_HW, np.uint8)
        left = int(rng.integers(0, 20))
        labels[6:26, left : left + 20] = 1 + kind
        pixels[labels > 0, 1 - kind] = 220
        Image.fromarray(pixels).save(folder / f"images/i{number}.png")
        Image.fromarray(labels).save(folder / f"masks/i{number}.png")
        lines.append(f"i{number}.png,{('green', 'red')[kind]}")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")
    (folder / "tiny.toml").write_text(as_toml(_settings(folder)))


def _settings(folder: Path) -> RunConfig:
    small = {"iterations": 2, "save_every": 1, "judge_images": 2, "batch_size": 2}
    crops = SegmentationCrops(crop=32, scales=(1.0,))
    pairs = small | {"radius": 2, "crops": PairCrops(crop=32)}
    return RunConfig(
        data="folder",
        folder=FolderDataset(
            images=folder / "images", tags=folder / "tags.csv", masks=folder / "masks"
        ),
        engine="plain",
        compute=Compute(threads=1, num_gpus=0, block_rows=3),
        methods=("cam", "advcam"),
        refiners=("threshold",),
        cam=CAM(scales=(1.0,), precision="fp32"),
        advcam=AdvCAM(scales=(1.0,), num_steps=1, precision="fp32"),
        classifier=tiny("classifier", **small, trunk="resnet18", epochs=1,
                        crops=Crops(crop=32, long_side=(32, 40))),
        segmenter=tiny("segmenter", **small, trunk="resnet18", crops=crops, accumulate=1),
        irnet_network=tiny("irnet", **pairs, trunk="resnet18"),
        affinity_network=tiny("affinity", **pairs, trunk="resnet18"),
        dsrg=tiny("dsrg", **small, crops=WarpedImages(side=32)),
        seam_classifier=tiny("seam", **small, crops=JitteredCrops(crop=72, long_side=(32, 40))),
        predict=Prediction(scales=(1.0,), flip=False),
        labels=("cam+threshold",),
        val_split="train",
        threshold_step=0.1,
    )  # fmt: skip
