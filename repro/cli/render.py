"""Events, errors and records as text for people, and as JSON for programs."""

from __future__ import annotations

import os
import sys

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TextIO

    from repro.errors import Problem, ReproError, Where
    from repro.events import Event
    from repro.record import RunRecord

COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
UNITS = ("B", "kB", "MB", "GB", "TB")
THOUSAND = 1000


class Terminal:
    """Where text goes: whether it may be coloured, and how odd characters are written."""

    def __init__(self, when: str = "auto", stream: TextIO | None = None) -> None:
        """Decide about colour: `--color`, NO_COLOR, FORCE_COLOR, TERM, then the stream."""
        self.stream = stream if stream is not None else sys.stderr
        self.is_terminal = bool(self.stream is not None and self.stream.isatty())
        self.colour = _wants_colour(when, is_terminal=self.is_terminal)
        encoding = (getattr(self.stream, "encoding", "") or "").lower().replace("-", "")
        self.fancy = encoding.startswith("utf")

    def paint(self, text: str, colour: str) -> str:
        """Colour a text, where colours may be."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.colour else text

    def line(self, text: str) -> None:
        """Write a line."""
        if self.stream is None:  # closed before we began
            return
        if not self.fancy:
            text = text.encode("ascii", "backslashreplace").decode()
        self.stream.write(text + "\n")
        self.stream.flush()

    @property
    def bar(self) -> str:
        """Give what stands between the name of a step and its output."""
        return "│" if self.fancy else "|"

    @property
    def tick(self) -> str:
        """Give the mark of success."""
        return "✓" if self.fancy else "ok"

    @property
    def cross(self) -> str:
        """Give the mark of failure."""
        return "✗" if self.fancy else "x"


def _wants_colour(when: str, *, is_terminal: bool) -> bool:
    if when != "auto":
        return when == "always"
    environ = os.environ
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return bool(environ.get("FORCE_COLOR") or environ.get("CLICOLOR_FORCE")) or is_terminal


class Narrator:
    """Tells the story of a run on stderr."""

    def __init__(self, terminal: Terminal, *, quiet: int = 0) -> None:
        """Take where to write, and how much: 1 leaves out the step's output, 2 all but errors."""
        self.terminal = terminal
        self.quiet = quiet
        self.partial: dict[tuple[str, str], bytes] = {}

    def __call__(self, event: Event) -> None:
        """Take an event."""
        handler = getattr(self, f"_{type(event).__name__.lower()}", None)
        if handler is not None:
            handler(event)

    def _progress(self, event: Any) -> None:
        if not self.quiet:
            paint = self.terminal.paint
            self.terminal.line(paint(f"  {event.step}  {clean(event.text)} …", "dim"))

    def _warned(self, event: Any) -> None:
        if self.quiet > 1:
            return
        self.terminal.line(f"{self.terminal.paint('warning', 'yellow')}: {clean(event.text)}")
        if event.hint:
            self.terminal.line(f"{self.terminal.paint('hint', 'cyan')}: {clean(event.hint)}")

    def _missed(self, event: Any) -> None:
        if not self.quiet:
            word = self.terminal.paint("miss", "yellow")
            self.terminal.line(f"  {event.step}  {word} {event.key[:12]}  {clean(event.reason)}")

    def _output(self, event: Any) -> None:
        if self.quiet:
            return
        source = (event.step, event.stream)
        *lines, rest = (self.partial.get(source, b"") + event.data).split(b"\n")
        self.partial[source] = rest
        for line in lines:
            self._step_line(event.step, line)

    def _step_line(self, step: str, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        if self.terminal.is_terminal:
            text = filtered(text)
        prefix = self.terminal.paint(f"{step} {self.terminal.bar}", "dim")
        self.terminal.line(f"  {prefix} {text}")

    def flush(self, step: str) -> None:
        """Write what a step printed without ending the line."""
        for stream in ("stdout", "stderr"):
            rest = self.partial.pop((step, stream), b"")
            if rest:
                self._step_line(step, rest)

    def _reused(self, event: Any) -> None:
        if self.quiet > 1:
            return
        record, paint = event.record, self.terminal.paint
        self.flush(event.step)
        restored = f", {plural(event.restored, 'output')} restored" if event.restored else ""
        ago = age(record.ended_ns - event.ended_ns)
        steps = f", {plural(event.steps, 'step')} up to date" if event.steps > 1 else ""
        self.terminal.line(
            f"{paint(self.terminal.tick, 'green')} {event.step}  {paint('hit', 'green')} "
            f"{record.key[:12]}  reused run {record.origin_run[:8]} "
            f"({ago} ago, saved {duration(event.saved_ns)}{restored}{steps})"
        )
        self._metrics(record)

    def _ended(self, event: Any) -> None:
        record, paint = event.record, self.terminal.paint
        self.flush(event.step)
        if self.quiet > 1:
            return
        took = duration(record.wall_ns)
        if record.status == "FINISHED":
            made = (
                f" · {plural(event.outputs, 'output')} ({size(event.bytes)})"
                if event.outputs
                else ""
            )
            mark = paint(self.terminal.tick, "green")
            self.terminal.line(f"{mark} {event.step}  {took} → run {record.run_id[:8]}{made}")
            self._metrics(record)
        else:
            mark = paint(self.terminal.cross, "red")
            self.terminal.line(
                f"{mark} {event.step}  {ending(record)} after {took} → run {record.run_id[:8]}"
            )

    def _metrics(self, record: RunRecord) -> None:
        if record.metrics:
            shown = "  ".join(f"{name}={text}" for name, text in sorted(record.metrics.items()))
            self.terminal.line(f"  metrics  {clean(shown)}")


def ending(record: RunRecord) -> str:
    """Say how a run ended that did not succeed."""
    if record.cause == "timeout":
        return "ended by its timeout"
    if record.cause == "output" and record.error:
        return f"failed: {record.error}"
    if record.status == "KILLED":
        return "killed"
    return f"failed with exit code {record.exit_code}"


def error(problem: ReproError, *, as_json: bool) -> None:
    """Report an error: as text on stderr, with `--json` also as a document on stdout."""
    if as_json:
        print(json_text(error_document(problem)))
        return
    terminal = Terminal()
    problems = getattr(problem, "problems", ())
    if problems:
        for one in reversed(problems[:10]):  # the first one nearest to the prompt
            show_problem(terminal, one)
        if len(problems) > 10:  # noqa: PLR2004
            terminal.line(f"and {len(problems) - 10} more")
        return
    terminal.line(f"{terminal.paint('error', 'red')}: {clean(problem.message)}")
    if problem.where:
        show_place(terminal, problem.where)
    log = getattr(problem, "log", "")
    if log:
        terminal.line(f"  log: {clean(log)}")
    for hint in problem.hints:
        terminal.line(f"{terminal.paint('hint', 'cyan')}: {clean(hint)}")


def show_problem(terminal: Terminal, problem: Problem) -> None:
    """Write one problem of a project's text, with its place."""
    colour = {"error": "red", "warning": "yellow"}.get(problem.level, "cyan")
    code = f"[{problem.code}]"
    word = terminal.paint(problem.level, colour)
    terminal.line(f"{word}{code}: {clean(problem.message)}")
    if problem.where:
        show_place(terminal, problem.where)
    if problem.hint:
        terminal.line(f"{terminal.paint('hint', 'cyan')}: {clean(problem.hint)}")


def show_place(terminal: Terminal, where: Where) -> None:
    """Write a place in the user's text, with the line and a mark below the column."""
    terminal.line(f"  --> {clean(str(where))}")
    if where.text:
        number = str(where.line)
        terminal.line(f"  {number} {terminal.bar} {clean(where.text.rstrip())}")
        if where.column:
            gap = " " * (len(number) + 2)
            terminal.line(f"{gap} {terminal.bar} {' ' * (where.column - 1)}^")


def bug(problem: Exception, argv: list[str]) -> int:
    """Save a report of a bug of ours and say where it is."""
    import tempfile
    import traceback

    from repro import __version__

    text = "".join(traceback.format_exception(problem))
    terminal = Terminal()
    if os.environ.get("REPRO_TRACEBACK"):
        terminal.line(text)
    report = f"repro {__version__}, python {sys.version}\ncommand: {argv[:1]}\n\n{text}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="repro-crash-", suffix=".txt", delete=False
        ) as file:
            file.write(report)
        place = file.name
    except OSError:
        place = "(it could not be saved)"
    name = type(problem).__name__
    terminal.line(f"{terminal.paint('error', 'red')}: internal error, a bug in repro ({name})")
    terminal.line(f"  report: {place}")
    return errors.BUG


