"""What this machine lends to a run: cores and memory, as containers and batch systems limit them."""

from __future__ import annotations

import os
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much memory a container may take."""


def cores() -> int:
    """Return the number of processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Return the bytes of memory of this machine, or of the container that this process lives in."""
    import psutil

    most = int(psutil.virtual_memory().total)
    for path in LIMITS:
        try:
            most = min(most, int(Path(path).read_text("ascii")))
        except (OSError, ValueError):  # not on this system, or no limit: "max"
            continue
    return most
