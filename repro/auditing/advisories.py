"""Known vulnerabilities of locked packages, by what these are called on the Python index."""

from __future__ import annotations

from repro.audit.facts import Advisories, Advisory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.auditing.collecting import Locks
    from repro.ports import Progress

    Names = Mapping[tuple[str, str], tuple[tuple[str, str], ...]]


def look_up(named: Names, osv: str, home: str, *, fetch: bool, progress: Progress) -> Advisories:
    """Look packages up in a copy of the OSV database; `named` is what `on_index` gives."""
    from repro.advisories import database

    known = database.load(osv, home, fetch=fetch, progress=progress)
    asked = dict.fromkeys(pair for pairs in named.values() for pair in pairs)
    matches = known.match(asked)
    return Advisories(
        source=known.source,
        date=known.date[:10],
        matches=tuple(
            Advisory(
                id=match.id,
                name=name,
                version=version,
                aliases=match.aliases,
                fixed=match.fixed,
                summary=match.summary,
                severity=match.severity,
                url=match.url,
            )
            for (name, version), pairs in named.items()
            for match in matches
            if (match.package, match.version) in pairs
        ),
        uncovered=tuple(sorted({name for (name, _v), pairs in named.items() if not pairs})),
    )


def on_index(locks: Locks, shipped: Names) -> Names:
    """Give, for each locked package, what it is called on the Python package index.

    Of a conda package these are the distributions inside of it, as far as they are known:
    `shipped` says so of installed ones, the lock of others.
    """
    found: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}
    for lock in locks:
        for one in lock.artifacts:
            key = (one.name, one.version)
            if one.kind in ("wheel", "sdist"):
                found[key] = (key,)
            elif one.kind == "conda":
                told = (dist.partition("==") for dist in one.provides)
                inside = tuple((name, version or one.version) for name, _, version in told)
                found[key] = shipped.get(key, ()) or inside or found.get(key, ())
            else:
                found.setdefault(key, ())
    return found


def shipped(prefixes: Iterable[str]) -> Names:
    """Give the Python packages inside of the conda packages that are installed."""
    from repro.environments import packages

    return {
        (one.name, one.version): tuple((d.name, d.version) for d in one.ships)
        for prefix in prefixes
        for one in packages.read(prefix).packages
        if one.manager == "conda"
    }
