"""What went wrong in a resolver or installer, from what it printed: a reason, not 300 lines."""

from __future__ import annotations

import re

from repro.errors import EnvironmentFailed, NoSpace, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.errors import ReproError

SHOWN = 12
WIDTH = 500

FULL = re.compile(r"No space left on device|Disk quota exceeded|\(os error (28|122)\)")
UNSERVED = re.compile(
    r"Could ?n[o']t resolve host|failed to lookup address|name resolution|dns error"
    r"|Name or service not known|Connection (refused|reset|aborted)|Network is unreachable"
    r"|No route to host|error sending request|tcp connect error|timed out|ProxyError"
    r"|NewConnectionError|Max retries exceeded|ReadTimeoutError|ConnectTimeoutError"
    r"|HTTP status server error|5\d\d Server Error|network was disabled",
    re.IGNORECASE,
)
UNSOLVABLE = re.compile(r"ResolutionImpossible|No solution found")
MISMATCHES = (
    re.compile(
        r"Hash mismatch for `(?P<what>[^`]+)`.*?sha256:(?P<expected>[0-9a-f]{64})"
        r".*?Computed:\s+sha256:(?P<found>[0-9a-f]{64})",
        re.DOTALL,
    ),
    re.compile(
        r"DO NOT MATCH THE HASHES.*?\n\s+(?P<what>\S+) from .*?"
        r"Expected sha256 (?P<expected>[0-9a-f]{64}).*?Got\s+(?P<found>[0-9a-f]{64})",
        re.DOTALL,
    ),
)
NO_WHEEL = re.compile(
    r"building from source is disabled|Building source distributions .*is disabled"
    r"|no usable wheels|\(from versions: none\)"
)
NO_WHEEL_OF = re.compile(
    r"(?P<what>[A-Za-z0-9][\w.-]*(?:[=<>!~]=[\w.*+!]+)?) has no (?:usable )?wheels"
)
NO_PIP = re.compile(r"ensurepip is not available|No module named (venv|ensurepip)")
TOO_OLD = re.compile(r"no such option: --(report|python|dry-run)")
USERINFO = re.compile(r"(://)[^/@\s]+@")
DECORATION = " \t\xd7╰├│─▶"  # what older versions of uv draw
CONFLICT = "The conflict is caused by:"
BUILDABLE = (
    "if only a source distribution is offered, `REPRO_SDISTS=1` allows to build it,"
    " which runs the package's own code"
)


def explain(text: str, message: str, log: str) -> ReproError:
    """Give the error to raise for a tool that failed and printed `text`, all of which is in `log`.

    `message` is for a failure that is none of those that are known: no space, no answer from a
    server, other bytes than the lock says.
    """
    complete = f"the complete output is in `{log}`"
    if FULL.search(text):
        return NoSpace(
            "no space left while making an environment",
            hints=["free some space, for example with `repro env prune`", complete],
        )
    for pattern in MISMATCHES:
        if found := pattern.search(text):
            return _mismatch(found, log)
    reasons = essential(text)
    if UNSERVED.search(text) and not UNSOLVABLE.search(text):
        return Unreachable(
            "a package index or repository did not answer", hints=[*reasons, complete]
        )
    if found := NO_WHEEL_OF.search(re.sub(r"\s+", " ", text)):
        message = f"`{found['what']}` has no wheel, so {message}"
    return EnvironmentFailed(message, hints=[*reasons, *_advice(text)], log=log)


def essential(text: str) -> list[str]:
    """Give the few lines of a tool's output that say why it failed, credentials left out."""
    lines = [_readable(line) for line in text.splitlines()]
    first = next((i for i, line in enumerate(lines) if _starts(line)), None)
    if first is None:
        chosen = [line for line in lines if line][-SHOWN:]
    elif any(line.startswith("ERROR:") for line in lines):
        chosen = [line for line in lines if line.startswith("ERROR:")] + _conflict(lines)
    else:
        chosen = [line for line in lines[first:] if line]
    return chosen[:SHOWN]


def _starts(line: str) -> bool:
    return line.startswith(("error:", "ERROR:", "No solution found"))


def _conflict(lines: list[str]) -> list[str]:
    """Give the block in which pip says who wants what."""
    if CONFLICT not in lines:
        return []
    block = lines[lines.index(CONFLICT) + 1 :]
    return block[: block.index("")] if "" in block else block


def _readable(line: str) -> str:
    return USERINFO.sub(r"\1****@", line.strip(DECORATION))[:WIDTH]


def _advice(text: str) -> list[str]:
    advice = []
    if NO_WHEEL.search(text):
        advice.append(BUILDABLE)
    if TOO_OLD.search(text):
        advice.append("the pip of this python is too old: install uv, or a newer python")
    if NO_PIP.search(text):
        advice.append("this python comes without venv or pip: install uv, or `python3-venv`")
    return advice


def _mismatch(found: re.Match[str], log: str) -> EnvironmentFailed:
    return EnvironmentFailed(
        f"`{found['what']}` is not what the lock says: its SHA-256 differs",
        hints=[
            f"expected {found['expected']}",
            f"found    {found['found']}",
            "the file was replaced since it was locked; if that is right, `--relock`",
        ],
        log=log,
    )
