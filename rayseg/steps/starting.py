"""What is wrong with a job before it begins, all of it at once."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayseg.config import RunConfig
from rayseg.learn import TRAININGS
from rayseg.nets.backbones import TRUNKS
from rayseg.nets.published import PublishedFile, published_file
from rayseg.networks import NETWORKS
from rayseg.progress import activity, announce
from rayseg.stages import choose_device
from rayseg.steps.parts import Part, settings_of
from rayseg.steps.sources import asked_for
from rayseg.store import KINDS, Folder, Manifest, read_manifest, read_run

_LARGE = ("resnet50", "resnet101", "wide_resnet38")
"""Trunks that want a GPU."""
_FILES = (".pth", ".pt", ".safetensors", ".onnx")


@dataclass(frozen=True)
class StartingWeights:
    """Weights that a job starts from.

    Attributes:
        flag: that names them.
        given: by it.
        trunk: that they are for; empty for those of a whole network.
    """

    flag: str
    given: str
    trunk: str = ""

    @property
    def published(self) -> PublishedFile | None:
        """The file that a library fetches for them."""
        return published_file(self.trunk, self.given) if self.trunk else None

    def problem(self, fetch: bool = False) -> Exception | None:
        """Why they cannot be had.

        Args:
            fetch: what a library would fetch is fetched, not asked for only.
        """
        if self.given in ("", "none", "classifier"):
            return None
        if file := self.published:
            return None if file.is_there else self._unfetched(file, fetch)
        if "/" in self.given or self.given.endswith(_FILES):
            if "://" in self.given or Path(self.given).is_file():
                return None
            return FileNotFoundError(f"{self.flag} must be a file that is there, got {self.given}")
        known = ", ".join(("none", *TRUNKS[self.trunk].weight_sets)) if self.trunk else "a path"
        return ValueError(
            f"{self.flag} must be {known} or a .pth or .safetensors path, got {self.given!r}"
        )

    def _unfetched(self, file: PublishedFile, fetch: bool) -> Exception | None:
        reason = file.unreachable()
        if not reason and fetch:
            announce(f"{self.flag}: fetching {file.address} into {file.cache}")
            try:
                with activity(f"fetching {file.name}"):
                    file.fetch()
            except (OSError, RuntimeError) as error:
                reason = " ".join(str(error).split())
        if not reason:
            return None
        return OSError(
            f"{self.flag} {self.given}: {file.name} is not in {file.cache} and cannot be fetched "
            f"from {file.address} ({reason}); put it there, or give a path ({self.flag} FILE.pth), "
            f"or start from random weights ({self.flag} none)"
        )


def weights_of(config: Any, kind: str) -> StartingWeights:
    """What the training of a kind of network starts from."""
    settings = settings_of(config, kind)
    flag = f"--{TRAININGS[kind].field.replace('_', '-')}.weights"
    return StartingWeights(flag, settings.weights, settings.trunk)


def needed_weights(config: RunConfig, parts: Iterable[Part]) -> list[StartingWeights]:
    """All weights that these jobs of a run start from and have not used up yet."""
    given = {
        StartingWeights(f"--{NETWORKS[kind].given_as.replace('_', '-')}", name): None
        for kind, name in config.given_weights.items()
        if name
    }
    return [*given, *dict.fromkeys(
        weights_of(config, part.kind)
        for part in _trainings(config, parts)
    )]  # fmt: skip


def _trainings(config: RunConfig, parts: Iterable[Part]) -> list[Part]:
    """The jobs that train a network which is not there yet."""
    return [part for part in parts if part.kind in TRAININGS and not _is_done(config, part)]


def _is_done(config: RunConfig, part: Part) -> bool:
    place = Folder(config.run) / KINDS[part.kind].folder
    folders = [place / name if name else place for name in part.names]
    return all(one.exists("run.json") and read_run(one).get("done") for one in folders)


def problems(config: RunConfig, parts: list[Part]) -> Iterator[Exception]:
    """All that is wrong with a run, by its settings and its manifest.

    Weights that a library publishes are fetched.
    """
    manifest = read_manifest(Folder(config.run) / "manifest")
    for one in needed_weights(config, parts):
        if wrong := one.problem(fetch=True):
            yield wrong
    tries: list[Callable[[], Any]] = [
        lambda: asked_for(manifest, config.split, config.ids),
        *(_check(config, manifest, part.kind) for part in _trainings(config, parts)),
    ]
    for attempt in tries:
        try:
            attempt()
        except (ValueError, OSError) as error:
            yield error
    for flag, folder in (
        ("--saliency-maps", config.saliency_maps),
        ("--proposals", "" if config.proposals in ("none", "superpixels") else config.proposals),
    ):
        if folder and "://" not in folder and not Path(folder).is_dir():
            yield FileNotFoundError(f"{flag} must be a folder that is there, got {folder}")


def proposal(config: RunConfig, parts: list[Part]) -> str:
    """What suits a machine without GPU, where none is found and large networks are to be trained.

    Of a cluster, whose machines are others, nothing is known.
    """
    compute = config.compute
    if compute.device != "auto" or config.address or os.environ.get("RAY_ADDRESS"):
        return ""
    trunks = [
        settings_of(config, part.kind).trunk
        for part in _trainings(config, parts)
        if settings_of(config, part.kind).trunk in _LARGE
    ]
    if not trunks or choose_device("auto").type != "cpu":
        return ""
    return (
        f"this machine has no GPU, and {trunks[0]} takes hours without: --preset laptop takes a "
        "small network, one scale and few steps"
    )


def _check(config: RunConfig, manifest: Manifest, kind: str) -> Callable[[], None]:
    """Refuses a training that cannot be of the images of its split."""

    def check() -> None:
        number = manifest.select(config.train_split).table.num_rows
        try:
            workers = config.compute.workers
            settings_of(config, kind).fitted(number, workers).check(number, workers)
        except ValueError as error:
            raise ValueError(f"{TRAININGS[kind].field}: {error}") from None

    return check


def refuse(found: Iterable[Exception]) -> None:
    """Raises what is wrong, where anything is.

    Raises:
        Exception: the one that there is, or a group of them.
    """
    unlike = list({str(error): error for error in found}.values())
    if len(unlike) == 1:
        raise unlike[0]
    if unlike:
        raise ExceptionGroup(f"{len(unlike)} things are wrong", unlike)
