"""What indexes and channels say of locked packages now: withdrawn, when published, vouched for.

One request for each package, several at a time and all within a bounded time. What did not answer
is told of and left out.
"""

from __future__ import annotations

import concurrent.futures
import time

from repro.audit.facts import Attestation, Release
from repro.auditing.simple import Late, Reader
from repro.errors import ReproError
from repro.events import Warned
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.auditing.collecting import Locks
    from repro.lock import Artifact
    from repro.machine import Machine
    from repro.ports import Progress

WORKERS = 8
PYPI = "https://pypi.org/simple"
PYPI_FILES = "https://files.pythonhosted.org/"
GONE = "it is not there any more"
SHOWN = 3


class Answers(Value):
    """What was learnt; None where nobody was asked, or nobody told."""

    releases: tuple[Release, ...] | None = None
    attestations: tuple[Attestation, ...] | None = None


def ask(locks: Locks, machine: Machine, progress: Progress, seconds: float) -> Answers:
    """Ask about all locked packages, for so many seconds in all; for none, nobody is asked.

    Without packages there is nothing to ask.
    """
    every = dict.fromkeys(a for lock in locks for a in lock.artifacts)
    files = [a for a in every if a.kind in ("wheel", "sdist")]
    conda = [a for a in every if a.kind == "conda"]
    if not (files or conda):
        return Answers(releases=(), attestations=())
    if not seconds:
        return Answers(attestations=None if files else ())
    deadline = time.monotonic() + seconds
    asked = _Indexes(machine.environ, deadline).ask(_pages(files))
    offered = _offered(conda, machine, progress, deadline) if conda else ()
    silent = [name for name, answer in asked.items() if answer is None]
    silent += [] if offered is not None else ["the conda channels"]
    if silent:
        more = f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else ""
        text = f"no answer about {', '.join(silent[:SHOWN])}{more}: not looked at"
        machine.emit(Warned(text=text, hint="ask again with `repro audit --online`"))
    known = [answer for answer in asked.values() if answer is not None]
    vouched = tuple(a for answer in known for a in answer.attestations or ())
    releases = (*(r for answer in known for r in answer.releases or ()), *(offered or ()))
    return Answers(releases=releases or None, attestations=vouched or (None if files else ()))


def _pages(files: Iterable[Artifact]) -> dict[tuple[str, str], list[Artifact]]:
    """Give the files to ask about, by index and package, without those that are on no index."""
    found: dict[tuple[str, str], list[Artifact]] = {}
    for one in files:
        index = one.index or (PYPI if one.url.startswith(PYPI_FILES) else "")
        if index:
            found.setdefault((index, one.name), []).append(one)
    return found


class _Indexes:
    """Asks Python package indexes, several pages at a time."""

    def __init__(self, environ: Mapping[str, str], deadline: float) -> None:
        self.reader = Reader(environ, deadline, WORKERS)

    def ask(self, pages: Mapping[tuple[str, str], list[Artifact]]) -> dict[str, Answers | None]:
        """Give the answer for each package, None where there was none."""
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            waiting = {
                name: pool.submit(self._answer, index, name, files)
                for (index, name), files in pages.items()
            }
            found = {name: one.result() for name, one in waiting.items()}
        self.reader.close()
        return found

    def _answer(self, index: str, name: str, files: list[Artifact]) -> Answers | None:
        try:
            page = self.reader.page(index, name)
            attestations = [self._attestation(one, page.get(one.filename)) for one in files]
        except Late:
            return None
        releases = tuple(_release(one, page.get(one.filename)) for one in files)
        return Answers(releases=releases, attestations=tuple(filter(None, attestations)))

    def _attestation(self, one: Artifact, entry: Mapping[str, object] | None) -> Attestation | None:
        """Say whether the index has an attestation of a file; None where it does not tell."""
        if entry is None or "provenance" not in entry:
            return None
        place = entry["provenance"]
        if place is None:
            return Attestation(name=one.name, version=one.version, state="absent")
        why = self.reader.fault(str(place), one.filename, one.digest)
        state = "bad" if why else "good"
        return Attestation(name=one.name, version=one.version, state=state, why=why)


def _release(one: Artifact, entry: Mapping[str, object] | None) -> Release:
    if entry is None:
        return Release(name=one.name, version=one.version, yanked=GONE)
    said = entry.get("yanked", False)
    reason = (said if isinstance(said, str) else "") if said or said == "" else None
    published = entry.get("upload-time")
    return Release(
        name=one.name,
        version=one.version,
        yanked=reason,
        published=published if isinstance(published, str) else "",
    )


def _offered(
    conda: list[Artifact], machine: Machine, progress: Progress, deadline: float
) -> tuple[Release, ...] | None:
    """Give what channels say of conda packages: one that is out of their lists was withdrawn."""
    from repro.environments.conda import Conda

    adapter = Conda(machine.home.root, machine.environ)
    try:
        seconds = max(1.0, deadline - time.monotonic())
        published = adapter.offered(conda, progress, seconds)
    except ReproError as error:
        machine.emit(Warned(text=error.message, hint=next(iter(error.hints), "")))
        return None
    return tuple(
        Release(
            name=one.name,
            version=one.version,
            yanked=None if one.url in published else GONE,
            published=published.get(one.url, ""),
        )
        for one in conda
    )
