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
from rayseg.config.files import as_plain, as_toml, as_written, identity_of, read_toml
from rayseg.config.jobs import (
    DoctorConfig,
    ExportConfig,
    PredictConfig,
    PredictInstancesConfig,
    PrepareConfig,
    RunConfig,
    ScoreConfig,
    ToyBottleneckConfig,
)
from rayseg.config.seeds import MakeSeedsConfig, RefineSeedsConfig, threshold_field
from rayseg.config.trainings import (
    TrainClassifierConfig,
    TrainDetectorConfig,
    TrainFickleNetConfig,
    TrainMaskRCNNConfig,
    TrainSegmenterConfig,
    training_config,
)
from rayseg.config.tuning import TUNABLE, TuneConfig

__all__ = [
    "TUNABLE",
    "AnalyseBoxesConfig",
    "AskDetectorConfig",
    "Compute",
    "DoctorConfig",
    "ExportConfig",
    "JobConfig",
    "MakeBoxMapsConfig",
    "MakeBoxMasksConfig",
    "MakeSeedsConfig",
    "PredictConfig",
    "PredictInstancesConfig",
    "PrepareConfig",
    "RefineSeedsConfig",
    "RunConfig",
    "ScoreConfig",
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
    "identity_of",
    "read_toml",
    "threshold_field",
    "training_config",
]
