"""Results by step key: what a step gave, published only when all that it names is durable."""

from __future__ import annotations

import os

from repro import canonical
from repro.step import key_of_parts
from repro.store.sealed import seal, unseal
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from repro.store.home import Home

SCHEMA = "repro.result/1"


class Result(Value):
    """What one execution gave, and all that is needed to give it again.

    `parts` are the key parts. `outputs`, `artifacts` and `log` are digests: manifests of the
    files that were made and of those logged through MLflow, and the log. `metrics` are
    (key, value, timestamp_ms, step), values as text. `children` are the runs that the code
    started below its own, dumped, each with the manifest of its files. `calls` are the steps that
    it asked for, see `repro.drivers.again`. Times are in nanoseconds.
    `origin` says where the bytes came from: commit, dirty, time, sandbox level. `provenance` is
    the digest of its attestation, an in-toto statement.
    """

    key: str
    parts: Mapping[str, Any]
    run_id: str
    outputs: str
    artifacts: str
    log: str
    log_size: int = 0
    metrics: tuple[tuple[str, str, int, int], ...] = ()
    parameters: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    datasets: tuple[Any, ...] = ()
    children: tuple[Any, ...] = ()
    calls: tuple[Any, ...] = ()
    exit_code: int = 0
    ended_ns: int = 0
    wall_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    peak_bytes: int = 0
    origin: Mapping[str, Any] = {}
    provenance: str = ""


class Results:
    """The results of one store."""

    def __init__(self, home: Home) -> None:
        """Work below `home`."""
        self.home = home

    def path(self, key: str) -> str:
        """Give the place of a result."""
        return self.home.path("ac", key[:2], key[2:])

    def get(self, key: str) -> Result | None:
        """Give the result of a key; None where there is none that can be trusted.

        The file carries a digest of itself, and its parts must give its key: bits that rotted
        and results that were moved are misses.
        """
        try:
            body = unseal(files.read(self.path(key)))
        except OSError as error:
            if error.errno in files.DAMAGED:
                return None
            raise
        if body is None:
            return None
        try:
            plain = canonical.decode(body)
            if plain.pop("schema") != SCHEMA or key_of_parts(plain["parts"]) != key:
                return None
            plain["metrics"] = tuple(tuple(metric) for metric in plain["metrics"])
            plain["children"] = tuple(plain["children"])
            plain["datasets"] = tuple(plain["datasets"])
            plain["calls"] = tuple(plain.get("calls", ()))
            return Result(**plain)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def put(self, result: Result) -> None:
        """Publish a result, over an earlier one of the same key.

        Everything it names must be durable before: see Blobs.sync.
        """
        plain = {name: getattr(result, name) for name in result.__fields__}
        body = canonical.encode({"schema": SCHEMA, **plain})
        path = self.path(result.key)
        files.make_folder(os.path.dirname(path))
        files.replace(path, seal(body))

    def drop(self, key: str) -> None:
        """Remove a result."""
        files.unlink(self.path(key))

    def touch(self, key: str) -> bool:
        """Note that a result was used, for the garbage collection; say whether it is there."""
        try:
            os.utime(self.path(key))
        except FileNotFoundError:
            return False
        except OSError:
            pass  # a read-only store
        return True

    def used(self, key: str) -> int:
        """Give the time of the last use of a result in nanoseconds; 0 where there is none."""
        state = files.state_of(self.path(key))
        return state[3] if state else 0

    def keys(self) -> Iterator[tuple[str, int]]:
        """Give every key with the time of its last use, in nanoseconds."""
        for key in self.home.digests("ac"):
            used = self.used(key)
            if used:
                yield key, used
