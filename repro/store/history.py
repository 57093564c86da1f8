"""The history of all runs: SQLite for reading, an append-only spool for the hot path.

A cache hit appends one checked line to the spool, which costs microseconds and no import; the
next command that reads the history takes the lines over.
"""

from __future__ import annotations

import errno
import os
import time

from repro import canonical, digest
from repro.errors import RunUnknown, StoreTooNew
from repro.record import KILLED, RUNNING, RunRecord, of_plain, plain
from repro.store.sealed import bodies_of, line_of
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

VERSION = 1
TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY,
    started_ns INTEGER NOT NULL,
    status TEXT NOT NULL,
    project TEXT NOT NULL,
    entry_point TEXT NOT NULL,
    key TEXT NOT NULL,
    cached INTEGER NOT NULL,
    document BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (started_ns);
CREATE INDEX IF NOT EXISTS runs_by_step ON runs (project, entry_point, started_ns);
"""
DURABLE, HASTY = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
VERIFICATION = 2
"""Stands in the column `cached` of what was executed to be compared, and answers no question."""
LOST = "the repro process that owned this run ended without settling it"
SHORTEST = 4
LATE = 5.0
"""Seconds after which nobody can still be writing to a spool that was taken away."""


class History:
    """The runs of a user on this machine. Opened by the first method that needs the database."""

    def __init__(self, root: str, warn: Callable[[str], None] = lambda _text: None) -> None:
        """Name the folder; `warn` gets told when a damaged database had to be put aside."""
        self.root = root
        self.warn = warn
        self._database: sqlite3.Connection | None = None

    def path(self, name: str) -> str:
        """Give a path below the folder."""
        return os.path.join(self.root, name)

    # -- the hot path

    def spool(self, record: RunRecord) -> bool:
        """Remember a settled run with one appended line; say whether that was possible."""
        line = line_of(canonical.encode(plain(record)))
        path = os.path.join(self.root, "spool")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            try:
                fd = os.open(path, flags, 0o600)
            except FileNotFoundError:
                os.makedirs(self.root, mode=0o700, exist_ok=True)
                fd = os.open(path, flags, 0o600)
            try:
                # one write of an append-only file: lines never mix
                return os.write(fd, line) == len(line)
            finally:
                os.close(fd)
        except OSError:
            return False

    # -- writing

    def put(self, record: RunRecord) -> None:
        """Remember a run, or what became of it. Raises NoSpace or Unreachable.

        What became of it survives a power cut. That it is under way need not: nothing would be.
        """
        import sqlite3

        database = self._open()
        try:
            database.execute(HASTY if record.status == RUNNING else DURABLE)
            with database:
                self._insert(database, record)
        except sqlite3.OperationalError as error:
            raise self._explained(error) from None

    def lease(self, run_id: str) -> files.Lock:
        """Take the lease of a run: while this process lives, its RUNNING is believed."""
        folder = os.path.join(self.root, "leases")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = files.Lock(os.path.join(folder, run_id))
        lock.take()
        return lock

    def owner(self, run_id: str) -> tuple[int, str] | None:
        """Give the process and the host that a run is under way on; None where none holds it."""
        path = os.path.join(self.root, "leases", run_id)
        lock = files.Lock(path)
        if not os.path.exists(path) or lock.take(wait=False):
            lock.free()
            return None
        words = (files.read(path) or b"").decode("ascii", "replace").split()
        return (int(words[0]), words[1]) if len(words) > 1 and words[0].isdecimal() else None

    def release(self, lease: files.Lock) -> None:
        """Give a lease back, after the run was settled."""
        files.unlink(lease.path)
        lease.free()

    # -- reading

    def get(self, prefix: str) -> RunRecord:
        """Give the run whose id begins with `prefix`.

        Raises RunUnknown where there is none, or more than one.
        """
        word = prefix.lower()
        if len(word) < SHORTEST or not set(word) <= digest.DIGITS:
            raise RunUnknown(
                f"`{prefix[:40]}` is no run id",
                hints=[f"give at least the first {SHORTEST} digits; `repro log` lists runs"],
            )
        rows = self._select("run_id >= ? AND run_id < ?", (word, word + "g"), 3)
        if not rows:
            raise RunUnknown(f"no run begins with `{word}`", hints=["`repro log` lists runs"])
        if len(rows) > 1:
            names = ", ".join(row.run_id[: len(word) + 4] for row in rows)
            raise RunUnknown(f"several runs begin with `{word}`", hints=[f"for example {names}"])
        return rows[0]

    def find(
        self,
        *,
        project: str = "",
        entry_point: str = "",
        status: str = "",
        limit: int = 0,
        verifications: bool = False,
    ) -> list[RunRecord]:
        """Give runs, the latest first; executions for a verification only if asked for."""
        wanted = {"project": project, "entry_point": entry_point, "status": status}
        given = {name: value for name, value in wanted.items() if value}
        terms = [f"{name} = ?" for name in given]
        where = " AND ".join(terms if verifications else [*terms, f"cached != {VERIFICATION}"])
        return self._select(where or "1", tuple(map(_column, given.values())), limit)

    def latest(self, project: str, entry_point: str) -> RunRecord | None:
        """Give the last executed run of a step whose key parts are known."""
        for row in self._select(
            "project = ? AND entry_point = ? AND cached = 0 AND status != ?",
            (_column(project), _column(entry_point), RUNNING),
            20,
        ):
            if row.parts:
                return row
        return None

    # -- the database

    def _select(self, where: str, values: tuple[object, ...], limit: int) -> list[RunRecord]:
        import sqlite3

        database = self._open()
        query = f"SELECT document FROM runs WHERE {where} ORDER BY started_ns DESC"  # noqa: S608  (`where` is ours)
        query += f" LIMIT {limit}" if limit else ""
        try:
            self._drain(database)
            rows = database.execute(query, values).fetchall()
            return [self._settled(of_plain(canonical.decode(row[0]))) for row in rows]
        except sqlite3.OperationalError as error:
            raise self._explained(error) from None

    def _settled(self, record: RunRecord) -> RunRecord:
        """Settle a run whose owner is gone."""
        if record.status != RUNNING:
            return record
        path = os.path.join(self.root, "leases", record.run_id)
        if files.is_held(path):
            return record
        database = self._open()
        query = "SELECT document FROM runs WHERE run_id = ?"
        with database:
            database.execute("BEGIN IMMEDIATE")
            # looked at again: the owner may have settled it since, and gone after that
            (found,) = database.execute(query, (record.run_id,)).fetchone()
            record = of_plain(canonical.decode(found))
            if record.status == RUNNING:
                record = replace(
                    record, status=KILLED, cause="lost", error=LOST, ended_ns=record.started_ns
                )
                self._insert(database, record)
        files.unlink(path)
        return record

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            import sqlite3

            try:
                os.makedirs(self.root, mode=0o700, exist_ok=True)
                self._database = self._connect()
                self._drain(self._database)
            except OSError as error:
                raise files.explained(error, f"opening the history in `{self.root}`") from None
            except sqlite3.OperationalError as error:
                raise self._explained(error) from None
        return self._database

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        path = os.path.join(self.root, "history.db")
        try:
            return self._prepare(path)
        except sqlite3.OperationalError as error:
            raise self._explained(error) from None
        except sqlite3.DatabaseError:
            self._put_aside(path)
            return self._prepare(path)

    def _explained(self, error: Exception) -> Exception:
        number = errno.ENOSPC if "full" in str(error) else errno.EIO
        path = os.path.join(self.root, "history.db")
        return files.explained(OSError(number, str(error), path), "writing the history")

    def _prepare(self, path: str) -> sqlite3.Connection:
        import sqlite3

        database = sqlite3.connect(path, timeout=60, check_same_thread=False)
        try:
            if _version(database, path) < VERSION:
                self._make(database, path)
            database.execute(DURABLE)
            database.execute("SELECT count(*) FROM runs").fetchone()
        except BaseException:
            database.close()
            raise
        return database

    def _make(self, database: sqlite3.Connection, path: str) -> None:
        """Make the tables, one process at a time: SQLite does not wait to change its journal."""
        making = files.Lock(os.path.join(self.root, "making"))
        making.take()
        try:
            if _version(database, path) < VERSION:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(
                    f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
                )
            files.unlink(making.path)
        finally:
            making.free()

    def _put_aside(self, path: str) -> None:
        """Keep a damaged database under another name: nothing of it is deleted."""
        name = f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(2).hex()}"
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.rename(path + suffix, name + suffix)
        self.warn(f"the history was damaged: it is kept as `{name}`, and a new one begins")

    def _insert(self, database: sqlite3.Connection, record: RunRecord) -> None:
        database.execute(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.run_id,
                record.started_ns,
                record.status,
                _column(record.project),
                _column(record.entry_point),
                record.key,
                VERIFICATION if record.verifies else int(record.cached),
                canonical.encode(plain(record)),
            ),
        )

    def _drain(self, database: sqlite3.Connection) -> None:
        """Take over the lines of the spool; a line that was cut off is left out."""
        spool = os.path.join(self.root, "spool")
        waiting = [n for n in os.listdir(self.root) if n.startswith("spool.")]
        if os.path.exists(spool):
            name = f"spool.{time.time_ns():x}-{os.getpid():x}"
            try:
                os.rename(spool, os.path.join(self.root, name))
                waiting.append(name)
            except FileNotFoundError:
                pass  # another process was quicker
        for name in sorted(waiting):
            path = os.path.join(self.root, name)
            with database:
                for body in bodies_of(files.read(path) or b""):
                    self._insert(database, of_plain(canonical.decode(body)))
            if _age(path) > LATE:
                files.unlink(path)

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()
            self._database = None


def _age(path: str) -> float:
    """Give the seconds since a file was written; 0 where another process removed it."""
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _column(text: str) -> str | bytes:
    """Give a text as SQLite takes it: a path that is no UTF-8 goes in as its bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")
    return text


def _version(database: sqlite3.Connection, path: str) -> int:
    """Give the version of the tables, 0 where there are none. Raises StoreTooNew."""
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise StoreTooNew(
            f"the history `{path}` has version {version}; this repro reads up to {VERSION}",
            hints=["upgrade repro, or choose another history with `REPRO_DATA`"],
        )
    return version
