"""Configurations from TOML files and presets, and back."""

import dataclasses
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from rayseg.config.job_list import JOBS
from rayseg.toml import read, update

C = TypeVar("C")


def as_written(config: C) -> C:
    """The configuration with every part that has one at its preset ``as_written``."""
    changed = {
        part.name: getattr(config, part.name).as_written()
        for part in fields(config)  # type: ignore[arg-type]
        if hasattr(getattr(config, part.name), "as_written")
    }
    if hasattr(config, "thresholds"):
        from rayseg.refine.crf import LabelCRF  # noqa: PLC0415  # loads torch

        text = LabelCRF.as_written()
        stated = (text.fg_threshold, text.bg_threshold)
        makers = (part.name for part in fields(config.thresholds))
        changed["thresholds"] = replace(config.thresholds, **dict.fromkeys(makers, stated))
    return replace(config, **changed)  # type: ignore[type-var]


def read_toml(path: str, base: C) -> C:
    """The configuration with what a TOML file says in it.

    A file may hold the keys of any job, so that one file serves all jobs of a run; keys of other
    jobs are passed over here, keys of no job are an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, or has a key that no job knows, or a value of another type.
    """
    given = read(path)
    mine = {part.name for part in fields(base)}  # type: ignore[arg-type]
    others = {key: value for key, value in given.items() if key not in mine}
    if others:  # all jobs together load torch
        update(_every_key(), others, path)
    return update(base, {key: value for key, value in given.items() if key in mine}, path)


def _every_key() -> Any:
    """A configuration with the keys of all jobs."""
    kinds = [job.config for job in JOBS.values()]
    last = [one for one in kinds if not any(issubclass(o, one) for o in kinds if o is not one)]
    return dataclasses.make_dataclass("EveryKey", [], bases=tuple(last), frozen=True)()


def as_plain(config: object) -> Any:
    """The configuration as what JSON and TOML can hold: no path, no tuple, no None."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {part.name: as_plain(getattr(config, part.name)) for part in fields(config)}
    if isinstance(config, tuple | list):
        return [as_plain(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def identity_of(config: object) -> Any:
    """The configuration as what a folder is compared by that was filled under it.

    As `as_plain`, but a field whose metadata say that it is `new` is left out at its default: the
    folders of earlier versions lack it, and are what that default makes. One whose metadata say
    `compared_as` is that value at its default, which stood there in earlier versions.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            part.name: identity_of(_compared(getattr(config, part.name), part))
            for part in fields(config)
            if not (part.metadata.get("new") and getattr(config, part.name) == part.default)
        }
    return as_plain(config)


def _compared(value: object, part: dataclasses.Field[Any]) -> object:
    return part.metadata.get("compared_as", value) if value == part.default else value


def as_toml(config: object) -> str:
    """The configuration as a TOML file that `read_toml` takes back; what is None is left out."""
    return tomli_w.dumps(_without_none(as_plain(config)))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
