"""The caller's own options for a container, read as the `docker run` command would read them."""

from __future__ import annotations

import os
import posixpath

from repro.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Read = Callable[[str], Any]

UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
SHORT = {
    "c": "cpu-shares",
    "e": "env",
    "h": "hostname",
    "l": "label",
    "m": "memory",
    "net": "network",
    "u": "user",
    "v": "volume",
}
# what is so already (an init, removal at the end), or has no meaning without a terminal
GRANTED = frozenset({"i", "init", "interactive", "rm", "t", "tty"})


def apply(
    options: Iterable[tuple[str, str | None]], config: dict[str, Any], environ: Mapping[str, str]
) -> None:
    """Add options to what the Docker API takes to create a container.

    Names are those of `docker run` without dashes, long or short; a value of None is a flag.
    Later ones win, or are added where several may be. `env` without a value takes it from
    `environ`. Raises UsageError for what is not known, or cannot be read.
    """
    for given, value in options:
        name = SHORT.get(given, given)
        if name in GRANTED:
            continue
        if name not in KNOWN:
            raise UsageError(
                f"docker's option `{given}` is not one that can be passed on",
                hints=[f"known are: {', '.join(sorted({*KNOWN, *GRANTED}))}"],
            )
        place, read = KNOWN[name]
        try:
            _add(
                config,
                place,
                _environment(value or "", environ) if name == "env" else read(_text(name, value)),
            )
        except ValueError as error:
            raise UsageError(f"docker's option `{given}={value}`: {error}") from None


def _text(name: str, value: str | None) -> str:
    """Give the value; only flags may come without."""
    if value is None and KNOWN[name][1] is not _flag:
        msg = "it needs a value"
        raise ValueError(msg)
    return "true" if value is None else value


def _add(config: dict[str, Any], place: str, value: Any) -> None:
    """Put a value where it belongs: lists grow, mappings are completed, others are replaced."""
    *folders, key = place.split(".")
    for folder in folders:
        config = config.setdefault(folder, {})
    if isinstance(value, list):
        config[key] = [*config.get(key, ()), *value]
    elif isinstance(value, dict):
        config[key] = {**config.get(key, {}), **value}
    else:
        config[key] = value


# --- how values are read -------------------------------------------------------------------


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        msg = "it is a flag, without a value"
        raise ValueError(msg)
    return text.lower() in {"true", "1"}


def _number(text: str) -> int:
    if not text.removeprefix("-").isdecimal():
        msg = "it takes a whole number"
        raise ValueError(msg)
    return int(text)


def _size(text: str) -> int:
    """Read a size as docker does: `512m` and `1.5gb` count in powers of 1024."""
    if text == "-1":
        return -1
    digits = text.rstrip("bBkKmMgGtTiI ")
    unit = text[len(digits) :].strip().lower()
    try:
        return int(
            float(digits) * UNITS[unit if unit == "b" else unit.removesuffix("b").removesuffix("i")]
        )
    except (ValueError, KeyError, OverflowError):
        msg = "it takes a size, such as 512m"
        raise ValueError(msg) from None


def _processors(text: str) -> int:
    try:
        return int(float(text) * 10**9)
    except (ValueError, OverflowError):
        msg = "it takes a number of processors, such as 1.5"
        raise ValueError(msg) from None


def _list(text: str) -> list[str]:
    return [text]


def _pair(text: str) -> dict[str, str]:
    name, _, value = text.partition("=")
    return {name: value}


