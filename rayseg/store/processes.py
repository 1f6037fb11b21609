"""Which process wrote something, and whether it still runs."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def process_space() -> str:
    """In which this process's number is a process: a boot of a machine, a container.

    Empty where the system does not say.
    """
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return ""


def runs(pid: int) -> bool:
    """Whether a process of that number runs in this space; one that nobody buries does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    with suppress(OSError):  # elsewhere than on Linux there is no such file
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True
