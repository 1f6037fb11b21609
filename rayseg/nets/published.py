"""Weights that a library publishes: where they lie, and whether they can be had."""

import re
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from rayseg.nets.backbones import TRUNKS

ANSWER_SECONDS = 15.0
"""For a host to answer, its name to be found included."""
OpenAddress = Callable[..., Any]


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights that a library fetches when they are asked for.

    Attributes:
        address: that the library fetches it from.
    """

    address: str

    @property
    def name(self) -> str:
        """Of the file."""
        return Path(urlparse(self.address).path).name

    @property
    def cache(self) -> Path:
        """The folder that the library looks into before it fetches."""
        return Path(torch.hub.get_dir()) / "checkpoints"

    @property
    def is_there(self) -> bool:
        """Whether nothing has to be fetched."""
        return (self.cache / self.name).is_file()

    def unreachable(self, open_address: OpenAddress = urllib.request.urlopen) -> str:
        """Why the file cannot be fetched, found out within seconds; empty where it can be."""
        found: list[str] = []

        def ask() -> None:
            try:
                request = urllib.request.Request(self.address, method="HEAD")
                open_address(request, timeout=ANSWER_SECONDS).close()
                found.append("")
            except (OSError, ValueError) as error:
                found.append(" ".join(str(getattr(error, "reason", error)).split()))

        thread = threading.Thread(target=ask, daemon=True)  # finding a name has no timeout
        thread.start()
        thread.join(ANSWER_SECONDS)
        return found[0] if found else f"no answer in {ANSWER_SECONDS:.0f} s"

    def fetch(self) -> None:
        """Puts the file into the cache.

        Raises:
            OSError: it cannot be fetched or written.
            RuntimeError: what came is not what its name's hash says.
        """
        self.cache.mkdir(parents=True, exist_ok=True)
        hashed = re.search(r"-([a-f0-9]*)\.", self.name)
        torch.hub.download_url_to_file(
            self.address, str(self.cache / self.name), hashed and hashed[1], progress=False
        )


def published_file(trunk: str, weights: str) -> PublishedFile | None:
    """The file of a trunk's set of weights; None for none, and where the trunk has no such set."""
    kind = TRUNKS[trunk]
    if weights not in kind.weight_sets or kind.address is None:
        return None
    return PublishedFile(kind.address(weights))
