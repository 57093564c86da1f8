"""The means for each variation of `verify --vary` that a machine has, one condition at a time."""

from __future__ import annotations

import os
import time

from repro.conditions import VARIATIONS, Conditions
from repro.errors import UsageError
from repro.step import SETTINGS
from repro.system import surroundings
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from repro.engine import Prepared

HOST = "another-host"
USER = 1
"""A user that every system has, under one name or another, and that nobody is."""
THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"),
    "JULIA_NUM_THREADS",
)
SHIFT = 400 * 86_400 + 5 * 3600 + 7 * 60 + 11
"""Seconds: another year, month, day, hour, minute and second."""
PATIENCE_MS = 30_000
IN_CONTAINERS = ("umask", "timezone", "locale", "hashseed", "threads", "environment")


class CannotVary(Exception):
    """A condition cannot be made other here; the text says why."""


class Means(Value):
    """The conditions of one execution, and what the step finds out about the machine in them.

    `host` and `users` are empty where they are the machine's. `shift` is by how many seconds the
    clock is off; `instant` is where it stands still, 0 where it does not.
    """

    conditions: Conditions = Conditions()
    host: str = ""
    users: tuple[str, ...] = ()
    shift: int = 0
    instant: int = 0


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """Give the variations that are asked for, all where none is named. Raises UsageError."""
    wanted = [name for text in names for name in text.split(",") if name]
    unknown = [name for name in wanted if name not in VARIATIONS]
    if unknown:
        raise UsageError(
            f"no variation `{unknown[0][:40]}`",
            hints=[f"variations: {', '.join(VARIATIONS)}", "a run comes before `--vary`"],
        )
    return tuple(name for name in VARIATIONS if name in wanted or not wanted)


def means(name: str, base: Means, prepared: Prepared) -> tuple[Means, ...]:
    """Give ways to make one condition other, `base` being all conditions so far.

    Where there are several, the next is to be tried if the step fails under one. Raises CannotVary.
    """
    if prepared.backend != "local" and name not in IN_CONTAINERS:
        raise CannotVary("the step runs in a container")
    return _MEANS[name](base, prepared)


def still(base: Means, prepared: Prepared) -> tuple[Means, ...]:
    """Give ways to have the clock stand still, as `means` does. Raises CannotVary."""
    if prepared.backend != "local":
        raise CannotVary("the step runs in a container")
    return _clocks(base, prepared, shift=0)


def _with(base: Means, **changes: object) -> Means:
    return replace(base, conditions=replace(base.conditions, **changes))


def _variables(base: Means, prepared: Prepared, given: Mapping[str, str]) -> Means:
    """Set variables, but for those that the project sets itself: they are in the key."""
    free = {n: text for n, text in given.items() if n not in prepared.step.variables}
    if not free:
        raise CannotVary(f"the project sets `{next(iter(given))}`")
    return _with(base, variables={**base.conditions.variables, **free})


def _path(base: Means, _prepared: Prepared) -> tuple[Means, ...]:
    _work, home, temporary = base.conditions.names
    return (_with(base, names=("moved/to/another/tree", home, temporary)),)


def _home(base: Means, _prepared: Prepared) -> tuple[Means, ...]:
    work, _home, _temporary = base.conditions.names
    return (_with(base, names=(work, "moved/home", "moved/tmp")),)


def _user(base: Means, _prepared: Prepared) -> tuple[Means, ...]:
    import pwd

    user = USER if os.getuid() != USER else USER + 1
    unshare = surroundings.program("unshare")
    if not unshare:
        raise CannotVary("`unshare` is not installed")
    starter = (unshare, "--user", f"--map-user={user}", f"--map-group={user}", "--")
    why = surroundings.fault((*starter, "true"))
    if why:
        raise CannotVary(f"no other user can be shown: {why}")
    try:
        names: tuple[str, ...] = (pwd.getpwuid(user).pw_name, str(user))
    except KeyError:
        names = (str(user),)
    return (replace(_with(base, starter=starter), users=names),)


def _umask(base: Means, _prepared: Prepared) -> tuple[Means, ...]:
    return (_with(base, preface=base.conditions.preface + "umask 0077; "),)


