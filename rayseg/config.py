"""One frozen dataclass a job, made of the parts' own dataclasses; TOML in, JSON out.

The same object is the command line's flags, the TOML file, the argument that travels to an actor
and the record beside the results. `RunConfig` is every other job's configuration at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from rayseg.attribution import METHODS, Attribution
from rayseg.datasets import DATASETS, Dataset
from rayseg.export import EXPORTERS
from rayseg.loading import Crops
from rayseg.refine import REFINERS
from rayseg.refine.crf import OFFICIAL_THRESHOLDS, LabelCRF, Threshold
from rayseg.stages import Refiner
from rayseg.toml import check_literals, hint, read, update
from rayseg.training import PolySGD

C = TypeVar("C")
Trunk = Literal["mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "vgg16"]


def _one_field_each(name: str, parts: Mapping[str, type]) -> type:
    """A dataclass with one field for each entry of a list such as METHODS."""
    made = [(key, part, field(default_factory=part)) for key, part in parts.items()]
    return _dataclass(name, made)


def _dataclass(name: str, parts: list[Any]) -> type:
    made = make_dataclass(name, parts, frozen=True, kw_only=True)
    made.__module__ = __name__  # where pickle finds it again
    return made


DatasetFields = _one_field_each("DatasetFields", DATASETS)
MethodFields = _one_field_each("MethodFields", METHODS)
RefinerFields = _one_field_each("RefinerFields", REFINERS)
Thresholds = _dataclass(
    "Thresholds",
    [
        (name, tuple[float, float], field(default=OFFICIAL_THRESHOLDS.get(name, (0.30, 0.05))))
        for name in METHODS
    ],
)
"""Background thresholds of each method's maps: foreground is sure above the first, background below
the second."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How widely a job runs; changes no result beyond rounding.

    Attributes:
        device: torch device of the actors: auto, cpu or cuda.
        actors: of a pool; 0 is one a GPU, or one a core of this machine.
        num_gpus: GPUs an actor or training worker; -1 is 1 where the cluster has any.
        threads: CPU threads an actor or training worker; 0 divides this machine's cores.
        block_rows: images between two writes: the most that a killed actor loses.
        workers: of a training.
        loader_workers: processes that decode ahead for each training worker.
        max_failures: times that training starts again from its last epoch after losing a worker.
        stall_seconds: a job without any progress for so long fails.
        retry_failed: images whose row says error or poison are tried again.
    """

    device: str = "auto"
    actors: int = 0
    num_gpus: float = -1.0
    threads: int = 0
    block_rows: int = 8
    workers: int = 1
    loader_workers: int = 0
    max_failures: int = 3
    stall_seconds: int = 1800
    retry_failed: bool = False

    def __post_init__(self) -> None:
        for name in ("actors", "threads", "loader_workers", "max_failures"):
            if getattr(self, name) < 0:
                raise ValueError(f"compute.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("block_rows", "workers", "stall_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"compute.{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What every job has.

    Attributes:
        run: the run's folder, a local path or a URI.
        address: Ray cluster to join; empty takes RAY_ADDRESS, else starts Ray on this machine.
        compute: how widely it runs.
    """

    run: str = "runs/demo"
    address: str = ""
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        if not self.run:
            raise ValueError("run must name a folder, got nothing")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(DatasetFields, JobConfig):  # type: ignore[valid-type]
    """Reads a data set and writes the manifest that every other job starts from.

    Attributes:
        data: which reader; its own flags follow under its name.
    """

    data: str = "synthetic"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names("data", (self.data,), DATASETS)

    def dataset(self) -> Dataset:
        """The reader that is asked for."""
        return getattr(self, self.data)


@dataclass(frozen=True)
class ClassifierConfig:
    """The CAM classifier and its training.

    Attributes:
        trunk: mobilenet_v2, resnet18, resnet34, resnet50, resnet101 or vgg16.
        stride: image pixels a feature cell: 8, 16 or 32.
        weights: none, a torchvision weight set such as IMAGENET1K_V1, or a path.
        batch_norm: frozen keeps the statistics of the weights; trained learns them; auto freezes
            them where there are weights.
        freeze: the last stage that does not train: none, stem, stage1 to stage4.
        epochs: passes over the images.
        batch_size: images of a step, over all workers.
        crops: how images are cut.
        schedule: the optimiser.
        seed: of the head, the order and the crops.
    """

    trunk: Trunk = "resnet50"
    stride: Literal[8, 16, 32] = 16
    weights: str = "IMAGENET1K_V1"
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    freeze: Literal["none", "stem", "stage1", "stage2", "stage3", "stage4"] = "stem"
    epochs: int = 5
    batch_size: int = 16
    crops: Crops = Crops()
    schedule: PolySGD = PolySGD()
    seed: int = 0

    def __post_init__(self) -> None:
        check_literals(self)
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size must be 1 or more, got {self.epochs}, {self.batch_size}"
            )

    @classmethod
    def as_written(cls) -> ClassifierConfig:
        """Momentum as the text has it; everything else is the code's."""
        return cls(schedule=PolySGD.as_written())

    @property
    def frozen_statistics(self) -> bool:
        """Whether batch normalisation keeps its statistics."""
        return self.weights != "none" if self.batch_norm == "auto" else self.batch_norm == "frozen"


@dataclass(frozen=True, kw_only=True)
class TrainClassifierConfig(JobConfig):
    """Trains the classifier on the tags of one split.

    Attributes:
        train_split: the images to train on.
        classifier: network and training.
    """

    train_split: str = "train"
    classifier: ClassifierConfig = ClassifierConfig()


