"""One frozen dataclass a job, made of the parts' own dataclasses; TOML in, JSON out.

The same object is the command line's flags, the TOML file, the argument that travels to an actor
and the record beside the results. Each part is loaded when one of its names is asked for, since
those that have methods and networks as their fields load torch, which takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayseg.config.base import Compute, JobConfig, SegmentersConfig
    from rayseg.config.borders import (
        ExportConfig,
        PrepareConfig,
        ShowConfig,
        StatusConfig,
        ViewConfig,
    )
    from rayseg.config.boxes import (
        AnalyseBoxesConfig,
        AskDetectorConfig,
        MakeBoxMapsConfig,
        MakeBoxMasksConfig,
    )
    from rayseg.config.files import as_plain, as_toml, as_written, identity_of, read_toml
    from rayseg.config.jobs import (
        CheckConfig,
        DoctorConfig,
        PredictConfig,
        PredictInstancesConfig,
        RunConfig,
        ScoreConfig,
        ToyBottleneckConfig,
    )
    from rayseg.config.seeds import (
        MakeSeedsConfig,
        RefineSeedsConfig,
        threshold_field,
        thresholds_of,
    )
    from rayseg.config.trainings import TRAIN_CONFIGS
    from rayseg.config.tuning import TUNABLE, TuneConfig

__all__ = [
    "TRAIN_CONFIGS",
    "TUNABLE",
    "AnalyseBoxesConfig",
    "AskDetectorConfig",
    "CheckConfig",
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
    "ShowConfig",
    "StatusConfig",
    "ToyBottleneckConfig",
    "TuneConfig",
    "ViewConfig",
    "as_plain",
    "as_toml",
    "as_written",
    "identity_of",
    "read_toml",
    "threshold_field",
    "thresholds_of",
]

_PARTS = ("base", "files", "borders", "trainings", "seeds", "boxes", "tuning", "jobs")
"""In the order in which a name is looked for: the first three load no torch."""


def __getattr__(name: str) -> Any:
    """The first part's that has the name."""
    for part in _PARTS if name in __all__ else ():
        module = import_module(f"{__name__}.{part}")
        if name in vars(module):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
