"""One frozen dataclass a job, made of the parts' own dataclasses; TOML in, JSON out.

The same object is the command line's flags, the TOML file, the argument that travels to an actor
and the record beside the results.
"""

from rayseg.config.base import Compute, JobConfig, SegmentersConfig
from rayseg.config.boxes import (
    AnalyseBoxesConfig,
    AskDetectorConfig,
    MakeBoxMapsConfig,
    MakeBoxMasksConfig,
)
from rayseg.config.files import as_plain, as_toml, as_written, read_toml
from rayseg.config.jobs import (
    DoctorConfig,
    ExportConfig,
    PredictConfig,
    PredictInstancesConfig,
    PrepareConfig,
    RunConfig,
    ScoreConfig,
    ToyBottleneckConfig,
    TrainClassifierConfig,
    TrainFickleNetConfig,
    TrainSegmenterConfig,
)
from rayseg.config.networks import ClassifierConfig, FickleNetConfig, SegmenterConfig
from rayseg.config.objects import (
    DetectorConfig,
    MaskRCNNConfig,
    TrainDetectorConfig,
    TrainMaskRCNNConfig,
)
from rayseg.config.seeds import MakeSeedsConfig, RefineSeedsConfig, threshold_field
from rayseg.config.tuning import TUNABLE, TuneConfig

__all__ = [
    "TUNABLE",
    "AnalyseBoxesConfig",
    "AskDetectorConfig",
    "ClassifierConfig",
    "Compute",
    "DetectorConfig",
    "DoctorConfig",
    "ExportConfig",
    "FickleNetConfig",
    "JobConfig",
    "MakeBoxMapsConfig",
    "MakeBoxMasksConfig",
    "MakeSeedsConfig",
    "MaskRCNNConfig",
    "PredictConfig",
    "PredictInstancesConfig",
    "PrepareConfig",
    "RefineSeedsConfig",
    "RunConfig",
    "ScoreConfig",
    "SegmenterConfig",
    "SegmentersConfig",
    "ToyBottleneckConfig",
    "TrainClassifierConfig",
    "TrainDetectorConfig",
    "TrainFickleNetConfig",
    "TrainMaskRCNNConfig",
    "TrainSegmenterConfig",
    "TuneConfig",
    "as_plain",
    "as_toml",
    "as_written",
    "read_toml",
    "threshold_field",
]
