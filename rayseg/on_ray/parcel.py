"""What travels to a cluster: a working directory, less its data and whatever opens a door."""

import logging
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray._private import ray_constants
from ray._private.runtime_env import packaging

from rayseg.config.secrets import SECRET_FILES, any_case

RESULTS = (
    ".git", ".venv", "venv", "*.egg-info", "__pycache__", ".*_cache", "/data", "/runs", "/export",
    "*.pth", "*.safetensors", "*.onnx", "*.parquet",
)  # fmt: skip
"""History, environments, data, weights, results."""
IMAGES = tuple(
    any_case(f"*.{ending}")
    for ending in (
        "avif", "bmp", "gif", "heic", "heif", "jfif", "jp2", "jpeg", "jpg", "png", "ppm", "tif",
        "tiff", "webp",
    )
)  # fmt: skip
EXCLUDES = RESULTS + SECRET_FILES + IMAGES
"""Patterns of git's kind."""
LIMIT = min(packaging.GCS_STORAGE_MAX_SIZE, ray_constants.DASHBOARD_CLIENT_MAX_SIZE)
"""Bytes that a cluster takes, which Ray sends uncompressed."""


@dataclass(frozen=True)
class Parcel:
    """The files of a working directory that travel.

    Attributes:
        folder: the directory.
        sizes: bytes of each file, by its path in the directory.
        excludes: patterns of what does not travel.
    """

    folder: Path
    sizes: dict[str, int]
    excludes: tuple[str, ...]

    def __str__(self) -> str:
        most = sorted(self.sizes, key=lambda name: -self.sizes[name])[:3]
        largest = ", ".join(f"{name} ({_in_words(self.sizes[name])})" for name in most)
        total = _in_words(sum(self.sizes.values()))
        return (
            f"{len(self.sizes)} files of {self.folder}, {total}; the largest: {largest or 'none'}"
        )

    def check_size(self) -> None:
        """Refuses what the cluster would not take.

        Raises:
            ValueError: the text names the largest file and what to do.
        """
        total = sum(self.sizes.values())
        if total < LIMIT:
            return
        largest = max(self.sizes, key=lambda name: self.sizes[name])
        raise ValueError(
            f"working directory {self.folder} has {_in_words(total)} to send, Ray takes at most "
            f"{_in_words(LIMIT)}: the largest file is {largest} "
            f"({_in_words(self.sizes[largest])}); name what the job does not need in "
            f"{self.folder / '.rayignore'}, or give "
            "--working-dir a folder with the code alone"
        )


def pack(folder: str) -> Parcel:
    """What of a directory travels, by the rules that Ray packs it by.

    A link that leads out of the directory, or to something that does not travel, stays.
    """
    root = Path(folder).resolve()
    kept_out = packaging._get_excludes(root, list(EXCLUDES))
    links: list[str] = []
    sizes: dict[str, int] = {}

    def leads_out(path: Path) -> bool:
        if not path.is_symlink():
            return False
        end = path.resolve()
        out = not end.is_relative_to(root) or end == root or _is_kept(end, root, kept_out)
        if out:
            links.append(_pattern(path.relative_to(root)))
        return out

    packaging._dir_travel(
        root,
        [kept_out, leads_out],
        partial(_note, root, sizes),
        logger=logging.getLogger(__name__),  # Ray's own tells of every file with patterns
        include_gitignore=os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE) != "1",
    )
    return Parcel(root, sizes, (*EXCLUDES, *links))


def _is_kept(path: Path, root: Path, kept_out: Any) -> bool:
    """Whether something, or a folder that it lies in, does not travel."""
    inside = [path, *path.parents]
    return any(kept_out(one) for one in inside[: inside.index(root)])


def _note(root: Path, sizes: dict[str, int], path: Path) -> None:
    if path.is_file():
        sizes[str(path.relative_to(root))] = path.stat().st_size


def _pattern(path: Path) -> str:
    """The pattern of that path and no other."""
    return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", str(path))


def _in_words(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
