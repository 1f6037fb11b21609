"""How far a training is, in a small file of its folder, which whoever waits reads.

It goes from the first worker to the job and to `rayseg status` in the same way on Ray and without,
on this machine and on a cluster.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rayseg.store.folder import Folder

PROGRESS = ".progress.json"
LOCAL_SECONDS, REMOTE_SECONDS = 2.0, 15.0
"""Between two writings."""


def seconds_between(folder: Folder) -> float:
    """Between two writings of the file of that folder."""
    return LOCAL_SECONDS if folder.local_path else REMOTE_SECONDS


class ProgressFile:
    """Written by the first worker, every few seconds at most.

    Args:
        folder: of the network.
        facts: of the training so far; read at each writing.
        steps: of the whole training.
    """

    def __init__(self, folder: Folder, facts: Mapping[str, Any], steps: int):
        self.folder, self.facts, self.steps = folder, facts, steps
        self.first, self.began, self.last = facts["iteration"], time.monotonic(), 0.0

    def write(self, rate: float, doing: str = "") -> None:
        """Says the step, the loss and the rest; `doing` is said at once.

        Args:
            rate: of learning.
            doing: what goes on beside steps, such as judging.
        """
        now = time.monotonic()
        if not doing and now - self.last < seconds_between(self.folder):
            return
        self.last, step = now, self.facts["iteration"]
        since = self.facts["since_logged"] or self.facts["curve"][-1:]
        said = {
            "step": step,
            "steps": self.steps,
            "loss": sum(one["loss"] for one in since) / len(since) if since else None,
            "lr": rate,
            "steps_per_second": (step - self.first) / max(now - self.began, 1e-9),
            "judged": self.facts["judged"][-1:],
            "doing": doing,
        }
        with suppress(OSError):  # a training does not end for it
            self.folder.write(PROGRESS, json.dumps(said).encode(), durable=False)


def read_progress_file(folder: Folder) -> dict[str, Any]:
    """What the file says; empty where there is none."""
    with suppress(OSError, ValueError):
        found = json.loads(folder.read(PROGRESS))
        return found if isinstance(found, dict) else {}
    return {}


def forget_progress(folder: Folder) -> None:
    """Takes the file away."""
    if folder.exists(PROGRESS):
        folder.delete(PROGRESS)


def noted(said: Mapping[str, Any]) -> str:
    """Loss, rate of learning and what was judged last, in words."""
    parts = [said["doing"]] if said.get("doing") else []
    parts += [f"{name} {said[name]:.3g}" for name in ("loss", "lr") if said.get(name) is not None]
    for judged in said.get("judged") or []:
        figures = [f"{k} {v:.3f}" for k, v in judged.items() if isinstance(v, float)]
        parts += [f"{', '.join(figures[:2])} at step {judged.get('iteration')}"] if figures else []
    return ", ".join(parts)
