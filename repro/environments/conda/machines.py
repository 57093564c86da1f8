"""What is taken for granted of the machines of a platform when an environment is locked for it.

Not what this machine has: the same request must give the same lock everywhere. As in conda, the
variables `CONDA_OVERRIDE_GLIBC`, `…_CUDA`, `…_LINUX` and `…_OSX` declare something else.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Virtual = tuple[str, str, str]

GLIBC = "2.28"
"""As old as the wheels that are taken for the platform, see `repro.platforms`."""

LINUX = "5.10"
MACOS = "11.0"


def virtual(platform: str, environ: Mapping[str, str]) -> list[Virtual]:
    """Give the virtual packages of a platform as (name, version, build)."""
    system, _, machine = platform.partition("-")
    architecture = {"64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}.get(machine, machine)
    found = [("__archspec", "1", architecture)]
    if system == "linux":
        glibc = environ.get("CONDA_OVERRIDE_GLIBC") or GLIBC
        linux = environ.get("CONDA_OVERRIDE_LINUX") or LINUX
        found += [("__unix", "0", "0"), ("__linux", linux, "0"), ("__glibc", glibc, "0")]
    elif system == "osx":
        macos = environ.get("CONDA_OVERRIDE_OSX") or MACOS
        found += [("__unix", "0", "0"), ("__osx", macos, "0")]
    else:
        found += [("__win", "0", "0")]
    cuda = environ.get("CONDA_OVERRIDE_CUDA", "")
    return [*found, ("__cuda", cuda, "0")] if cuda else found
