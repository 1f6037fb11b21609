"""One frozen dataclass a job; `RunConfig` is every other job's configuration at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from itertools import product
from typing import Any, Literal

from rayseg.attribution import METHODS, Attribution
from rayseg.config.base import JobConfig
from rayseg.config.networks import ClassifierConfig, SegmenterConfig
from rayseg.datasets import DATASETS, Dataset
from rayseg.export import EXPORTERS
from rayseg.prediction import Prediction
from rayseg.refine import REFINERS
from rayseg.refine.crf import OFFICIAL_THRESHOLDS, LabelCRF, Threshold
from rayseg.refine.saliency import SaliencyAgreement
from rayseg.refine.segmenter_crf import SegmenterCRF
from rayseg.stages import Refiner
from rayseg.toml import check_literals, hint


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
        saliency_maps: folder of grey saliency maps named after the images; where map and mask
            disagree on foreground the mask becomes 255. Empty for none.
        saliency: what counts as salient.
    """

    methods: tuple[str, ...] = ("cam", "advcam")
    refiners: tuple[str, ...] = ("label_crf",)
    thresholds: Thresholds = Thresholds()  # type: ignore[valid-type]
    saliency_maps: str = ""
    saliency: SaliencyAgreement = SaliencyAgreement()

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

    def mask_names(self) -> list[str]:
        """The folders of masks that the job fills, such as advcam+label_crf."""
        suffix = "+saliency" if self.saliency_maps else ""
        return [f"{m}+{r}{suffix}" for m, r in product(self.methods, self.refiners)]


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
class SegmentersConfig(JobConfig):
    """What the jobs about segmenters share.

    Attributes:
        labels: what each segmenter is trained on, and its name: a folder of the run's masks such
            as advcam+label_crf, or truth for true masks. `run` takes its last masks when empty.
        val_split: the images that segmenters are judged on.
    """

    labels: tuple[str, ...] = ()
    val_split: str = "val"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.labels:
            if not name or "/" in name or name.startswith("."):
                raise ValueError(f"labels must be names of masks or truth, got {name!r}")


@dataclass(frozen=True, kw_only=True)
class TrainSegmenterConfig(SegmentersConfig):
    """Trains a segmenter on masks of one split, pseudo or true.

    Attributes:
        train_split: the images to train on.
        segmenter: network and training.
    """

    train_split: str = "train"
    segmenter: SegmenterConfig = SegmenterConfig()


@dataclass(frozen=True, kw_only=True)
class PredictConfig(SegmentersConfig):
    """Labels the images of one split by segmenters.

    Attributes:
        predict: how a segmenter is applied.
        crf: a CRF after it; predictions then lie in a folder of their own, with +crf at its end.
        segmenter_crf: its constants.
        min_probability: labels that are nowhere likelier are left out of the CRF; 0 keeps all.
    """

    predict: Prediction = Prediction()
    crf: bool = False
    segmenter_crf: SegmenterCRF = SegmenterCRF()
    min_probability: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.min_probability < 1:
            raise ValueError(f"min_probability must lie in [0, 1), got {self.min_probability}")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(JobConfig):
    """Scores seeds, masks and predictions against true masks, and writes the report.

    Attributes:
        split: the images whose truth counts for seeds and masks.
        val_split: ... and for predictions.
        ids: a text file of image ids, one a line; only these. Empty means all.
        threshold_step: distance of the background thresholds that seeds are swept over.
        over: class names that a second mean is taken over, with background; empty for none.
        size_bounds_px: pixels at which medium and large objects begin; COCO's fit photographs.
    """

    split: str = "train"
    val_split: str = "val"
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
    ScoreConfig,
    PredictConfig,
    TrainSegmenterConfig,
    RefineSeedsConfig,
    MakeSeedsConfig,
    TrainClassifierConfig,
    PrepareConfig,
):
    """All jobs one after the other up to scores and report, skipping what is done.

    Attributes:
        until: the last thing to make: seeds, masks or segmenters.
    """

    until: Literal["seeds", "masks", "segmenters"] = "segmenters"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)

    def trained_on(self) -> tuple[str, ...]:
        """What the segmenters are trained on: as given, else the last masks."""
        return self.labels or tuple(self.mask_names()[-1:])


@dataclass(frozen=True, kw_only=True)
class ExportConfig(JobConfig):
    """Writes masks of a run in a foreign format.

    Attributes:
        masks: a folder of the run's masks, such as advcam+label_crf, or of its predictions, such
            as predictions/advcam+label_crf.
        format: which exporter.
        out: folder to write into.
        split: name of the list of ids that goes with them; empty is train, or val for predictions.
    """

    masks: str = "advcam+label_crf"
    format: str = "voc"
    out: str = "export"
    split: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names("format", (self.format,), EXPORTERS)


@dataclass(frozen=True, kw_only=True)
class AnyJobConfig(RunConfig, ExportConfig):
    """Every key of every job: what a file that serves all of them may hold."""


def _check_names(what: str, names: tuple[str, ...], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"{what} must be of {', '.join(known)}, got {name!r}{hint(name, known)}"
            )
