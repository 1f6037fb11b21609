"""One job of a run, as the recipe lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rayseg.learn import TRAININGS
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome

JobFunction = Callable[[Any, Engine], Outcome]


@dataclass(frozen=True)
class Part:
    """One job of a run.

    Attributes:
        job: does it.
        kind: of the folders that it fills, a key of KINDS; empty for scores.
        names: of these folders; a folder of the run itself has an empty one.
        labels: that the job is to take.
        shown: its lines are printed.
    """

    job: JobFunction
    kind: str = ""
    names: tuple[str, ...] = ("",)
    labels: tuple[str, ...] = ()
    shown: bool = True


def settings_of(config: Any, kind: str) -> Any:
    """The settings of a training in a job's configuration."""
    return getattr(config, TRAININGS[kind].field)
