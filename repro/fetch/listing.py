"""Which files of a folder belong to a project: what Git does not ignore, or everything.

Git is only asked, and nothing of a repository is run: hooks, monitors, filters and lazy fetches
that its own configuration names are out of force.
"""

from __future__ import annotations

import os
import subprocess

from repro.errors import SourceUnusable
from repro.fetch.folder import NEVER
from repro.location import without_credentials
from repro.store.placement import is_half
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SAFE = (
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.quotePath=false",
    "-c",
    "diff.autoRefreshIndex=false",
)
VARIABLES = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # for a Git too old to know the line above
    "LC_ALL": "C",
}
OWN = (b"local", b"worktree")
FILTER_OFF = {"clean": "", "smudge": "", "process": "", "required": "false"}
UNWATCHED = "Shs"
"""How `git ls-files -v` marks files whose changes `git status` does not see."""
UNKNOWN: dict[str, object] = {"commit": "", "branch": "", "repo_url": "", "dirty": False}


class Listing(Value):
    """The files of a project with all that must stay as it is for the list to hold.

    `folders` are relative to the root; a new file in one of them could belong to the project.
    `guards` are absolute paths of files that decide what belongs to it.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    guards: tuple[str, ...]
    git: Mapping[str, object]


class _Repository:
    """What one Git work tree says of the folder below which we list."""

    def __init__(self, folder: str, *, ask: bool = True) -> None:
        self.folder = folder
        names = ("--show-toplevel", "--absolute-git-dir", "--git-common-dir")
        self.top, self.git_dir, common = places(folder, *names) if ask else ("", "", "")
        self.common = os.path.normpath(os.path.join(folder, common)) if common else ""
        self.ignored: set[str] = set()
        self.tracked: set[str] = set()
        self.dirty = False
        self.head = self.branch = ""
        if self.top:
            self._read_status()

    def _read_status(self) -> None:
        out = unfiltered(
            self.folder,
            *("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all"),
            *("--ignored=matching", "--ignore-submodules=dirty", "--no-renames", "--", "."),
        )
        if out is None:
            raise SourceUnusable(
                f"`git status` fails in `{self.folder}`", hints=["run it there to see why"]
            )
        self._parse(out)
        listed = os.fsdecode(run(self.folder, "ls-files", "-v", "-z") or b"").split("\0")
        self.tracked = {record[2:] for record in listed if record}
        if any(record[:1] in UNWATCHED for record in listed if record):
            self.dirty = True

    def _parse(self, out: bytes) -> None:
        prefix = os.path.relpath(self.folder, self.top)
        prefix = "" if prefix == "." else prefix + "/"
        for text in os.fsdecode(out).split("\0"):
            if text.startswith("# branch.oid "):
                oid = text.removeprefix("# branch.oid ")
                self.head = "" if oid == "(initial)" else oid
            elif text.startswith("# branch.head "):
                head = text.removeprefix("# branch.head ")
                self.branch = "" if head == "(detached)" else head
            elif text.startswith("! "):
                self.ignored.add(text[2:].removeprefix(prefix).rstrip("/"))
            elif text[:1] in ("1", "u") or (text[:1] == "?" and not _is_never(text[2:])):
                self.dirty = True

    def guards(self) -> list[str]:
        """Give the files that say what belongs to the work tree and which commit it is.

        Without a work tree, these are the places where one could begin.
        """
        found = [place for f in (self.folder, *_above(self.folder, "/")) for place in git_places(f)]
        if not self.top:
            return found
        home = os.path.expanduser("~")
        xdg = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        found += [
            os.path.join(self.git_dir, "HEAD"),
            os.path.join(self.git_dir, "index"),
            os.path.join(self.common, "packed-refs"),
            os.path.join(self.common, "objects"),
            os.path.join(self.common, "config"),
            os.path.join(self.git_dir, "config.worktree"),
            os.path.join(self.common, "info", "exclude"),
            "/etc/gitconfig",
            os.path.join(home, ".gitconfig"),
            os.path.join(xdg, "git", "config"),
            os.path.join(xdg, "git", "ignore"),
        ]
        if self.branch:
            found.append(os.path.join(self.common, "refs", "heads", self.branch))
        excludes = run(self.folder, "config", "--path", "core.excludesFile")
        if excludes:
            found.append(os.path.join(self.top, os.fsdecode(excludes.strip())))
        found += [os.path.join(self.folder, path) for path in self._origins()]
        found += [os.path.join(f, ".gitignore") for f in _above(self.folder, self.top)]
        return found

    def _origins(self) -> list[str]:
        """Give the files that Git takes settings from, included ones among them."""
        out = run(self.folder, "config", "--list", "--show-origin", "--name-only", "-z") or b""
        fields = os.fsdecode(out).split("\0")
        return [f.removeprefix("file:") for f in dict.fromkeys(fields) if f.startswith("file:")]

    def holds(self, path: str) -> bool:
        """Say whether a path is neither ignored nor half-written by us; tracked files never are."""
        is_apart = path in self.ignored or is_half(os.path.basename(path))
        return not is_apart or path in self.tracked

    def is_ignored(self) -> bool:
        """Say whether the repository around the folder ignores it as a whole."""
        if not self.top or self.top == self.folder or self.tracked:
            return False
        return run(self.folder, "check-ignore", "--quiet", ".") is not None

    def tracked_below(self, path: str) -> bool:
        """Say whether an ignored folder holds files that are tracked all the same."""
        return any(name.startswith(f"{path}/") for name in self.tracked)


def of(root: str, *, avoid: str = "") -> Listing:
    """List the project in `root`, with the submodules and other repositories inside it."""
    if not os.path.isdir(root):
        raise SourceUnusable(f"`{root}` is not a folder")
    outer = _Repository(root)
    guards = outer.guards()
    if outer.is_ignored():
        outer = _Repository(root, ask=False)
    found: list[str] = []
    folders: list[str] = []
    avoid = os.path.realpath(avoid) if avoid else ""
    _walk(root, "", outer, (found, folders, guards), avoid)
    git = dict(UNKNOWN)
    if outer.top:
        git = {
            "commit": outer.head,
            "branch": outer.branch,
            "repo_url": remote_of(root),
            "dirty": outer.dirty,
        }
    return Listing(
        files=tuple(sorted(found, key=os.fsencode)),
        folders=tuple(folders),
        guards=tuple(dict.fromkeys(guards)),
        git=git,
    )


def git_places(folder: str) -> list[str]:
    """Give what changes when a repository begins, moves or ends in a folder."""
    place = os.path.join(folder, ".git")
    return [os.path.join(place, "HEAD")] if os.path.isdir(place) else [place]


def remote_of(folder: str) -> str:
    """Give the URL of a repository's first remote, without credentials."""
    names = (run(folder, "remote") or b"").split()
    if not names:
        return ""
    url = run(folder, "config", f"remote.{os.fsdecode(names[0])}.url") or b""
    return without_credentials(os.fsdecode(url.strip()))


