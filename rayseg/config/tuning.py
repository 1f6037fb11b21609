"""The job that sweeps the settings of a method or refiner."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rayseg.attribution import BOX_METHODS, METHODS
from rayseg.config.boxes import AskDetectorConfig, BoxRefinerFields
from rayseg.config.seeds import MakeSeedsConfig, RefineSeedsConfig
from rayseg.records.bounds import check_least
from rayseg.refine import REFINERS
from rayseg.toml import check_literals

TUNABLE: dict[str, Mapping[str, type]] = {
    "seeds": METHODS,
    "masks": REFINERS,
    "objects": BOX_METHODS,
}
"""What a trial makes, to the methods or refiners that make it."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(BoxRefinerFields, AskDetectorConfig, RefineSeedsConfig, MakeSeedsConfig):
    """Sweeps the settings of a method or refiner on images whose truth is known.

    Attributes:
        space: What is searched: a name in tune_spaces/, or the path of a file like those, named
            after the method or refiner. What it does not search is as the other flags say.
        sweep: Folder of the sweep in tuning/; empty is the space's name, with `seeds_of` before it
            for a refiner's. Other images, steps that are read off or flags need another folder.
        search: How settings are chosen: grid combines the space's grid, random draws from its
            domains, as does optuna (TPE; pip install 'rayseg[optuna]').
        grid: Values in place of the space's, such as restrict_weight=0,3,7 or num_steps=5,10; grid
            search takes these only, where a searched field is among them.
        samples: Trials of random and optuna; those that a folder already holds count.
        stop_early: Trials that lag behind others on as many images end early with asha.
        max_images: Images of the split with a truth, the same fixed draw for all trials; 0 is all.
        slice_images: Images after which a trial reports, and can be ended or resumed.
        seeds_of: Method whose maps a refiner's trials start from.
        threshold_step: Step between the background thresholds at which maps are scored.
        over: Class names that the mean is taken over, with background; empty for all.
        tune_seed: Seed of the draws of images and settings.
    """

    space: str = "advcam"
    sweep: str = ""
    search: Literal["grid", "random", "optuna"] = "grid"
    grid: tuple[str, ...] = ()
    samples: int = 32
    stop_early: Literal["none", "asha"] = "none"
    max_images: int = 200
    slice_images: int = 10
    seeds_of: str = "advcam"
    threshold_step: float = 0.01
    over: tuple[str, ...] = ()
    tune_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)
        check_least(self, samples=1, slice_images=1, max_images=0)
        if not 0 < self.threshold_step <= 0.5:
            raise ValueError(f"threshold_step must lie in (0, 0.5], got {self.threshold_step}")
