"""Presets by name: those that set the constants of methods, and those that fit a machine.

`official` and `as_written` say which source the constants come from. `laptop` and `gpu` are TOML
files in the folder presets/ beside this file; they are read as a first ``--config``, so that both
kinds can be combined, and files and flags of one's own win over either.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from rayseg.config.files import as_written, read_toml
from rayseg.toml import hint

C = TypeVar("C")
PRESETS = {
    "official": "the constants of the authors' code, which are the defaults",
    "as_written": "the equations of the papers",
    "laptop": "few images and no GPU: a small network, one scale, few steps",
    "gpu": "a GPU for each process, and bf16 where it is fast",
}
"""All names, and what each is."""
FOLDER = Path(__file__).with_name("presets")
"""Holds a file for each preset that fits a machine."""


def with_presets(base: C, names: Iterable[str]) -> C:
    """The configuration with presets in it; constants of methods first, then files in their order.

    Raises:
        ValueError: a name of no preset.
    """
    asked = list(names)
    for name in asked:
        if name not in PRESETS:
            known = ", ".join(PRESETS)
            raise ValueError(f"preset must be one of {known}, got {name!r}{hint(name, PRESETS)}")
    if "as_written" in asked:
        base = as_written(base)
    for name in asked:
        if (FOLDER / f"{name}.toml").is_file():
            base = read_toml(str(FOLDER / f"{name}.toml"), base)
    return base
