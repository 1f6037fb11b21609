"""Presets by name: those that set the constants of methods, and files that come with the package.

`official` and `as_written` say which source the constants come from. All others are TOML files in
the folder presets/ beside this file: settings for a machine, for drawn scenes, or those of one
paper's code. They are read as a first ``--config``, so that several can be combined, and files and
flags of one's own win over all of them.
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
    "demo": "drawn scenes from tags to segmenters, in minutes on two cores",
    "boxes_synthetic": "drawn scenes from boxes to a Mask R-CNN, in minutes on two cores",
    "rib_coco": "RIB on COCO as its authors' code sets it",
    "seam": "SEAM, and PSA on its maps, as SEAM's code sets them",
    "deeplab_v2_authors": "the segmenter as AdvCAM's author trained it; with its CRF",
    "deeplab_v2_public": "the segmenter as deeplab-pytorch trains it; with its CRF",
}
"""All names, and what each is."""
FOLDER = Path(__file__).with_name("presets")
"""Holds a file for each preset but `official` and `as_written`."""


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
