"""The cores of this machine, and how they are divided."""

import os
from pathlib import Path

from rayseg.config import Compute


def count_cores() -> int:
    """Cores that this process may use, in a container its share."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = Path("/sys/fs/cgroup/cpu.max")
    allowed, period = quota.read_text().split() if quota.is_file() else ("max", "1")
    return cores if allowed == "max" else max(min(cores, int(allowed) // int(period)), 1)


def threads_each(compute: Compute) -> int:
    """CPU threads of an actor: as given, else this machine's cores over the actors."""
    if compute.threads:
        return compute.threads
    return max(count_cores() // compute.actors, 1) if compute.actors else 1
