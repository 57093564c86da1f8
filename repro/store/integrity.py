"""Whether a store holds what it says: every blob, result, lock and memo, read and checked.

What is found is no danger: nothing of it is ever served. A repair puts right what can be, and
takes the rest out of the way, so that it is a plain miss from then on.
"""

from __future__ import annotations

import os
import time

from repro import canonical, digest, manifest, provenance
from repro.store import collection
from repro.store.blobs import digest_at
from repro.store.results import SCHEMA
from repro.store.sealed import unseal
from repro.system import files
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from repro.manifest import Entry
    from repro.store.blobs import Blobs
    from repro.store.home import Home
    from repro.store.results import Result, Results

    Tell = Callable[[int, int], None]

    class Elsewhere(Protocol):
        """Another place that may have what a store has lost, such as a remote cache."""

        def fetch_blob(self, name: str, size: int | None) -> bool:
            """Bring a blob, of `size` if that is known, into the store; say whether it is there."""

        def fetch_result(self, key: str) -> Result | None:
            """Bring a result with all that it names into the store, None if it is not to be had."""


CORRUPT, UNTRUSTED, UNCHECKED = 1, 2, 4
BITS = {
    "corrupt": CORRUPT,
    "missing": CORRUPT,
    "untrusted": UNTRUSTED,
    "unchecked": UNCHECKED,
}
BATCH = 100
MARKERS = ".repro-"


class Finding(Value):
    """One thing that is not as it should be.

    `what` is `blob`, `result`, `lock`, `memo` or `marker`. `fault` is `corrupt`; `missing`: a
    result lacks the blobs `lacks`; `untrusted`: its provenance is about something else; or
    `unchecked`: it cannot be read, or is of a later version. `repair` says what was done:
    `fetched`, `quarantined`, `removed`, or nothing.
    """

    what: str
    name: str
    fault: str
    detail: str
    lacks: tuple[str, ...] = ()
    repair: str = ""


class Report(Value):
    """What was checked, and what was found.

    `unattested` results have no provenance here, as those that came from a remote cache. `others`
    are locks, memos and markers.
    """

    findings: tuple[Finding, ...] = ()
    blobs: int = 0
    bytes: int = 0
    results: int = 0
    unattested: int = 0
    others: int = 0

    @property
    def healed(self) -> int:
        """Count the findings that were put right with what another place had."""
        return sum(finding.repair == "fetched" for finding in self.findings)

    @property
    def bits(self) -> int:
        """Give the kinds of findings as a sum: 1 corrupt, 2 untrusted, 4 not checked."""
        return sum({BITS[finding.fault] for finding in self.findings})


def verify(
    home: Home,
    blobs: Blobs,
    results: Results,
    *,
    jobs: int = 2,
    tell: Tell = lambda _done, _total: None,
) -> Report:
    """Read everything, `jobs` blobs at a time; nothing is changed.

    Other processes may use the store meanwhile. `tell` hears of the bytes that were read, and of
    how many there are.
    """
    return _Check(home, blobs, results).run(jobs, tell)


def repair(
    found: Report,
    home: Home,
    blobs: Blobs,
    results: Results,
    elsewhere: Elsewhere | None = None,
) -> Report:
    """Put right what was found; give the report with what was done about each.

    What `elsewhere` has is fetched from there, and checked again. The rest is set aside.
    """
    check = _Check(home, blobs, results)
    mender = _Repair(check, elsewhere)
    for finding in found.findings:
        if finding.lacks:
            check.result(finding.name)  # which tells how large the blobs must be
    order = sorted(found.findings, key=lambda finding: finding.what != "blob")
    return replace(found, findings=tuple(replace(f, repair=mender.mend(f)) for f in order))


