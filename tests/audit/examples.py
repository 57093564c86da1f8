"""Projects and machines written as text: what the pages of the rules show, turned into facts."""

from __future__ import annotations

import re
import tomllib
from datetime import date

from repro import auditing, digest
from repro.audit import facts as values
from repro.environments.unmet import unmet
from repro.errors import Unsupported
from repro.fetch import project as loading
from repro.manifest import Entry
from repro.ports import Unmet
from repro.source import Source
from repro.spec import PythonEnvironment

TODAY = date(2026, 1, 31)
PLATFORM = "linux-64"
MACHINE = "machine.toml"
NAMED = re.compile(r"`([\w./-]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Tree:
    """A project in memory."""

    def __init__(self, files, name="example"):
        self.files = {path: text.encode() for path, text in files.items()}
        self.source = Source(kind="folder", uri=".", project="/p", name=name, tree="", root="/p")

    def entries(self):
        return tuple(
            Entry(path=path, kind="file", content=digest.of_bytes(data), size=len(data))
            for path, data in sorted(self.files.items())
        )

    def read(self, path):
        return self.files.get(path)


class World:
    """A machine of which everything is said; what is not said was not looked at."""

    def __init__(self, told):
        self.told = told
        self.platform = told.get("platform", PLATFORM)

    def _rows(self, key, kind):
        return tuple(kind(**frozen(row)) for row in self.told[key]) if key in self.told else None

    def _one(self, key, kind):
        return kind(**frozen(self.told[key])) if key in self.told else None

    def today(self):
        return self.told.get("today", TODAY)

    def unmet(self, wanted, lock):
        if "fault" in self.told:
            raise Unsupported(self.told["fault"])
        if isinstance(wanted, PythonEnvironment):
            return unmet(wanted, lock)
        return self._rows("unmet", Unmet) or ()

    def prefix(self, _wanted, lock):
        found = self._rows("found", values.Found)
        platform = lock.platform or self.platform
        return None if found is None else values.Prefix(path="/e", platform=platform, found=found)

    def git(self, _source):
        return self._one("git", values.Git)

    def history(self, _project, _steps):
        return self._rows("steps", values.StepHistory)

    def images(self, _locks):
        return self._rows("images", values.ImageFacts)

    def advisories(self, _locks):
        told = self.told.get("advisories")
        if told is None:
            return None
        matches = tuple(values.Advisory(**frozen(row)) for row in told.get("matches", ()))
        return values.Advisories(**{**frozen(told), "matches": matches})

    def licences(self, _locks):
        return self._rows("licences", values.Licence)

    def releases(self, _locks):
        return self._rows("releases", values.Release)

    def attestations(self, _locks):
        return self._rows("attestations", values.Attestation)

    def provenance(self, _project, _steps):
        return self._rows("provenance", values.Provenance)

    def cache(self):
        return self._one("cache", values.Cache)


def frozen(row):
    """Lists as tuples, all the way down."""

    def inner(value):
        return tuple(inner(item) for item in value) if isinstance(value, list) else value

    return {key: inner(value) for key, value in row.items()}


def collect(files, told=None, **more):
    """The facts of a project with these files, on a machine of which `told` is said."""
    told = {**(told or {}), **more}
    tree = Tree(files)
    project, paths = loading.load(tree, lambda _problem: None)
    return auditing.collect(tree, project, paths, World(told), installed="found" in told)


def of_page(text):
    """The facts of one example of a page: its files, and what is found on the machine."""
    files = dict(NAMED.findall(text))
    told = tomllib.loads(files.pop(MACHINE, ""))
    return collect(files, told)


def section(page, title):
    """What stands below a heading of a page, up to the next one."""
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""