def _environment(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    name, given, value = text.partition("=")
    if given:
        return {name: value}
    if name not in environ:
        msg = f"`{name}` is not set here" if name else "it needs a name"
        raise ValueError(msg)
    return {name: environ[name]}


def _volume(text: str) -> list[str]:
    """Read `SOURCE:TARGET[:OPTIONS]`; docker would make a folder that is not there, as root."""
    source, given, target = text.partition(":")
    if not given or not target.startswith("/"):
        msg = "it is written as SOURCE:TARGET, the target an absolute path"
        raise ValueError(msg)
    if source.startswith((".", "~")):
        msg = "its source is an absolute path, or the name of a volume"
        raise ValueError(msg)
    if source.startswith("/") and not os.path.exists(source):
        msg = f"`{source}` does not exist"
        raise ValueError(msg)
    return [text]


def _temporary(text: str) -> dict[str, str]:
    path, _, options = text.partition(":")
    return {path: options}


def _mount(text: str) -> list[dict[str, Any]]:
    names = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
    found = {names.get(name, name): value for name, value in _words(text)}
    readonly = found.pop("readonly", "false")
    unknown = found.keys() - {"type", "source", "target"}
    if unknown or "target" not in found:
        msg = "it takes type, source, target and readonly"
        raise ValueError(msg)
    mount = {name.capitalize(): value for name, value in found.items()}
    return [{"Type": "volume", **mount, "ReadOnly": readonly in {"", "1", "true"}}]


def _words(text: str) -> list[tuple[str, str]]:
    pairs = [word.partition("=") for word in text.split(",")]
    return [(name, value) for name, _, value in pairs]


def _accelerators(text: str) -> list[dict[str, Any]]:
    """Read `all`, a number, or `device=0,1`, with or without quotes."""
    text = text.strip("\"'")
    if text == "all" or text.isdecimal():
        return accelerators(-1 if text == "all" else int(text))
    names = [name for name in text.removeprefix("device=").split(",") if name]
    if not text.startswith("device=") or not names or "=" in "".join(names):
        msg = "it takes `all`, a number, or `device=` with names"
        raise ValueError(msg)
    return [{"Driver": "", "DeviceIDs": names, "Capabilities": [["gpu"]]}]


def accelerators(count: int) -> list[dict[str, Any]]:
    """Ask for a number of accelerators, -1 for all."""
    return [{"Driver": "", "Count": count, "Capabilities": [["gpu"]]}]


def _device(text: str) -> list[dict[str, str]]:
    source, target, rights, *_ = [*text.split(":"), "", ""]
    if target and not posixpath.isabs(target):
        target, rights = "", target
    return [
        {
            "PathOnHost": source,
            "PathInContainer": target or source,
            "CgroupPermissions": rights or "rwm",
        }
    ]


def _limit(text: str) -> list[dict[str, Any]]:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    return [{"Name": name, "Soft": _number(soft), "Hard": _number(hard or soft)}]


KNOWN: dict[str, tuple[str, Read]] = {
    "add-host": ("HostConfig.ExtraHosts", _list),
    "cap-add": ("HostConfig.CapAdd", _list),
    "cap-drop": ("HostConfig.CapDrop", _list),
    "cpu-period": ("HostConfig.CpuPeriod", _number),
    "cpu-quota": ("HostConfig.CpuQuota", _number),
    "cpu-shares": ("HostConfig.CpuShares", _number),
    "cpus": ("HostConfig.NanoCpus", _processors),
    "cpuset-cpus": ("HostConfig.CpusetCpus", str),
    "cpuset-mems": ("HostConfig.CpusetMems", str),
    "device": ("HostConfig.Devices", _device),
    "dns": ("HostConfig.Dns", _list),
    "dns-search": ("HostConfig.DnsSearch", _list),
    "domainname": ("Domainname", str),
    "entrypoint": ("Entrypoint", str),
    "env": ("Env", str),
    "gpus": ("HostConfig.DeviceRequests", _accelerators),
    "group-add": ("HostConfig.GroupAdd", _list),
    "hostname": ("Hostname", str),
    "ipc": ("HostConfig.IpcMode", str),
    "label": ("Labels", _pair),
    "memory": ("HostConfig.Memory", _size),
    "memory-reservation": ("HostConfig.MemoryReservation", _size),
    "memory-swap": ("HostConfig.MemorySwap", _size),
    "mount": ("HostConfig.Mounts", _mount),
    "name": ("Name", str),
    "network": ("HostConfig.NetworkMode", str),
    "oom-score-adj": ("HostConfig.OomScoreAdj", _number),
    "pids-limit": ("HostConfig.PidsLimit", _number),
    "privileged": ("HostConfig.Privileged", _flag),
    "read-only": ("HostConfig.ReadonlyRootfs", _flag),
    "runtime": ("HostConfig.Runtime", str),
    "security-opt": ("HostConfig.SecurityOpt", _list),
    "shm-size": ("HostConfig.ShmSize", _size),
    "sysctl": ("HostConfig.Sysctls", _pair),
    "tmpfs": ("HostConfig.Tmpfs", _temporary),
    "ulimit": ("HostConfig.Ulimits", _limit),
    "user": ("User", str),
    "userns": ("HostConfig.UsernsMode", str),
    "volume": ("HostConfig.Binds", _volume),
}
