"""Where a project's files came from, and which of them one step may see."""

from __future__ import annotations

from repro import digest, manifest
from repro.errors import SourceUnusable
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.manifest import Entry
    from repro.spec import EntryPoint


class Source(Value):
    """A project's tree at one moment. Never holds credentials.

    `project` names the project wherever it is run from. `root` is its folder for a local
    project, empty for one whose files are in the store. `tree` is the tree digest of the project
    folder. `dirty` says that the tree is not that of `commit`; `version` is what was asked for.
    """

    kind: str
    uri: str
    project: str
    name: str
    tree: str
    root: str = ""
    commit: str = ""
    branch: str = ""
    repo_url: str = ""
    dirty: bool = False
    subdirectory: str = ""
    version: str = ""


class Selection(Value):
    """Which files of a tree are the inputs of one step.

    `inputs` and `outputs` are the declared globs. `hidden` are files that are no input unless
    `inputs` names them: the lock files, whose part in the key is the environment. `made` are the
    files that earlier runs of this very step made and that still are as they were made: (path,
    content). A step never sees its own results, or every run would change its own key. `supplied`
    are the outputs of the steps before it: they come from those, whatever stands in the tree.
    """

    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    hidden: tuple[str, ...] = ()
    made: tuple[tuple[str, str], ...] = ()
    supplied: tuple[Entry, ...] = ()

    @property
    def name(self) -> str:
        """Give a digest that names the selection."""
        return digest.of_value(
            "repro/selection",
            [
                None if self.inputs is None else list(self.inputs),
                None if self.outputs is None else list(self.outputs),
                list(self.hidden),
                [list(pair) for pair in self.made],
                [[e.path, e.kind, e.content] for e in self.supplied],
            ],
        )


class Upstream(Value):
    """What a step takes from one before it: its outputs, and which files are known to be its own.

    `patterns` are its declared outputs, `made` what earlier runs of it left in the tree.
    """

    outputs: tuple[Entry, ...]
    patterns: tuple[str, ...] = ()
    made: tuple[tuple[str, str], ...] = ()


def selection(
    entry: EntryPoint,
    made: Mapping[str, str],
    lockfiles: Iterable[str] = (),
    upstream: tuple[Upstream, ...] = (),
) -> Selection:
    """Give what `entry` may see, `made` being the files that it made itself."""
    hidden = tuple(sorted(lockfiles)) if entry.inputs is None else ()
    if not upstream:
        return Selection(
            inputs=entry.inputs,
            outputs=entry.outputs,
            hidden=hidden,
            made=tuple(sorted(made.items())),
        )
    all_made = {**made}
    supplied: dict[str, Entry] = {}
    patterns: dict[str, None] = {}
    for one in upstream:
        all_made |= dict(one.made)
        supplied |= {e.path: e for e in one.outputs}
        patterns |= dict.fromkeys(one.patterns)
    wanted = manifest.matcher(entry.inputs) if entry.inputs is not None else lambda _path: True
    return Selection(
        inputs=entry.inputs,
        outputs=(*(entry.outputs or ()), *patterns) or entry.outputs,
        hidden=(*hidden, *sorted(supplied)),
        made=tuple(sorted(all_made.items())),
        supplied=tuple(e for _path, e in sorted(supplied.items()) if wanted(e.path)),
    )


def select(entries: Iterable[Entry], chosen: Selection, step: str) -> tuple[Entry, ...]:
    """Give the inputs of a step among the files of a tree.

    Raises SourceUnusable for a declared input that is not there, and for a link that leaves the
    tree: what is behind it would be in no key.
    """
    made, hidden = dict(chosen.made), frozenset(chosen.hidden)
    is_input = manifest.matcher(chosen.inputs) if chosen.inputs is not None else None
    is_output = manifest.matcher(chosen.outputs or ())
    found = tuple(
        entry
        for entry in entries
        if (is_input is None or is_input(entry.path))
        and not is_output(entry.path)
        and entry.path not in hidden
        and made.get(entry.path) != entry.content
    )
    found = (*found, *chosen.supplied)
    taken = manifest.clash(found) if chosen.supplied else ""
    if taken:
        raise SourceUnusable(f"`{taken}` is a file and a folder among the inputs of step `{step}`")
    for pattern in chosen.inputs or ():
        if not any(map(manifest.matcher((pattern,)), (entry.path for entry in found))):
            raise SourceUnusable(
                f"the input `{pattern}` of step `{step}` is not there",
                hints=["inputs are paths or globs relative to the project folder"],
            )
    for entry in found:
        if entry.kind == "link" and not manifest.link_stays(entry.path, entry.content):
            raise SourceUnusable(
                f"`{entry.path}` is a link that leaves the project, to `{entry.content}`",
                hints=[
                    "what is behind it would be in no key: pass it as a parameter of type `path`, "
                    "name it under `mounts:`, or leave it out with `inputs:`"
                ],
            )
    return found