class _Check:
    """One look at a store."""

    def __init__(self, home: Home, blobs: Blobs, results: Results) -> None:
        self.home, self.blobs, self.results = home, blobs, results
        self.bad: set[str] = set()
        self.sizes: dict[str, int] = {}

    def run(self, jobs: int, tell: Tell) -> Report:
        sizes = dict(self.blobs.names())
        findings = list(self._blobs(sizes, jobs, tell))
        self.bad = {finding.name for finding in findings}
        keys = [key for key, _used in self.results.keys()]  # noqa: SIM118  (it is no dict)
        unattested = 0
        for key in keys:
            found, attested = self.result(key)
            findings += [found] if found else []
            unattested += not attested
        others = list(self._others())
        findings += [f for what, path in others if (f := _other(what, path))]
        return Report(
            findings=tuple(findings),
            blobs=len(sizes),
            bytes=sum(sizes.values()),
            results=len(keys),
            unattested=unattested,
            others=len(others),
        )

    # -- blobs

    def _blobs(self, sizes: dict[str, int], jobs: int, tell: Tell) -> Iterator[Finding]:
        """Hash every blob. Reading and hashing leave the interpreter: threads do it at once."""
        names = sorted(sizes)
        batches = [names[at : at + BATCH] for at in range(0, len(names), BATCH)]
        done, total, told = 0, sum(sizes.values()), time.monotonic()
        for batch, found in zip(batches, self._mapped(batches, jobs), strict=True):
            yield from found
            done += sum(sizes[name] for name in batch)
            if time.monotonic() - told > 1:
                told = time.monotonic()
                tell(done, total)

    def _mapped(self, batches: list[list[str]], jobs: int) -> Iterator[list[Finding]]:
        if jobs < 2 or len(batches) < 2:  # noqa: PLR2004
            yield from map(self._batch, batches)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(self._batch, batches)

    def _batch(self, names: list[str]) -> list[Finding]:
        return [finding for finding in map(self._blob, names) if finding]

    def _blob(self, name: str) -> Finding | None:
        try:
            found = digest_at(self.blobs.path(name))
        except FileNotFoundError:
            return None  # collected meanwhile
        except OSError as error:
            return _unreadable("blob", name, error)
        if found == name:
            return None
        detail = f"its bytes have the digest {found[:12]}" if found else "it cannot be read"
        return Finding(what="blob", name=name, fault="corrupt", detail=detail)

    # -- results

    def result(self, key: str) -> tuple[Finding | None, bool]:
        """Say what is wrong with a result, and whether its provenance is with it."""
        try:
            result = self.results.get(key)
            if result is None:
                return self._no_result(key), True
            return self._lacking(result)
        except OSError as error:
            return _unreadable("result", key, error), True

    def _no_result(self, key: str) -> Finding | None:
        path = self.results.path(key)
        try:
            data = files.read(path)
        except OSError:
            data = b""
        if data is None:
            return None  # collected meanwhile
        fault, detail = "corrupt", "its digest or its key is wrong"
        body = unseal(data)
        if body is not None and _schema(body) not in ("", SCHEMA):
            fault, detail = "unchecked", f"it is written as {_schema(body)}"
        return Finding(what="result", name=key, fault=fault, detail=detail)

    def _lacking(self, result: Result) -> tuple[Finding | None, bool]:
        lacks: set[str] = set()
        outputs: tuple[Entry, ...] = ()
        for name in {result.log, *collection.trees_of(result)}:
            if not self._has(name):
                lacks.add(name)
            elif name != result.log:
                entries = self._entries(name)
                if entries is None:
                    detail = f"its list of files {name[:12]} is none"
                    return _faulty(result, "corrupt", detail), True
                files_of = {e.content for e in entries if e.kind in ("file", "exec")}
                lacks |= {content for content in files_of if not self._has(content)}
                self.sizes.update((e.content, e.size) for e in entries if e.content in files_of)
                outputs = entries if name == result.outputs else outputs
        if not lacks:
            return self._attested(result, outputs)
        some = ", ".join(name[:12] for name in sorted(lacks)[:3])
        more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""  # noqa: PLR2004
        detail = f"it names blobs that are not there: {some}{more}"
        return replace(_faulty(result, "missing", detail), lacks=tuple(sorted(lacks))), True

    def _attested(self, result: Result, outputs: tuple[Entry, ...]) -> tuple[Finding | None, bool]:
        if not result.provenance or not self._has(result.provenance):
            return None, False
        statement = files.read(self.blobs.path(result.provenance)) or b""
        faults = provenance.faults(statement, result.key, outputs)
        if not faults:
            return None, True
        return _faulty(result, "untrusted", f"its provenance is not about it: {faults[0]}"), True

    def _has(self, name: str) -> bool:
        return name not in self.bad and self.blobs.has(name)

    def _entries(self, name: str) -> tuple[Entry, ...] | None:
        """Read a manifest, and leave it where it is even if it is none."""
        try:
            return manifest.decode(files.read(self.blobs.path(name)) or b"")
        except manifest.NotAManifest:
            return None

    # -- all else

    def _others(self) -> Iterator[tuple[str, str]]:
        """Give kind and path of every small file that commands rely on."""
        for what, folder in (("lock", "lockfiles"), ("memo", "memo")):
            for name in sorted(os.listdir(self.home.path(folder))):
                if not name.endswith("~"):
                    yield what, self.home.path(folder, name)
        for key in sorted(os.listdir(self.home.path("envs"))):
            for name in files.names(self.home.path("envs", key)):
                if name.startswith(MARKERS) and name.endswith(".json"):
                    yield "marker", self.home.path("envs", key, name)


