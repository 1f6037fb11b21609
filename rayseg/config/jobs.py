"""One frozen dataclass a job; `RunConfig` is every other job's configuration at once."""

from dataclasses import dataclass
from typing import Literal

from rayseg.analyses.bottleneck import ToyBottleneck
from rayseg.config.base import JobConfig, SegmentersConfig
from rayseg.config.borders import PrepareConfig
from rayseg.config.boxes import MakeBoxMapsConfig, MakeBoxMasksConfig
from rayseg.config.seeds import MakeSeedsConfig, RefineSeedsConfig
from rayseg.config.trainings import TRAIN_CONFIGS
from rayseg.nets.prediction import Prediction
from rayseg.records.bounds import check_least
from rayseg.refine.segmenter_crf import SegmenterCRF
from rayseg.stages import InstancePrediction
from rayseg.toml import check_literals


@dataclass(frozen=True, kw_only=True)
class PredictConfig(SegmentersConfig):
    """Labels the images of one split by segmenters.

    Attributes:
        predict: How a segmenter is applied.
        crf: A CRF follows; its predictions lie in a folder of their own that ends in +crf.
        segmenter_crf: Constants of that CRF.
        min_probability: The CRF leaves out labels that are nowhere likelier; 0 keeps all.
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
class PredictInstancesConfig(SegmentersConfig):
    """Finds the instances of one split's images by Mask R-CNNs.

    Attributes:
        labels: Mask R-CNNs to use, by what they were trained on; empty takes all.
        instances: How the Mask R-CNNs are applied.
    """

    instances: InstancePrediction = InstancePrediction()


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(JobConfig):
    """Scores seeds, masks and predictions against true masks, and writes the report.

    Attributes:
        split: Split on which seeds and masks are scored.
        val_split: Split on which predictions are scored.
        ids: A text file of image ids, one on each line, to use no others. Empty means all.
        threshold_step: Step between the background thresholds at which seeds are scored.
        over: Class names that a second mean is taken over, with background; empty for none.
        size_bounds_px: Areas at which medium and large objects begin; COCO's fit photographs.
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
    PredictInstancesConfig,
    MakeBoxMasksConfig,
    MakeBoxMapsConfig,
    PredictConfig,
    RefineSeedsConfig,
    MakeSeedsConfig,
    *TRAIN_CONFIGS.values(),
    PrepareConfig,
):
    """All jobs one after the other up to scores and report, skipping what is done.

    Attributes:
        split: Split whose images get maps and masks, which are scored where truth is known.
        train_split: Split that networks are trained on.
        val_split: Split on which networks are judged, and whose predictions are scored.
        methods: Methods that make maps from tags, or combinations such as advcam+rib.
        refiners: Refiners that make masks of the maps.
        labels: Labels that each segmenter or Mask R-CNN is trained on: masks of the run such as
            advcam+label_crf, or truth for true masks; empty takes the run's last masks.
        supervision: Labels to start from: tags makes classifier, seeds, masks and segmenters; boxes
            makes detector, box maps, masks of objects and Mask R-CNNs; tags+boxes makes both.
        until: The last thing to make: seeds (or box maps), masks or segmenters (or Mask R-CNNs).
    """

    supervision: Literal["tags", "boxes", "tags+boxes"] = "tags"
    until: Literal["seeds", "masks", "segmenters"] = "segmenters"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(RunConfig):
    """Says what machine and cluster have, what a run needs and how long it will take.

    Attributes:
        estimate: Measures each stage of the run on a few images and says how long all will take.
        images: Training images that the estimate is for; 0 is as many as the data set has.
        calibrate_images: Number of images that are measured.
        calibrate_steps: Steps that are measured of each training that counts steps.
        price: Price of the cluster for an hour, in any currency; 0 leaves the cost out.
    """

    estimate: bool = False
    images: int = 0
    calibrate_images: int = 20
    calibrate_steps: int = 10
    price: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, images=0, calibrate_images=4, calibrate_steps=2, price=0)


@dataclass(frozen=True, kw_only=True)
class CheckConfig(JobConfig):
    """Reads every file of a run and says what is damaged.

    Attributes:
        engine: What runs the job, a loop in one process in either case.
        repair: Sets damaged files aside, so that the commands that made them make them again.
    """

    engine: Literal["ray", "plain"] = "plain"
    repair: bool = False


@dataclass(frozen=True, kw_only=True)
class ToyBottleneckConfig(JobConfig):
    """Shows the information bottleneck and how RIB reduces it, on digits of which some are marked.

    Attributes:
        toy: Settings of the experiment.
    """

    toy: ToyBottleneck = ToyBottleneck()
