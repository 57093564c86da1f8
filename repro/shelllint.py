"""What a shell makes of a command that its author did not mean."""

from __future__ import annotations

from itertools import pairwise

from repro import params


def lints(command: str) -> list[tuple[str, str, str]]:
    """Find what a shell makes of a command that its author did not mean: (code, message, hint)."""
    found = []
    lines = command.strip().split("\n")
    for before, line in pairwise(lines):
        if line.lstrip().startswith("-") and not before.rstrip().endswith(
            ("\\", "&&", "||", "|", "(", "{")
        ):
            found.append(
                (
                    "broken-line",
                    f"the line `{line.strip()[:40]}` runs as a command of its own",
                    "use `>-` with equal indentation, or end the line before it with `\\`",
                )
            )
            break
    separate = [line for line in lines if line.strip()]
    if len(separate) < len(lines) and len(separate) > 1:
        found.append(
            (
                "blank-line",
                "a blank line splits it into several commands; only the last one's failure counts",
                "join them with `&&`, or say `shell: strict`",
            )
        )
    if "\\ " in command and any(p.strip().startswith("-") for p in command.split("\\ ")[1:]):
        found.append(
            ("backslash", "a `\\` before a blank becomes part of the next word", "remove the `\\`")
        )
    if _has_pipe(command):
        found.append(
            (
                "pipe",
                "a pipe hides the failure of all but its last command",
                "say `shell: strict` in the entry point",
            )
        )
    return found


def _has_pipe(command: str) -> bool:
    shell = params.Shell()
    for index, char in enumerate(command):
        alone = (
            char == "|"
            and command[index - 1 : index] != "|"
            and command[index + 1 : index + 2] != "|"
        )
        if alone and shell.frames == ["bare"] and not shell.escaped and not shell.heredoc:
            return True
        shell.feed(char)
    return False
