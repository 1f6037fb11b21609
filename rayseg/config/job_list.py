"""All jobs by name; torch and Ray are loaded when a job is asked for, not for the list."""

import ast
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rayseg.config.base import JobConfig
from rayseg.networks import NETWORKS


@dataclass(frozen=True)
class Job:
    """A job by the names of what it is made of, which load torch and Ray when they are asked for.

    Attributes:
        kind: module and name of its configuration.
        function: module and name of what does it, called with configuration and engine.
        words: fields that are given without flags, in this order, before all flags.
    """

    kind: str
    function: str
    words: tuple[str, ...] = ()

    @property
    def config(self) -> type[JobConfig]:
        """Its configuration."""
        return _load(self.kind)

    @property
    def summary(self) -> str:
        """What it does in a line, read from the configuration's text."""
        module, _, name = self.kind.partition(":")
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
        (found,) = (one for one in body if isinstance(one, ast.ClassDef) and one.name == name)
        return (ast.get_docstring(found) or "").splitlines()[0]

    def run(self, config: JobConfig) -> Any:
        """Does it by the engine that the configuration names."""
        return _load(self.function)(config, LateEngine(ENGINES[config.engine]))


def _load(address: str) -> Any:
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class LateEngine:
    """An engine that is loaded when a verb is asked of it, as torch and Ray take seconds.

    Attributes:
        kind: module and name of the engine.
    """

    kind: str

    def __getattr__(self, verb: str) -> Any:
        """The engine's own."""
        return getattr(_load(self.kind)(), verb)


ENGINES = {"ray": "rayseg.on_ray.engine:RayEngine", "plain": "rayseg.plain:PlainEngine"}


@dataclass(frozen=True)
class TrainingJob(Job):
    """The job that trains a kind of network.

    Attributes:
        network: a key of NETWORKS.
    """

    network: str = ""

    @property
    def config(self) -> type[JobConfig]:
        """Its configuration."""
        return _load(self.kind)[self.network]

    @property
    def summary(self) -> str:
        """What it does in a line."""
        return NETWORKS[self.network].job_in_words

    def run(self, config: JobConfig) -> Any:
        """Does it by the engine that the configuration names."""
        return _load(self.function)(self.network, config, LateEngine(ENGINES[config.engine]))


JOBS: dict[str, Job] = {
    "prepare": Job("rayseg.config.borders:PrepareConfig", "rayseg.steps.preparing:prepare"),
    **{
        network.job: TrainingJob(
            "rayseg.config.trainings:TRAIN_CONFIGS", "rayseg.steps.training:train", network=kind
        )
        for kind, network in NETWORKS.items()
    },
    "make-seeds": Job("rayseg.config.seeds:MakeSeedsConfig", "rayseg.steps.seeds:make_seeds"),
    "refine-seeds": Job("rayseg.config.seeds:RefineSeedsConfig", "rayseg.steps.masks:refine_seeds"),
    "predict": Job("rayseg.config.jobs:PredictConfig", "rayseg.steps.predictions:predict"),
    "make-box-maps": Job(
        "rayseg.config.boxes:MakeBoxMapsConfig", "rayseg.steps.boxes:make_box_maps"
    ),
    "make-box-masks": Job(
        "rayseg.config.boxes:MakeBoxMasksConfig", "rayseg.steps.boxes:make_box_masks"
    ),
    "predict-instances": Job(
        "rayseg.config.jobs:PredictInstancesConfig", "rayseg.steps.predictions:predict_instances"
    ),
    "analyse-boxes": Job(
        "rayseg.config.boxes:AnalyseBoxesConfig", "rayseg.steps.box_analysis:analyse_boxes"
    ),
    "score": Job("rayseg.config.jobs:ScoreConfig", "rayseg.steps.score:score"),
    "run": Job("rayseg.config.jobs:RunConfig", "rayseg.steps.recipe:run"),
    "tune": Job("rayseg.config.tuning:TuneConfig", "rayseg.on_ray.tune:tune"),
    "doctor": Job("rayseg.config.jobs:DoctorConfig", "rayseg.steps.doctor:doctor"),
    "status": Job("rayseg.config.borders:StatusConfig", "rayseg.steps.status:status", ("run",)),
    "check": Job("rayseg.config.jobs:CheckConfig", "rayseg.steps.check:check"),
    "export": Job("rayseg.config.borders:ExportConfig", "rayseg.steps.exporting:export"),
    "show": Job("rayseg.config.borders:ShowConfig", "rayseg.steps.showing:show", ("run", "id")),
    "view": Job("rayseg.config.borders:ViewConfig", "rayseg.steps.viewing:view", ("run",)),
    "toy-bottleneck": Job(
        "rayseg.config.jobs:ToyBottleneckConfig", "rayseg.steps.toy_bottleneck:toy_bottleneck"
    ),
}
"""All jobs, in the order in which `rayseg --help` shows them."""
