"""Where the store is, what stands in it, and who may be at work there."""

from __future__ import annotations

import os

from repro import digest
from repro.errors import StoreTooNew, Unreachable
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = 1
HEAD = 2  # characters of a digest that its folder is named by
FOLDERS = (
    *("cas", "ac", "envs", "git", "tmp", "locks", "lockfiles"),
    *("memo", "leases", "logs", "quarantine"),
)


def cache_home(environ: Mapping[str, str]) -> str:
    """Give the folder of everything that can be rebuilt: `$REPRO_HOME`, else the XDG cache."""
    given = environ.get("REPRO_HOME")
    if given:
        return os.path.abspath(os.path.expanduser(given))
    return os.path.join(_xdg(environ, "XDG_CACHE_HOME", ".cache"), "repro")


def data_home(environ: Mapping[str, str]) -> str:
    """Give the folder of the history: `$REPRO_DATA`, else below the XDG data folder."""
    given = environ.get("REPRO_DATA")
    if given:
        return os.path.abspath(os.path.expanduser(given))
    return os.path.join(_xdg(environ, "XDG_DATA_HOME", ".local/share"), "repro")


def _xdg(environ: Mapping[str, str], name: str, default: str) -> str:
    given = environ.get(name, "")
    if os.path.isabs(given):
        return given
    home = environ.get("HOME") or "~"
    home = os.path.expanduser(home)
    if not os.path.isabs(home):
        # no home at all, as in bare containers: a private folder by user id
        home = os.path.join("/tmp", f"repro-{os.getuid()}")  # noqa: S108  (checked below)
    return os.path.join(home, default)


class Home:
    """The root folder of a store. Opening it checks its format; a read-only one still serves."""

    def __init__(self, root: str) -> None:
        """Name the folder; nothing is touched before `open`."""
        self.root = root
        self._scratch: str | None = None
        self._lease: files.Lock | None = None

    def path(self, *parts: str) -> str:
        """Give a path below the root."""
        return os.path.join(self.root, *parts)

    def open(self) -> Home:
        """Check the store, or make it where there is none.

        Raises StoreTooNew for a later format, Unreachable for a store that belongs to somebody
        else or is open to others.
        """
        marker = files.read(self.path("FORMAT"))
        if marker is None:
            self._make()
        else:
            self._check(marker)
        return self

    def _check(self, marker: bytes) -> None:
        word = marker.decode("ascii", "replace").split()
        number = int(word[1]) if len(word) > 1 and word[1].isdigit() else 0
        if number > FORMAT:
            raise StoreTooNew(
                f"the store `{self.root}` has format {number}; this repro reads up to {FORMAT}",
                hints=["upgrade repro, or choose another store with `REPRO_HOME`"],
            )
        status = os.stat(self.root)
        if status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o002:
            raise Unreachable(
                f"the store `{self.root}` belongs to somebody else or is open to everybody",
                hints=[f"`chmod go-w {self.root}`, or choose another one with `REPRO_HOME`"],
            )

    def _make(self) -> None:
        try:
            for folder in ("", *FOLDERS):
                files.make_folder(os.path.abspath(self.path(folder)))
            files.replace(self.path("FORMAT"), f"repro-store {FORMAT}\n".encode())
        except OSError as error:
            raise files.explained(error, f"making the store `{self.root}`") from None

    # -- a private folder for this process

    def scratch(self) -> str:
        """Give a folder of this process's own below `tmp/`, collected when the process is gone."""
        if self._scratch is None:
            name = f"{os.getpid():x}-{os.urandom(6).hex()}"
            lease = files.Lock(self.path("leases", f"tmp-{name}"))
            lease.take()
            folder = self.path("tmp", name)
            os.mkdir(folder, 0o700)
            self._lease, self._scratch = lease, folder
        return self._scratch

    def close(self) -> None:
        """Remove the private folder."""
        if self._scratch is not None and self._lease is not None:
            files.remove_tree(self._scratch)
            files.unlink(self._lease.path)
            self._lease.free()
            self._scratch = self._lease = None

    def abandoned(self) -> list[str]:
        """List the private folders whose processes are gone."""
        places = [self.path("tmp", name) for name in sorted(os.listdir(self.path("tmp")))]
        return [p for p in places if p != self._scratch and not files.is_held(_lease_of(self, p))]

    def since(self, now_ns: int) -> int:
        """Give the time at which the oldest of the other processes began that now write here.

        Without any, it is `now_ns`. What was made or used later may be theirs.
        """
        own = self._lease.path if self._lease else ""
        oldest = now_ns
        for name in os.listdir(self.path("leases")):
            path = self.path("leases", name)
            if path != own and files.is_held(path):
                state = files.state_of(path)
                oldest = min(oldest, state[3] if state else oldest)
        return oldest

    def digests(self, folder: str) -> Iterator[str]:
        """Give the digests that files below `folder` are named by, past whatever else is there."""
        for head in files.names(self.path(folder)):
            for tail in files.names(self.path(folder, head)) if len(head) == HEAD else ():
                if digest.is_digest(head + tail):
                    yield head + tail

    def lock(self, name: str, *, shared: bool = False) -> files.Lock:
        """Give the lock of that name."""
        return files.Lock(self.path("locks", name), shared=shared)


def _lease_of(home: Home, folder: str) -> str:
    return home.path("leases", f"tmp-{os.path.basename(folder)}")
