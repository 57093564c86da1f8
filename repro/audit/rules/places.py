"""Where in the user's own texts something stands: by line, since a line may hold a secret."""

from __future__ import annotations

from repro.errors import Where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.audit.facts import EnvironmentFacts, Facts
    from repro.spec import EntryPoint, Parameter


def find(facts: Facts, file: str, needle: str) -> Where | None:
    """Give the first place of `needle` in a file."""
    text = facts.texts.get(file, "")
    offset = text.find(needle) if needle else -1
    return None if offset < 0 else Where(file=file, line=text.count("\n", 0, offset) + 1)


def requested(facts: Facts, env: EnvironmentFacts, needle: str) -> Where:
    """Give the place where an environment asks for something, or at least the file."""
    for file in (env.file, *(name for name in facts.texts if name != env.file)):
        found = find(facts, file, needle)
        if found is not None:
            return found
    return Where(file=env.file)


def locked(facts: Facts, path: str, name: str) -> Where:
    """Give the place of a package in a lock file."""
    text = facts.lock_texts.get(path)
    return Where(file=path, line=text.lines.get(name, 0) if text else 0)


def package(facts: Facts, name: str) -> Where | None:
    """Give the place of a package in whichever lock file holds it."""
    for path, text in facts.lock_texts.items():
        if name in text.lines:
            return Where(file=path, line=text.lines[name])
    return None


def step(facts: Facts, entry: EntryPoint) -> Where:
    """Give the place of an entry point."""
    return Where(file=facts.project.file, line=entry.line)


def command(facts: Facts, entry: EntryPoint) -> Where:
    """Give the place of an entry point's command."""
    return Where(file=facts.project.file, line=entry.command_line or entry.line)


def parameter(facts: Facts, found: Parameter) -> Where:
    """Give the place of a parameter."""
    return Where(file=facts.project.file, line=found.line)
