"""rayseg: weakly supervised segmentation as a distributed batch system on Ray.

`label` makes masks of images and their tags, `open_run` looks at a run; both are loaded when they
are asked for. Importing this package loads neither torch nor ray; import the part that you need.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayseg.api import label, open_run

__all__ = ["label", "open_run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What `rayseg.api` gives."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import rayseg.api as given  # noqa: PLC0415  # with pyarrow and NumPy, which help does without

    return getattr(given, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