def _faulty(result: Result, fault: str, detail: str) -> Finding:
    return Finding(what="result", name=result.key, fault=fault, detail=detail)


def _other(what: str, path: str) -> Finding | None:
    """Say what is wrong with a lock, memo or marker."""
    name = os.path.basename(path)
    try:
        data = files.read(path)
    except OSError as error:
        return _unreadable(what, name, error)
    sealed = what == "lock" or digest.is_digest(name.rpartition("-")[2])
    if data is None or not (sealed or name.endswith(".json")):
        return None  # gone meanwhile, or in a form of its own
    body = unseal(data) if sealed else data
    if body is not None and (sealed or _is_json(body)):
        return None
    name = os.path.basename(os.path.dirname(path)) if what == "marker" else name
    return Finding(what=what, name=name, fault="corrupt", detail="its bytes are not what was kept")


def _is_json(data: bytes) -> bool:
    import json

    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _schema(body: bytes) -> str:
    try:
        return str(canonical.decode(body)["schema"])
    except (ValueError, KeyError, TypeError):
        return ""


def _unreadable(what: str, name: str, error: OSError) -> Finding:
    reason = (error.strerror or str(error)).lower()
    fault = "corrupt" if error.errno in files.DAMAGED else "unchecked"
    return Finding(what=what, name=name, fault=fault, detail=f"it cannot be read: {reason}")


class _Repair:
    """One repair of a store."""

    def __init__(self, check: _Check, elsewhere: Elsewhere | None) -> None:
        self.check = check
        self.elsewhere = elsewhere

    def mend(self, finding: Finding) -> str:
        """Do what can be done about a finding, and name it."""
        if finding.fault == "unchecked" or finding.what == "marker":
            return ""
        if finding.what == "blob":
            self.check.blobs.set_aside(finding.name)
            fetched = digest.is_digest(finding.name) and self._fetch(finding.name)
            return "fetched" if fetched else "quarantined"
        if finding.what == "result":
            return self._result(finding)
        folder = "lockfiles" if finding.what == "lock" else "memo"
        files.unlink(self.check.home.path(folder, finding.name))
        return "removed"

    def _fetch(self, name: str) -> bool:
        """Say whether a blob is there, at the latest after it was looked for elsewhere."""
        if self.check.blobs.is_sound(name):
            return True
        size = self.check.sizes.get(name)
        fetched = self.elsewhere is not None and self.elsewhere.fetch_blob(name, size)
        return fetched and self.check.blobs.is_sound(name)

    def _result(self, finding: Finding) -> str:
        """Complete a result, fetch it anew, or remove it, unless it is just being made again."""
        if self._is_completed(finding):
            return "fetched"
        key = finding.name
        making = self.check.home.lock(f"key-{key[:32]}")
        if not making.take(wait=False):
            return ""
        try:
            if self.check.result(key)[0] is None:  # put right, or collected, meanwhile
                return "fetched" if self.check.results.used(key) else "removed"
            self._set_aside(finding)
            if digest.is_digest(key) and self._is_fetched(key):
                return "fetched"
        finally:
            making.free()
        return "quarantined" if finding.fault == "corrupt" else "removed"

    def _is_completed(self, finding: Finding) -> bool:
        """Fetch what a result lacks, and what that names in turn."""
        wanted = finding.lacks
        while wanted and all(self._fetch(name) for name in wanted):
            found, _attested = self.check.result(finding.name)
            if found is None:
                return True
            wanted = tuple(name for name in found.lacks if name not in wanted)
        return False

    def _is_fetched(self, key: str) -> bool:
        if self.elsewhere is None or self.elsewhere.fetch_result(key) is None:
            return False
        return self.check.result(key)[0] is None

    def _set_aside(self, finding: Finding) -> None:
        key = finding.name
        if finding.fault != "corrupt":
            self.check.results.drop(key)
            return
        aside = f"result-{key}.{os.urandom(4).hex()}"
        os.replace(self.check.results.path(key), self.check.home.path("quarantine", aside))
