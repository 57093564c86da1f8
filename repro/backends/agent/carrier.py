"""The submitting side of a job elsewhere: what goes there, what comes back and is believed."""

from __future__ import annotations

import io
import json
import os
import zipfile

from repro import manifest
from repro.backends.agent.carriage import Failed, connect
from repro.backends.agent.frames import BEAT, END, ERR, OUT, frames
from repro.backends.agent.trees import digest_of, lay, packed, scan, unpacked
from repro.ports import JobEnd
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from repro.backends.agent.carriage import Carriage
    from repro.backends.agent.trees import Entry
    from repro.ports import Job, Sink

    Put = Callable[[str, str], None]

PACKAGES = ("repro/__init__.py", "repro/backends/__init__.py", "repro/backends/agent/__init__.py")
MODULES = ("agent", "carriage", "command", "frames", "parts", "setup", "trees", "web")
START = "import sys\nfrom repro.backends.agent.agent import main\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
KINDS = ("file", "exec", "link", "dir", "odd", "left")
CAUSES = ("exit", "timeout", "cancel")
STREAMS = {OUT: "stdout", ERR: "stderr"}
DEAF = "nothing that the step logs with MLflow is received: this node does not reach the receiver"
BEAT_S, FLUSH_S = 10.0, 0.5


def program() -> bytes:
    """Give the agent as one file that `python3` runs; the same version gives the same bytes."""
    here = os.path.dirname(os.path.abspath(__file__))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in PACKAGES:
            archive.writestr(zipfile.ZipInfo(name, EPOCH), b"")
        for module in MODULES:
            with open(os.path.join(here, f"{module}.py"), "rb") as file:
                name = f"repro/backends/agent/{module}.py"
                archive.writestr(zipfile.ZipInfo(name, EPOCH), file.read())
        archive.writestr(zipfile.ZipInfo("__main__.py", EPOCH), START)
    return packed.getvalue()


class Shipment(Value):
    """A job's inputs on their way: `tree` is the digest of what lists them."""

    tree: str
    entries: tuple[Entry, ...]


def root_of(job: Job) -> str:
    """Give the folder that travels: all that is private of the job, or its working folder."""
    return (job.base or job.folder).rstrip("/")


def ship(job: Job, put: Put, scratch: str) -> Shipment:
    """Send what is in the job's folder; `put(digest, path)` stores a file.

    `scratch` names a file for a moment. Raises OSError, and Failed as `put` does.
    """
    root = root_of(job)
    entries = scan(root)
    for path, kind, content, _size in entries:
        if kind in ("file", "exec"):
            put(content, os.path.join(root, path))
    with open(scratch, "wb") as file:
        file.write(packed(entries))
    tree = digest_of(scratch)
    put(tree, scratch)
    os.unlink(scratch)
    return Shipment(tree=tree, entries=tuple(entries))