def error_document(problem: ReproError) -> dict[str, Any]:
    """Give an error as data."""
    return {
        "schema": "repro.error/1",
        "error": {
            "code": problem.code,
            "exit": problem.exit,
            "message": problem.message,
            "where": where_document(problem.where),
            "hints": list(problem.hints),
            "problems": [problem_document(p) for p in getattr(problem, "problems", ())],
        },
    }


def problem_document(problem: Problem) -> dict[str, Any]:
    """Give a problem of a project's text as data."""
    return {
        "level": problem.level,
        "code": problem.code,
        "message": problem.message,
        "where": where_document(problem.where),
        "hint": problem.hint,
    }


def where_document(where: Where | None) -> dict[str, Any] | None:
    """Give a place as data."""
    if where is None:
        return None
    return {"file": where.file, "line": where.line, "column": where.column, "text": where.text}


def json_text(document: Mapping[str, Any]) -> str:
    """Write a document as JSON; numbers that JSON has no form for are texts."""
    import json

    return json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False)


def clean(text: str) -> str:
    """Write control characters visibly: our own lines never move a cursor."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text
    )


def filtered(text: str) -> str:
    """Keep colours and drop every other control sequence from a step's line."""
    if text.isprintable():
        return text
    import re

    text = re.sub(r"\x1b\](?:[^\x07\x1b]|\x1b(?!\\))*(?:\x07|\x1b\\)?", "", text)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z@`~]", "", text)
    text = re.sub(r"\x1b(?!\[[0-9;]*m)", "", text)
    return "".join(c for c in text if c.isprintable() or c in "\t\x1b\r")


def duration(ns: int) -> str:
    """Write a duration in the unit that suits it."""
    seconds = ns / 1e9
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def age(ns: int) -> str:
    """Write how long ago something was."""
    seconds = max(ns, 0) / 1e9
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / unit)} {name}"
    return plural(round(seconds / 86400), "day")


def size(count: int) -> str:
    """Write a number of bytes in the unit that suits it."""
    value = float(count)
    for unit in UNITS:
        if value < THOUSAND or unit == UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= THOUSAND
    return ""


def plural(count: int, word: str) -> str:
    """Write a number with its word."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
