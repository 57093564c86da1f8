"""The names of platforms: conda's are ours; Python, docker and uv have their own."""

from __future__ import annotations

from repro.value import Value


class Platform(Value):
    """One platform by all its names.

    `name` is conda's subdirectory, `python` what `sysconfig.get_platform()` says there, `docker`
    the one of the OCI image specification, `uv` the value of its `--python-platform`. The rest are
    the values of PEP 508's environment markers.
    """

    name: str
    python: str
    docker: str
    uv: str
    sys_platform: str
    platform_system: str
    platform_machine: str
    os_name: str = "posix"


PLATFORMS = tuple(
    Platform(
        name=name,
        python=python,
        docker=docker,
        uv=uv,
        sys_platform=sys_platform,
        platform_system=system,
        platform_machine=machine,
        os_name="nt" if sys_platform == "win32" else "posix",
    )
    for name, python, docker, uv, sys_platform, system, machine in (
        (
            *("linux-64", "linux-x86_64", "linux/amd64", "x86_64-manylinux_2_28"),
            *("linux", "Linux", "x86_64"),
        ),
        (
            *("linux-aarch64", "linux-aarch64", "linux/arm64", "aarch64-manylinux_2_28"),
            *("linux", "Linux", "aarch64"),
        ),
        (
            *("osx-64", "macosx-10.9-x86_64", "linux/amd64", "x86_64-apple-darwin"),
            *("darwin", "Darwin", "x86_64"),
        ),
        (
            *("osx-arm64", "macosx-11.0-arm64", "linux/arm64", "aarch64-apple-darwin"),
            *("darwin", "Darwin", "arm64"),
        ),
        (
            *("win-64", "win-amd64", "linux/amd64", "x86_64-pc-windows-msvc"),
            *("win32", "Windows", "AMD64"),
        ),
    )
)
NAMES = tuple(p.name for p in PLATFORMS)


def named(name: str) -> Platform | None:
    """Give the platform of that name, None where there is none."""
    return next((p for p in PLATFORMS if p.name == name), None)


def of_machine(sys_platform: str, machine: str) -> str:
    """Name the platform of a machine by what `sys.platform` and `uname -m` say; else those two."""
    same = {"amd64": "x86_64", "arm64": "aarch64"}
    for platform in PLATFORMS:
        known = platform.platform_machine.lower()
        if platform.sys_platform == sys_platform and same.get(known, known) == same.get(
            machine.lower(), machine.lower()
        ):
            return platform.name
    return f"{sys_platform}-{machine}"
