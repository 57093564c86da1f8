"""What a project says about its own audit: what it accepts, and which policies it has.

.repro-audit.toml                  or [tool.repro.audit] in pyproject.toml

platforms = ["linux-64"]           to be locked for; this machine's by default
deny-licenses = ["AGPL-*"]         a licence must be none of these
allow-licenses = ["MIT"]           a licence must be one of these
require-attestations = true        every package must be vouched for by its publisher
levels = {P01 = "error"}           a rule may be raised; it is lowered by accepting it only

[[accept]]
code = "V01"                       a rule
subject = "numpy"                  and, if given, what it is about: a glob
path = "lockfiles/*"               and, if given, where it stands: a glob
reason = "no untrusted input"
expires = 2026-12-31
"""

from __future__ import annotations

import re
import tomllib
from datetime import date

from repro.audit.findings import LEVELS
from repro.decode import nearest
from repro.errors import Problem, ProjectInvalid, Where
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

FILE = ".repro-audit.toml"
SHARED = "pyproject.toml"
LISTS = ("platforms", "deny-licenses", "allow-licenses")
KEYS = (*LISTS, "require-attestations", "levels", "accept")
ACCEPT_KEYS = ("code", "reason", "expires", "subject", "path")
REQUIRED = ACCEPT_KEYS[:3]


class Acceptance(Value):
    """A decision to live with the findings of a rule, for a reason and until a date."""

    code: str
    reason: str
    expires: date
    subject: str = ""
    path: str = ""
    where: Where | None = None


class Settings(Value):
    """The settings of a project, already checked. `file` is where they stand."""

    file: str = ""
    platforms: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    attestations: bool = False
    levels: Mapping[str, str] = {}
    acceptances: tuple[Acceptance, ...] = ()

    def states(self, code: str) -> bool:
        """Say whether the project has a policy that a rule of policy can offend."""
        if code.startswith("C"):
            return bool(self.denied or self.allowed)
        return self.attestations and code.startswith("A")


def load(read: Callable[[str], bytes | None], known: Mapping[str, str]) -> Settings:
    """Read the settings of a project; `known` gives every rule with its level.

    `.repro-audit.toml` goes before `pyproject.toml`. Raises ProjectInvalid with all mistakes.
    """
    own = read(FILE)
    if own is not None:
        return _Reader(FILE, own, known).settings(_parsed(FILE, own))
    shared = read(SHARED)
    if shared is None or b"repro" not in shared:
        return Settings()
    table: Any = _parsed(SHARED, shared)
    for name in ("tool", "repro", "audit"):
        table = table.get(name) if isinstance(table, dict) else None
    return Settings() if table is None else _Reader(SHARED, shared, known).settings(table)