def _timezone(base: Means, prepared: Prepared) -> tuple[Means, ...]:
    # a POSIX rule, which needs no database of zones, and is not a whole number of hours
    return (_variables(base, prepared, {"TZ": "VARIED-05:45"}),)


def _locale(base: Means, prepared: Prepared) -> tuple[Means, ...]:
    found = surroundings.other_locale()
    return (_variables(base, prepared, {"LC_ALL": found, "LANG": found}),)


def _hashseed(base: Means, prepared: Prepared) -> tuple[Means, ...]:
    seed = str(int(SETTINGS["PYTHONHASHSEED"]) + 4711)
    return (_variables(base, prepared, {"PYTHONHASHSEED": seed}),)


def _cpus(base: Means, _prepared: Prepared) -> tuple[Means, ...]:
    there = surroundings.processors()
    if len(there) < 2:  # noqa: PLR2004
        raise CannotVary("this machine has one processor" if there else "the system has no means")
    taskset = surroundings.program("taskset")
    if not taskset:
        raise CannotVary("`taskset` is not installed")
    return (_with(base, starter=(taskset, "-c", str(there[0]))),)


def _threads(base: Means, prepared: Prepared) -> tuple[Means, ...]:
    count = "1" if len(surroundings.processors()) > 1 else "2"
    return (_variables(base, prepared, dict.fromkeys(THREADS, count)),)


def _fileorder(base: Means, _prepared: Prepared) -> tuple[Means, ...]:
    return (_with(base, backwards=("files",)),)


def _environment(base: Means, _prepared: Prepared) -> tuple[Means, ...]:
    return (_with(base, backwards=("variables",)),)


def _hostname(base: Means, _prepared: Prepared) -> tuple[Means, ...]:
    unshare, hostname = (surroundings.program(name) for name in ("unshare", "hostname"))
    if not unshare or not hostname:
        raise CannotVary("`unshare` and `hostname` are not installed")
    ours = ("--user", "--map-current-user", "--keep-caps")
    why = ""
    for options in ((), ours):
        way = (
            unshare,
            *options,
            "--uts",
            "--",
            "sh",
            "-c",
            f'{hostname} {HOST} && exec "$@"',
            "sh",
        )
        why = surroundings.fault((*way, "true"))
        if not why:
            return (replace(_with(base, starter=way), host=HOST),)
    raise CannotVary(f"no other name can be shown: {why}")


def _clock(base: Means, prepared: Prepared) -> tuple[Means, ...]:
    return _clocks(base, prepared, shift=SHIFT)


def _clocks(base: Means, prepared: Prepared, *, shift: int) -> tuple[Means, ...]:
    """Move the clock, or have it stand still where `shift` is 0 or it does so already.

    The library can either leave the monotonic clock alone, which some ways to sleep do not
    survive, or move it too, which some ways to wait do not survive.
    """
    library = surroundings.faketime()
    if not library:
        raise CannotVary("`faketime` is not installed")
    if "LD_PRELOAD" in prepared.step.variables:
        raise CannotVary("the project sets `LD_PRELOAD`")
    instant = (base.instant or int(time.time())) + shift if base.instant or not shift else 0
    variables = {
        **base.conditions.variables,
        "LD_PRELOAD": library,
        "NO_FAKE_STAT": "1",
        **({"FAKETIME_FMT": "%s", "FAKETIME": str(instant)} if instant else {}),
        **({} if instant else {"FAKETIME": f"+{shift}"}),
    }
    ways = (variables, {**variables, "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    return tuple(
        replace(
            _with(base, variables=one, timeout_ms=PATIENCE_MS),
            shift=0 if instant else shift,
            instant=instant,
        )
        for one in reversed(ways)
    )


_MEANS: Mapping[str, Callable[[Means, Prepared], tuple[Means, ...]]] = {
    "path": _path,
    "home": _home,
    "user": _user,
    "umask": _umask,
    "timezone": _timezone,
    "locale": _locale,
    "hashseed": _hashseed,
    "cpus": _cpus,
    "threads": _threads,
    "fileorder": _fileorder,
    "environment": _environment,
    "hostname": _hostname,
    "clock": _clock,
}