def _walk(
    root: str,
    base: str,
    repository: _Repository,
    into: tuple[list[str], list[str], list[str]],
    avoid: str,
) -> None:
    """Go through the folders of one repository, and into those inside it."""
    found, folders, guards = into
    pending = [base]
    while pending:
        folder = pending.pop()
        folders.append(folder)
        for entry in _scan(os.path.join(root, folder)):
            path = f"{folder}/{entry.name}" if folder else entry.name
            inner = path[len(base) :].lstrip("/")
            if entry.name in NEVER or entry.path == avoid:
                continue
            if not entry.is_dir(follow_symlinks=False):
                if repository.holds(inner):
                    found.append(path)
                elif entry.name == ".gitignore":
                    guards.append(entry.path)
            elif not (repository.holds(inner) or repository.tracked_below(inner)):
                continue
            elif os.path.lexists(os.path.join(entry.path, ".git")):
                below = _Repository(entry.path)
                guards += below.guards()
                _walk(root, path, below, into, avoid)
                repository.dirty |= below.dirty
            else:
                pending.append(path)


def _scan(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise SourceUnusable(
            f"`{folder}` cannot be listed: {(error.strerror or '').lower()}",
            hints=["make it readable, or ignore it in Git"],
        ) from None


def _above(folder: str, top: str) -> Iterator[str]:
    """Give the folders around a folder, up to `top`."""
    while folder not in (top, "/"):
        folder = os.path.dirname(folder)
        yield folder


def _is_never(path: str) -> bool:
    return is_half(os.path.basename(path)) or any(part in NEVER for part in path.split("/"))


def places(folder: str, *names: str) -> list[str]:
    """Give what `git rev-parse` answers to each of `names`; empty texts where it has no answer."""
    out = run(folder, "rev-parse", *names)
    if out is None:
        return [""] * len(names)
    found = out.split(b"\n")[:-1]
    if len(found) != len(names):  # a path with a line break
        found = [(run(folder, "rev-parse", name) or b"\n")[:-1] for name in names]
    return [os.fsdecode(line) for line in found]


def unfiltered(folder: str, *arguments: str) -> bytes | None:
    """Ask Git what it looks into files for, without the filters of the repository's own making.

    Those are commands; the ones that the user has set up for all repositories are in force.
    """
    out = run(folder, "config", "--null", "--show-scope", "--get-regexp", r"^filter\.") or b""
    fields = out.split(b"\0")
    own = [key for scope, key in zip(fields[::2], fields[1::2], strict=False) if scope in OWN]
    drivers = {os.fsdecode(key.partition(b"\n")[0]).rpartition(".")[0] for key in own}
    settings = [(f"{d}.{key}", off) for d in sorted(drivers) for key, off in FILTER_OFF.items()]
    variables = {"GIT_CONFIG_COUNT": str(len(settings))}
    for index, (name, setting) in enumerate(settings):
        variables |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": setting}
    return run(folder, *arguments, variables=variables)


def run(folder: str, *arguments: str, variables: Mapping[str, str] | None = None) -> bytes | None:
    """Ask Git about a work tree without touching it; None where it has no answer."""
    if not os.path.isdir(folder):
        return None
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *SAFE, *arguments],  # noqa: S607  (the caller's own git)
            cwd=folder,
            env={**kept, **VARIABLES, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError:
        return None  # no git here: then nothing is a repository
    return done.stdout if done.returncode == 0 else None
