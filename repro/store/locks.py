"""Environment locks that belong to no project: by what was asked for, and by their digest."""

from __future__ import annotations

from repro import canonical, value
from repro.lock import CLASSES, EnvironmentLock
from repro.store.sealed import seal, unseal
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.store.home import Home


class Locks:
    """The locks of one store."""

    def __init__(self, home: Home) -> None:
        """Work below `home`."""
        self.home = home

    def of_request(self, request: str) -> EnvironmentLock | None:
        """Give the lock that was made for a request, by the digest of the request."""
        return self._read(f"request-{request}")

    def of_environment(self, name: str) -> EnvironmentLock | None:
        """Give the lock with that environment digest."""
        lock = self._read(f"environment-{name}")
        return lock if lock is not None and lock.digest == name else None

    def keep(self, request: str, lock: EnvironmentLock) -> None:
        """Remember a lock under its request, and under its own digest."""
        if request:
            self._write(f"request-{request}", lock)
        self._write(f"environment-{lock.digest}", lock)

    def _read(self, name: str) -> EnvironmentLock | None:
        body = unseal(files.read(self.home.path("lockfiles", name)))
        if body is None:
            return None
        try:
            lock = value.load(canonical.decode(body), CLASSES)
        except (canonical.NotCanonical, KeyError, TypeError):
            return None
        return lock if isinstance(lock, EnvironmentLock) else None

    def _write(self, name: str, lock: EnvironmentLock) -> None:
        if name.startswith("request-") or self._read(name) != lock:
            path = self.home.path("lockfiles", name)
            files.replace(path, seal(canonical.encode(value.dump(lock))))