@dataclass(frozen=True, kw_only=True)
class MakeSeedsConfig(MethodFields, JobConfig):  # type: ignore[valid-type]
    """Makes localization maps of one split's images.

    Attributes:
        split: the images.
        ids: a text file of image ids, one a line; only these. Empty means all.
        methods: which attribution methods; their own flags follow under their names.
        weights: the classifier; empty is the run's own.
    """

    split: str = "train"
    ids: str = ""
    methods: tuple[str, ...] = ("cam", "advcam")
    weights: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names("methods", self.methods, METHODS)

    def method(self, name: str) -> Attribution:
        """The method of that name with its hyper-parameters."""
        return getattr(self, name)


@dataclass(frozen=True, kw_only=True)
class RefineSeedsConfig(RefinerFields, JobConfig):  # type: ignore[valid-type]
    """Turns localization maps into masks.

    Attributes:
        methods: whose maps.
        refiners: which refiners; their own flags follow under their names.
        thresholds: background thresholds of each method's maps, sure foreground and sure
            background; label_crf takes both, threshold the first.
    """

    methods: tuple[str, ...] = ("cam", "advcam")
    refiners: tuple[str, ...] = ("label_crf",)
    thresholds: Thresholds = Thresholds()  # type: ignore[valid-type]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names("methods", self.methods, METHODS)
        _check_names("refiners", self.refiners, REFINERS)
        for part in fields(RefinerFields):
            if _own_thresholds(getattr(self, part.name)):
                raise ValueError(f"set thresholds.<method> in place of {part.name}'s own")

    def refiner(self, name: str, method: str) -> Refiner:
        """The refiner of that name for the maps of that method."""
        refiner = getattr(self, name)
        foreground, background = getattr(self.thresholds, method)
        if isinstance(refiner, LabelCRF):
            return replace(refiner, fg_threshold=foreground, bg_threshold=background)
        if isinstance(refiner, Threshold):
            return replace(refiner, threshold=foreground)
        return refiner


def _own_thresholds(refiner: object) -> bool:
    """Whether a refiner has thresholds of its own that `thresholds` would override unseen."""
    match refiner:
        case LabelCRF():
            own = LabelCRF()
            return (refiner.fg_threshold, refiner.bg_threshold) != (
                own.fg_threshold,
                own.bg_threshold,
            )
        case Threshold():
            return refiner != Threshold()
        case _:
            return False


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(JobConfig):
    """Scores seeds and masks against true masks, and writes the report.

    Attributes:
        split: the images whose truth counts.
        ids: a text file of image ids, one a line; only these. Empty means all.
        threshold_step: distance of the background thresholds that seeds are swept over.
        over: class names that a second mean is taken over, with background; empty for none.
        size_bounds_px: pixels at which medium and large objects begin; COCO's fit photographs.
    """

    split: str = "train"
    ids: str = ""
    threshold_step: float = 0.01
    over: tuple[str, ...] = ()
    size_bounds_px: tuple[int, int] = (32**2, 96**2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold_step <= 0.5:
            raise ValueError(f"threshold_step must lie in (0, 0.5], got {self.threshold_step}")
        if len(self.size_bounds_px) != 2 or not 0 < self.size_bounds_px[0] < self.size_bounds_px[1]:
            raise ValueError(
                f"size_bounds_px must be two numbers that ascend from 1, got {self.size_bounds_px}"
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig(
    ScoreConfig, RefineSeedsConfig, MakeSeedsConfig, TrainClassifierConfig, PrepareConfig
):
    """Prepare, train, seeds, masks and scores, one after the other, skipping what is done."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(JobConfig):
    """Writes masks of a run in a foreign format.

    Attributes:
        masks: a folder of the run's masks, such as advcam+label_crf.
        format: which exporter.
        out: folder to write into.
        split: name of the list of ids that goes with them.
    """

    masks: str = "advcam+label_crf"
    format: str = "voc"
    out: str = "export"
    split: str = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names("format", (self.format,), EXPORTERS)


@dataclass(frozen=True, kw_only=True)
class _AnyJobConfig(RunConfig, ExportConfig):
    """Every key of every job: what a file that serves all of them may hold."""


def _check_names(what: str, names: tuple[str, ...], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"{what} must be of {', '.join(known)}, got {name!r}{hint(name, known)}"
            )


def as_written(config: C) -> C:
    """The configuration with every part that has one at its preset ``as_written``."""
    changed = {
        part.name: getattr(config, part.name).as_written()
        for part in fields(config)  # type: ignore[arg-type]
        if hasattr(getattr(config, part.name), "as_written")
    }
    if hasattr(config, "thresholds"):
        text = LabelCRF.as_written()
        stated = (text.fg_threshold, text.bg_threshold)
        changed["thresholds"] = Thresholds(**dict.fromkeys(METHODS, stated))
    return replace(config, **changed)  # type: ignore[type-var]


def read_toml(path: str, base: C) -> C:
    """The configuration with what a TOML file says in it.

    A file may hold the keys of any job, so that one file serves all jobs of a run; keys of other
    jobs are passed over here, keys of no job are an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, or has a key that no job knows, or a value of another type.
    """
    given = read(path)
    update(_AnyJobConfig(), given, path)
    mine = {part.name for part in fields(base)}  # type: ignore[arg-type]
    return update(base, {key: value for key, value in given.items() if key in mine}, path)


def as_plain(config: object) -> Any:
    """The configuration as what JSON and TOML can hold: no path, no tuple, no None."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {part.name: as_plain(getattr(config, part.name)) for part in fields(config)}
    if isinstance(config, tuple | list):
        return [as_plain(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def as_toml(config: object) -> str:
    """The configuration as a TOML file that `read_toml` takes back; what is None is left out."""
    return tomli_w.dumps(_without_none(as_plain(config)))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
