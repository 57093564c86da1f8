"""From what the code of a step asks for to a request that anybody could have made."""

from __future__ import annotations

import os

from repro import location, standins
from repro.plan import Request
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from repro.drivers.places import Places
    from repro.engine import Prepared
    from repro.ports import Asked
    from repro.spec import Project

    Look = Callable[[str], bool]

OWN = ("MLFLOW_", "REPRO_", "PYTHON")
SYSTEM = frozenset(("CI", "HOME", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "TMPDIR", "_"))


class Where(Value):
    """The project that is asked for: `inside` is its folder in the caller's own, None for another.

    A project of the caller's own tree is taken from where that came from, at the same version.
    """

    uri: str
    version: str = ""
    inside: str | None = None


def where(asked: Asked, caller: Prepared, places: Places) -> Where:
    """Find out which project is meant. Raises SourceRefused."""
    folder = places.here(asked.folder)

    def path_of(address: str) -> str:
        return os.path.join(folder, places.here(address))

    found = location.parse(asked.uri, lambda path: os.path.exists(path_of(path)))
    if "://" in found.address or found.kind == "git":
        return Where(uri=asked.uri, version=asked.version)
    path = path_of(found.address)
    inside = places.inside(os.path.join(path, found.subdirectory))
    if inside is None or found.kind != "folder":
        below = f"#{found.subdirectory}" if found.subdirectory else ""
        return Where(uri=os.path.abspath(path) + below, version=asked.version)
    return replace(own(caller, inside), version=asked.version or own(caller, inside).version)


def own(caller: Prepared, inside: str) -> Where:
    """Give a folder of the caller's own project, at the state in which the caller has it."""
    found, request = caller.source, caller.request
    if found.root:
        return Where(uri=os.path.join(found.root, inside) if inside else found.root, inside=inside)
    place, _, below = request.uri.partition("#")
    if "://" not in place and os.path.exists(os.path.join(request.caller, place)):
        place = os.path.abspath(os.path.join(request.caller, place))
    below = "/".join(part for part in (below.strip("/"), inside) if part)
    version = "" if found.kind == "zip" else found.commit
    return Where(uri=f"{place}#{below}" if below else place, version=version, inside=inside)


def request(place: Where, caller: Prepared, parameters: Mapping[str, str | None]) -> Request:
    """Give the request for a step of a project, as far as the caller decides over it.

    A manager of environments that was chosen for the caller is that of what it calls.
    """
    given = caller.request
    return Request(
        uri=place.uri,
        version=place.version,
        parameters=dict(parameters),
        env_manager=given.env_manager,
        use_results=given.use_results,
        keep_result=given.keep_result,
        sandbox=given.sandbox,
        locking=given.locking,
        experiment_name=given.experiment_name,
        experiment_id=given.experiment_id,
        caller=caller.source.root or given.caller,
    )


def wanted(asked: Asked, place: Where, caller: Prepared, run_id: str, places: Places) -> Request:
    """Give the request for what is asked for, its parameters as they are."""
    plain = request(place, caller, asked.parameters)
    name = asked.entry_point
    inner = places.inside(name) if name.startswith("/") else None
    if inner and place.inside is not None:  # a script by its absolute path
        name = os.path.relpath(inner, place.inside or ".")
    return replace(
        plain,
        entry_point=name,
        env_manager=asked.env_manager or plain.env_manager,
        experiment_name=asked.experiment_name or plain.experiment_name,
        experiment_id="" if asked.experiment_name else plain.experiment_id,
        storage=asked.storage,
        container=dict(asked.container),
        run_id=os.urandom(16).hex(),
        run_name=asked.run_name,
        parent_run=run_id,
        caller=places.here(asked.folder),
    )


class Translation:
    """Turns parameters that name files of the calling step into what is the same each time.

    A file of the project itself is named by its relative path: the called step has its own.
    Anything else that is there, such as an artifact of a step called before, is a stand-in: the
    called step reads it where it is, and its content is in the key.
    """

    def __init__(
        self,
        places: Places,
        inside: str | None,
        is_ours: Look,
        identify: Callable[[str], str],
    ) -> None:
        """Take where the called project is; `is_ours` tells what a path in the tree is.

        `identify` gives the digest of files.
        """
        self._places = places
        self._inside = inside
        self._is_ours = is_ours
        self._identify = identify
        self.stand_ins: dict[str, str] = {}

    def __call__(self, text: str, kind: str) -> str:
        """Give the text of a parameter as the called step gets it; `kind` is its declared type."""
        if kind == "path":
            plain = text.removeprefix("file://")
            return self._places.here(plain) if plain.startswith("/") else text
        relative = self._relative(text)
        if relative:
            return relative
        for written, place in dict(self._places.mentions(text)).items():
            self.stand_ins[place] = standins.of(self._identify(place), place)
            text = text.replace(written, place)
        return text

    def _relative(self, text: str) -> str:
        """Give the path inside of the called project, where that has what a text names as well."""
        if self._inside is None or not text.startswith("/"):
            return ""
        path = self._places.inside(self._places.here(text))
        prefix = f"{self._inside}/" if self._inside else ""
        if path is None or not f"{path}/".startswith(prefix) or not self._is_ours(path):
            return ""
        return os.path.relpath(path or ".", self._inside or ".")


def translated(plain: Request, project: Project, translation: Translation) -> Request:
    """Give a request whose parameters mean the same outside of the calling step."""
    entry = project.entry_point(plain.entry_point)
    kinds = {p.name: p.type for p in entry.parameters} if entry else {}
    secret = {p.name for p in entry.parameters if p.secret} if entry else set()
    given = {
        name: text if text is None or name in secret else translation(text, kinds.get(name, ""))
        for name, text in plain.parameters.items()
    }
    return replace(plain, parameters=given, stand_ins=tuple(translation.stand_ins.items()))


def changed(given: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that the code of a step has set, beside those of tools and system."""
    return {
        name: text
        for name, text in now.items()
        if given.get(name) != text and name not in SYSTEM and not name.startswith(OWN)
    }
