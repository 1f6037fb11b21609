"""One frozen dataclass a job, made of the parts' own dataclasses; TOML in, JSON out.

The same object is the command line's flags, the TOML file, the argument that travels to an actor
and the record beside the results. Each part is loaded when one of its names is asked for, since
those that have methods and networks as their fields load torch, which takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_PARTS = ("base", "files", "networks", "objects", "seeds", "boxes", "tuning", "jobs")
"""In the order in which a name is looked for: the first two load no torch."""


def __getattr__(name: str) -> Any:
    """The first part's that has the name."""
    for part in _PARTS if name in __all__ else ():
        module = import_module(f"{__name__}.{part}")
        if name in vars(module):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
