"""Search spaces: what `tune_spaces` says of a method or refiner, checked against its fields."""

import importlib.util
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from rayseg.config import TUNABLE, TuneConfig
from rayseg.toml import hint, update

METRICS = {"seeds": "miou", "masks": "miou", "objects": "object_iou"}
"""What trials of each kind come to."""
SPACES = Path(__file__).resolve().parents[2] / "tune_spaces"


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        name: of the method or refiner.
        kind: a key of TUNABLE.
        domains: field to the domain of ray.tune that it is drawn from.
        grid: field to values that are combined.
        read_off: field to values that every trial scores at once.
        metric: what trials of its kind come to.
        mode: max.
    """

    name: str
    kind: str
    domains: dict[str, Any]
    grid: dict[str, list[Any]]
    read_off: dict[str, list[Any]]
    metric: str
    mode: str

    def __post_init__(self) -> None:
        known = {part.name for part in fields(TUNABLE[self.kind][self.name])}
        for name in [*self.domains, *self.grid, *(key for key in self.read_off if "." not in key)]:
            if name not in known:
                raise ValueError(f"space {self.name}: unknown field {name!r}{hint(name, known)}")
        if (self.metric, self.mode) != (METRICS[self.kind], "max"):
            raise ValueError(
                f"space {self.name}: METRIC, MODE must be {METRICS[self.kind]!r}, 'max', "
                f"got {self.metric!r}, {self.mode!r}"
            )
        if not set(self.grid) <= set(self.domains):
            raise ValueError(f"space {self.name}: GRID must be a part of SPACE")
        several = self.kind == "masks"
        if not set(self.read_off) <= self.readable or (len(self.read_off) > 1 and not several):
            number = "some" if several else "one"
            raise ValueError(
                f"space {self.name}: READ_OFF must be empty or have {number} of "
                f"{', '.join(sorted(self.readable)) or 'nothing'}, got {', '.join(self.read_off)}"
            )

    @property
    def readable(self) -> set[str]:
        """What a trial can score for all values at once."""
        if self.kind == "objects":
            return {f"box_crf.{part.name}" for part in fields(TuneConfig().box_crf)}
        part = TUNABLE[self.kind][self.name]
        if self.kind == "masks":
            return set(getattr(part, "read_off", ()))
        return {"num_steps"} if hasattr(part, "course") else set()

    def narrowed(self, given: Sequence[str]) -> Self:
        """With the values of ``field=value,value`` in place of its own.

        Where a searched field is among them, those are the whole grid.
        """
        values_of = dict(_values(one) for one in given)
        known = [*self.domains, *self.read_off]
        for name in values_of:
            if name not in known:
                raise ValueError(
                    f"grid must name fields of space {self.name} ({', '.join(known)}), "
                    f"got {name!r}{hint(name, known)}"
                )
        read_off = {name: values_of.get(name, values) for name, values in self.read_off.items()}
        searched = {name: values for name, values in values_of.items() if name in self.domains}
        return replace(self, grid=searched or self.grid, read_off=read_off)

    def setting(self, base: Any, values: Mapping[str, Any]) -> Any:
        """The method or refiner with these values."""
        plain = {name: _plain(value) for name, value in values.items()}
        return update(base, plain, f"space {self.name}")

    def complete(self, base: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        """What these values make of every searched field, also of those that are not among them."""
        made = self.setting(base, values)
        return {name: _plain(getattr(made, name)) for name in sorted(self.domains)}

    def drawable(self, setting: Mapping[str, Any]) -> dict[str, Any] | None:
        """A complete setting as the domains would draw it; None where they could not."""
        found = {}
        for name, domain in self.domains.items():
            drawn = getattr(domain, "categories", [setting[name]])
            same = [value for value in drawn if _plain(value) == setting[name]]
            if not same or not domain.is_valid(same[0]):
                return None
            found[name] = same[0]
        return found


def load_space(name: str) -> Space:
    """The space of that name, or of that file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no space.
    """
    path = Path(name) if name.endswith(".py") else SPACES / f"{name}.py"
    known = sorted(one.stem for one in SPACES.glob("[a-z]*.py"))
    if not path.is_file():
        raise FileNotFoundError(
            f"space must be of {', '.join(known)} or a file like theirs, "
            f"got {name!r}{hint(name, known)}"
        )
    module = _load(path)
    kind = next((kind for kind, parts in TUNABLE.items() if path.stem in parts), None)
    if kind is None:
        every = [part for parts in TUNABLE.values() for part in parts]
        raise ValueError(
            f"{path} must be named after a method or refiner ({', '.join(every)}), "
            f"got {path.stem!r}{hint(path.stem, every)}"
        )
    try:
        return Space(
            path.stem, kind, dict(module.SPACE), dict(module.GRID), dict(module.READ_OFF),
            module.METRIC, module.MODE,
        )  # fmt: skip
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{path} is no space: {error}") from None


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rayseg_space_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody else's file raises
        raise ValueError(f"{path} is no space: {type(error).__name__}: {error}") from None
    return module


def _values(given: str) -> tuple[str, list[Any]]:
    name, _, values = given.partition("=")
    try:
        found = tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:
        found = []
    if not found:
        raise ValueError(f"grid must be such as restrict_weight=0,3,7, got {given!r}")
    return name, found


def _plain(value: Any) -> Any:
    """As a TOML file would hold it."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value