def _parsed(file: str, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        said = str(error)
        place = re.search(r"line (\d+), column (\d+)", said)
        line, column = (int(place[1]), int(place[2])) if place else (0, 0)
        where = Where(file=file, line=line, column=column)
        message = f"`{file}` is not valid TOML: {said.partition(' (at')[0].lower()}"
        raise ProjectInvalid(
            [Problem(code="audit-settings", message=message, where=where)]
        ) from None


class _Reader:
    """Turns a table into settings and collects what is wrong with it."""

    def __init__(self, file: str, data: bytes, known: Mapping[str, str]) -> None:
        self.file = file
        self.known = known
        self.lines = data.decode("utf-8-sig").splitlines()
        self.problems: list[Problem] = []

    def settings(self, table: Any) -> Settings:
        if not isinstance(table, dict):
            self._add("the settings are not a table", 0)
            table = {}
        self._unknown(table, KEYS, 0)
        lists = {name: self._texts(table, name) for name in LISTS}
        found = Settings(
            file=self.file,
            platforms=lists["platforms"],
            denied=lists["deny-licenses"],
            allowed=lists["allow-licenses"],
            attestations=self._flag(table, "require-attestations"),
            levels=self._levels(table.get("levels", {})),
            acceptances=tuple(self._acceptances(table.get("accept", []))),
        )
        if self.problems:
            raise ProjectInvalid(self.problems)
        return found

    def _add(self, message: str, line: int, hint: str = "") -> None:
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        where = Where(file=self.file, line=line, text=text[:200])
        self.problems.append(
            Problem(code="audit-settings", message=message, where=where, hint=hint)
        )

    def _line(self, pattern: str, nth: int = 0) -> int:
        found = [n for n, text in enumerate(self.lines, 1) if re.match(pattern, text)]
        return found[nth] if nth < len(found) else 0

    def _unknown(self, table: Mapping[str, Any], known: Iterable[str], line: int) -> None:
        for key in table:
            if key not in known:
                near = nearest(key, tuple(known))
                hint = f"a similar key exists: `{near}`" if near else f"keys: {', '.join(known)}"
                place = line or self._line(rf"\s*\[*[\w.]*{re.escape(key)}\b")
                self._add(f"unknown key `{key}`", place, hint)

    def _texts(self, table: Mapping[str, Any], name: str) -> tuple[str, ...]:
        value = table.get(name, [])
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self._add(f"`{name}` is not a list of texts", self._line(rf"\s*{name}\b"))
        return ()

    def _flag(self, table: Mapping[str, Any], name: str) -> bool:
        value = table.get(name, False)
        if not isinstance(value, bool):
            self._add(f"`{name}` is neither true nor false", self._line(rf"\s*{name}\b"))
        return value is True

    def _levels(self, table: Any) -> dict[str, str]:
        if not isinstance(table, dict):
            self._add('`levels` is not a table such as `{P01 = "error"}`', self._line(r"\s*levels"))
            return {}
        return {code: level for code, level in table.items() if self._raises(code, level)}

    def _raises(self, code: str, level: Any) -> bool:
        line = self._line(rf".*\b{re.escape(code)}\b")
        if not self._is_rule(code, line):
            return False
        if level not in LEVELS:
            self._add(f"`{code}`: no level `{level}`", line, f"levels: {', '.join(LEVELS)}")
            return False
        usual = self.known[code]
        if usual in LEVELS and LEVELS.index(level) > LEVELS.index(usual):
            hint = "accept its findings instead, with a reason and an expiry date"
            self._add(f"`{code}` cannot be lowered from {usual} to {level}", line, hint)
            return False
        return True

    def _is_rule(self, code: Any, line: int) -> bool:
        if isinstance(code, str) and code in self.known:
            return True
        near = nearest(str(code), tuple(self.known))
        hint = f"a similar rule exists: `{near}`" if near else "`repro audit --list-rules`"
        self._add(f"no rule `{code}`", line, hint)
        return False

    def _acceptances(self, rows: Any) -> Iterable[Acceptance]:
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self._add("`accept` is not a list of tables", self._line(r".*\baccept\b"))
            return
        for number, row in enumerate(rows):
            line = self._line(r"\s*(\[\[.*accept\s*\]\]|accept\s*=)", number)
            line = line or self._line(r"\s*accept\s*=")
            if self._is_whole(row, line):
                yield Acceptance(**row, where=Where(file=self.file, line=line))

    def _is_whole(self, row: dict[str, Any], line: int) -> bool:
        before = len(self.problems)
        self._unknown(row, ACCEPT_KEYS, line)
        for key in REQUIRED:
            if key not in row:
                self._add(f"an acceptance has no `{key}`", line, _EXAMPLE)
        for key in ("reason", "subject", "path"):
            if key in row and not (isinstance(row[key], str) and row[key].strip()):
                self._add(f"the `{key}` of an acceptance is no text", line, _EXAMPLE)
        if "expires" in row and type(row["expires"]) is not date:
            hint = "write a date without quotes: `expires = 2026-12-31`"
            self._add("`expires` is no date", line, hint)
        if "code" in row and self._is_rule(row["code"], line) and row["code"].startswith("Z"):
            self._add(f"`{row['code']}` cannot be accepted: it is about acceptances", line)
        return len(self.problems) == before


_EXAMPLE = 'needed are `code = "V01"`, `reason = "…"` and `expires = 2026-12-31`'