def specification(
    job: Job,
    tree: str,
    carriage: Mapping[str, Any],
    *,
    variables: Mapping[str, str] | None = None,
    scratch: str = "",
    ports: tuple[int, ...] = (),
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """Say what the agent is to do. It holds the values of variables: keep it private.

    `carriage` is what `carriage.connect` takes. `variables` replace the job's. `scratch` is a
    folder of the node, empty for its own choice. On `ports` of its loopback interface somebody
    should answer; where nobody does, a line on standard error says so. `more` may have the
    `environment` that the agent is to make, see `setup.made`; the seconds between two signs of
    life, `beat_s`; those until output is sent on, `flush_s`, in a job that takes long; and whether
    the command is to `inherit` the agent's own variables where the job gives no others, which in
    a container are the image's.
    """
    root = root_of(job)
    given = job.variables if variables is None else variables
    asked = {
        "argv": [_bytewise(word) for word in job.argv],
        "variables": {_bytewise(name): _bytewise(given[name]) for name in given},
        "base": _bytewise(root),
        "folder": _bytewise(os.path.relpath(job.folder, root)),
        "tree": tree,
        "carriage": dict(carriage),
        "timeout_ms": job.timeout_ms,
        "grace_ms": job.grace_ms,
        "scratch": scratch,
        "ports": list(ports),
        "deaf": DEAF,
        "beat_s": BEAT_S,
        "flush_s": FLUSH_S,
        "environment": None,
        "inherit": False,
        **(more or {}),
    }
    return json.dumps(asked).encode("ascii")


def _bytewise(text: str) -> str:
    return os.fsencode(text).decode("latin-1")


class Follower:
    """Reads what a job tells, over reconnections and new starts, each frame once.

    `attempt` is the start that is followed, the last one. `told` counts frames, so that one that
    is silent can be told from one that lives. `end` are the facts of its end, None before.
    """

    def __init__(self, carriage: Carriage) -> None:
        """Begin with the first attempt."""
        self._carriage = carriage
        self.attempt = 0
        self.told = 0
        self._begin(0)

    def _begin(self, attempt: int) -> None:
        self.attempt = attempt
        self._position = self._number = 0
        self.end: dict[str, Any] | None = None

    @property
    def has_begun(self) -> bool:
        """Say whether the first attempt has begun."""
        return self.told > 0 or self._carriage.is_taken(0)

    def next_attempt(self) -> bool:
        """Go over to the next attempt, if it has begun."""
        if not self._carriage.is_taken(self.attempt + 1):
            return False
        self._begin(self.attempt + 1)
        return True

    def deliver(self, sink: Sink) -> bool:
        """Deliver what has come since; say whether anything has. Raises OSError, Failed."""
        moved = False
        while self.end is None:
            data = self._carriage.read(self.attempt, self._position)
            found, used = frames(data, self._number)
            if not found:
                break
            moved = True
            self._position = self._carriage.after(self._position, used)
            self._number += len(found)
            self.told += len(found)
            for kind, payload in _joined(found):
                if kind == END:
                    self.end = _facts(payload)
                elif kind != BEAT:
                    sink(STREAMS.get(kind, "stderr"), payload)
        return moved


def _joined(found: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Join neighbours of one stream."""
    joined: list[tuple[int, list[bytes]]] = []
    for kind, payload in found:
        if joined and joined[-1][0] == kind:
            joined[-1][1].append(payload)
        else:
            joined.append((kind, [payload]))
    return [(kind, b"".join(pieces)) for kind, pieces in joined]


def _facts(payload: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(payload)
        is_good = (
            facts["cause"] in CAUSES
            and isinstance(facts["code"], int)
            and isinstance(facts["failed"], str)
            and isinstance(facts.get("tree", ""), str)
        )
    except (ValueError, KeyError, TypeError):
        is_good = False
    if not is_good:
        raise Failed("the job's end cannot be read")
    return dict(facts)


def ended(facts: Mapping[str, Any]) -> JobEnd:
    """Read the facts of an end."""
    names = ("wall_ns", "user_ns", "system_ns", "peak_bytes")
    numbers = {name: facts[name] for name in names if isinstance(facts.get(name), int)}
    return JobEnd(code=facts["code"], cause=facts["cause"], **numbers)


def bring(carriage: Carriage, tree: str, before: Iterable[Entry], root: str) -> None:
    """Make the folder what it was where the job ran; `before` is what it was when it was sent.

    Every byte is hashed. Raises Failed for a tree that must not be believed, and OSError.
    """
    half = f"{root}.{os.urandom(6).hex()}~"
    try:
        carriage.get(tree, half)
        with open(half, "rb") as file:
            after = _believed(unpacked(file.read()))
    finally:
        if os.path.exists(half):
            os.unlink(half)
    old = {entry[0]: entry for entry in before}
    new = {entry[0]: entry for entry in after}
    folders = {parent for path in new for parent in _parents(path)}
    for path, entry in old.items():
        now = new.get(path)
        if now != entry and path not in folders and not (now and now[1] == "left"):
            _remove(os.path.join(root, path))
    changed = [e for e in after if e != old.get(e[0]) and e[1] != "left"]
    lay(changed, root, carriage.get)


def _believed(entries: list[Entry]) -> list[Entry]:
    """Give a tree back if writing it touches nothing outside."""
    for path, kind, _content, _size in entries:
        if kind not in KINDS or not manifest.is_inside(path):
            raise Failed(f"the job's tree has an impossible entry, {path!r}")
    shapes = [manifest.Entry(path=e[0], kind=e[1]) for e in entries]
    clash = manifest.clash(shapes)
    if clash:
        raise Failed(f"the job's tree has {clash!r} twice")
    return entries


def _parents(path: str) -> Iterable[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _remove(place: str) -> None:
    try:
        if os.path.isdir(place) and not os.path.islink(place):
            os.rmdir(place)
        else:
            os.unlink(place)
    except FileNotFoundError:
        pass


__all__ = [
    "Failed",
    "Follower",
    "Shipment",
    "bring",
    "connect",
    "ended",
    "program",
    "root_of",
    "ship",
    "specification",
]
