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
        space: what is searched: a name in tune_spaces/, or the path of a file like those, named
            after the method or refiner. What it does not search is as the other flags say.
        sweep: name of its folder in tuning/; empty is that of the space, with `seeds_of` before it
            for a refiner's. Other images, steps that are read off or flags want another folder.
        search: grid combines the space's grid, random draws from its domains, optuna (TPE) as well
            (pip install 'rayseg[optuna]').
        grid: in place of the space's values, such as restrict_weight=0,3,7 or num_steps=5,10. With
            grid search only these, where a searched field is among them.
        samples: trials of random and optuna; those that a folder holds already count.
        stop_early: asha ends trials that lag behind others on as many images.
        max_images: of the split with a truth, a fixed draw; 0 is all. The same list for all trials.
        slice_images: a trial reports, and can be ended or resumed, after each so many.
        seeds_of: the method whose maps a refiner's trials start from.
        threshold_step: distance of the background thresholds that maps are scored at.
        over: class names that the mean is taken over, with background; empty for all.
        tune_seed: of the draws of images and settings.
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
        if "/" in self.sweep:
            raise ValueError(f"sweep must be the name of a folder, got {self.sweep!r}")
        check_least(self, samples=1, slice_images=1, max_images=0)
        if not 0 < self.threshold_step <= 0.5:
            raise ValueError(f"threshold_step must lie in (0, 0.5], got {self.threshold_step}")
