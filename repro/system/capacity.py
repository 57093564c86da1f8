"""What this machine has for steps: processors, memory, accelerators."""

from __future__ import annotations

import os

from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP = "/sys/fs/cgroup"
DEVICES = "/dev"


def processors() -> int:
    """Give the number of processors that this process may use, 0 where it is not known."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 0


def memory(group: str = GROUP) -> int:
    """Give the bytes of memory, or the limit of our control group; 0 where neither is known."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    limit = (files.read(os.path.join(group, "memory.max")) or b"").strip()
    return min(installed, int(limit)) if limit.isdigit() else installed


def accelerators(environ: Mapping[str, str], devices: str = DEVICES) -> int:
    """Give the number of GPUs, 0 where there is none or it is not known.

    `CUDA_VISIBLE_DEVICES` says which of NVIDIA's may be used, as for CUDA's own programs.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in {"", "-1"}])
    try:
        names = os.listdir(devices)
    except OSError:
        return 0
    return sum(name.startswith("nvidia") and name[len("nvidia") :].isdigit() for name in names)
