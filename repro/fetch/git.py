"""Git remotes: one bare mirror each, trees read object by object, nothing of them ever run.

No checkout takes place, so that no hook, filter, attribute or configuration of a foreign
repository has an effect: `ls-tree` names the files and `cat-file` gives their bytes.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess

from repro import digest, location
from repro.errors import SourceRefused, SourceUnusable, Unreachable, UsageError
from repro.fetch.stored import keep
from repro.manifest import Entry
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from repro.location import Location
    from repro.store.blobs import Blobs
    from repro.store.home import Home
    from repro.store.memos import Memos

MODES = {"100644": "file", "100664": "file", "100755": "exec", "120000": "link"}
SUBMODULE = "160000"
NO_SUCH_COMMAND = 127
ASKED = ("authentication", "username", "password", "permission denied", "403")
LFS = b"version https://git-lfs.github.com/spec/v1\n"
LFS_LARGEST = 1024
MAX_DEPTH = 10
PROTOCOLS = "https:ssh:git:file"
CONFIGURATION = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "fetch.writeCommitGraph": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.lowSpeedLimit": "1",  # bytes a second: a server that is silent for a minute is given up
    "http.lowSpeedTime": "60",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
    "protocol.fd.allow": "never",
    "transfer.bundleURI": "false",
}


class Mirror:
    """The bare mirror of one remote, or the object store of a local repository, only read."""

    def __init__(self, place: Location, home: Home, *, local: bool = False) -> None:
        """Name the remote; nothing is fetched before it is needed."""
        self.place = place
        self.home = home
        self.local = local
        self.ssh = ""
        name = digest.of_value("repro/mirror", place.public)
        self.path = place.address if local else home.path("git", f"{name[:32]}.git")

    # -- versions

    def resolve(self, version: str) -> tuple[str, str]:
        """Give the full commit id and the branch, if it is one, that `version` names now.

        An empty version is the remote's HEAD. A full commit that is here needs no network.
        Raises Unreachable, and UsageError for a version that is not there.
        """
        if version:
            location.check_version(version)
        if self.local:
            return self._resolve_here(version)
        if location.is_commit(version):
            return self._with_commit(version.lower()), ""
        refs = self._refs()
        for name, branch in ((f"refs/heads/{version}", version), (f"refs/tags/{version}", "")):
            if version and name in refs:
                return self._with_commit(refs.get(f"{name}^{{}}", refs[name]), name), branch
        if not version:
            return self._with_commit(self._head(refs), "HEAD"), ""
        if location.is_abbreviated(version):
            return self._abbreviated(version), ""
        raise self._unknown(version, refs)

    def _resolve_here(self, version: str) -> tuple[str, str]:
        names = [(f"refs/heads/{version}", version), (f"refs/tags/{version}", ""), (version, "")]
        for name, branch in names[2:] if location.is_commit(version) else names:
            found = self._commit(name)
            if found:
                return found, branch
        refs = os.fsdecode(self._ask("for-each-ref", "--format=%(refname)") or b"")
        raise self._unknown(version, refs.splitlines())

    def _commit(self, name: str) -> str:
        """Give the commit that a name stands for among what is here, or an empty text."""
        found = self._ask("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
        return found.decode().strip() if found else ""

    def _refs(self) -> dict[str, str]:
        out = self._remote("ls-remote", "--", self.place.address)
        rows = [line.partition("\t") for line in out.splitlines()]
        return {name: oid for oid, _tab, name in rows}

    def _head(self, refs: dict[str, str]) -> str:
        if "HEAD" not in refs:
            raise UsageError(
                f"the remote `{self.place.public}` has no commit yet",
                hints=["name a branch with `--version`"],
            )
        return refs["HEAD"]

    def _with_commit(self, commit: str, ref: str = "") -> str:
        """Make sure that a commit is here, fetching as little as the server allows."""
        if self.has(commit):
            return commit
        for name in (commit, ref) if ref else (commit,):
            try:
                self._fetch(name)
            except Unreachable:
                continue  # a server may refuse to give single commits
            if self.has(commit):
                return commit
        self._fetch("+refs/*:refs/*", whole=True)
        if self.has(commit):
            return commit
        raise self._unknown(commit, {})

    def _abbreviated(self, version: str) -> str:
        """Find the commit whose id begins so; only a full history can tell."""
        self._fetch("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", whole=True)
        found = self._commit(version.lower())
        if not found:
            raise self._unknown(version, {})
        return found

    def has(self, commit: str) -> bool:
        """Say whether a commit and its tree are here."""
        return (
            os.path.isdir(self.path)
            and self._ask("cat-file", "-e", f"{commit}^{{tree}}") is not None
        )

    def _unknown(self, version: str, refs: Iterable[str]) -> UsageError:
        names = {
            name.split("/", 2)[2]
            for name in refs
            if name.startswith(("refs/heads/", "refs/tags/")) and not name.endswith("^{}")
        }
        from repro.decode import nearest

        near = nearest(version, sorted(names))
        hint = "give a branch, a tag, or a full or abbreviated commit"
        if near:
            hint = f"a similar version exists: `{near}`"
        elif names:
            hint = f"versions: {', '.join(sorted(names)[:8])}"
        return UsageError(f"`{self.place.public}` has no version `{version}`", hints=[hint])

    # -- fetching

    def _fetch(self, *names: str, whole: bool = False) -> None:
        """Fetch what some refs name: with all of its history, or the commits alone."""
        self._make()
        with self.home.lock(f"git-{os.path.basename(self.path)}"):
            self._unlock()
            depth = ["--depth=1"]
            if whole:
                is_shallow = os.path.exists(os.path.join(self.path, "shallow"))
                depth = ["--unshallow"] if is_shallow else []
            self._remote(
                *("--git-dir", self.path, "fetch", "--no-write-fetch-head", "--force"),
                *("--no-auto-maintenance", "--no-recurse-submodules", "--no-tags", *depth),
                *("--", self.place.address, *names),
            )

    def _unlock(self) -> None:
        """Remove the locks of a fetch that was killed; we hold the one lock that counts."""
        for base, folders, names in os.walk(self.path):
            if base == self.path:
                folders[:] = ["refs"]
            for name in names:
                if name.endswith(".lock"):
                    files.unlink(os.path.join(base, name))

    def _make(self) -> None:
        if not os.path.isdir(self.path):
            half = os.path.join(self.home.scratch(), os.urandom(8).hex())
            self._remote("init", "--quiet", "--bare", "--template=", half)
            try:
                os.rename(half, self.path)
            except OSError:
                pass  # another process was quicker

    def _remote(self, *arguments: str) -> str:
        """Run a Git command for this remote. Raises Unreachable, with no credentials in it."""
        try:
            import git
        except ImportError:  # what GitPython says to a missing Git
            raise _no_git() from None
        ours = variables(self.place.address)
        # no repository around the store has a say in what is fetched into it
        ours["GIT_CEILING_DIRECTORIES"] = os.path.dirname(self.home.root)
        if not {"GIT_SSH", "GIT_SSH_COMMAND"} & ours.keys():
            self.ssh = self.ssh or _ssh()
            ours["GIT_SSH_COMMAND"] = self.ssh
        theirs = [name for name in os.environ if name.startswith("GIT_") and name not in ours]
        # GitPython adds to our variables, but never leaves one out
        without = [word for name in theirs for word in ("-u", name)]
        code, out, said = git.Git(self.home.root).execute(
            ["env", *without, "git", *configuration(), *arguments],
            env=ours,
            with_extended_output=True,
            with_exceptions=False,
            strip_newline_in_stdout=False,
        )
        if code == NO_SUCH_COMMAND:
            raise _no_git()
        if code:
            raise self._unreachable(str(said))
        return str(out)

    def _unreachable(self, said: str) -> Unreachable:
        text = said.replace(self.place.address, self.place.public)
        lines = [line.strip() for line in text.splitlines()]
        told = [ln for ln in lines if ln.startswith(("fatal:", "ERROR:", "error:", "remote:"))]
        reason = (told or [ln for ln in lines if ln] or ["no answer"])[0]
        reason = re.sub(r"(://)[^/@\s]+@", r"\1", reason)
        hints = ["check the address and the network, and run again"]
        if any(word in said.lower() for word in ASKED):
            hints = [
                "the remote asks who you are: set up a credential helper or an ssh key, "
                "so that `git ls-remote` works there without asking"
            ]
        return Unreachable(f"cannot fetch from `{self.place.public}`: {reason}", hints=hints)

    # -- objects

    def _ask(self, *arguments: str) -> bytes | None:
        """Ask about objects that are here; None where Git has no answer."""
        done = subprocess.run(
            self._here(*arguments),
            env=variables("") | ONLY_HERE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return done.stdout if done.returncode == 0 else None

    def _here(self, *arguments: str) -> list[str]:
        # a mirror is itself or nothing: Git must not look for a repository around it
        where = ("-C", self.path) if self.local else ("--git-dir", self.path)
        return ["git", *configuration(), *where, *arguments]

    def tree(self, commit: str, into: Importer) -> list[Entry]:
        """Bring all files of a commit into the store and give them, submodules included."""
        out = self._ask("ls-tree", "-r", "-z", "--full-tree", commit)
        if out is None:
            raise SourceUnusable(f"the tree of commit {commit[:12]} cannot be read")
        rows = [_row(record) for record in out.split(b"\0") if record]
        wanted = [oid for mode, oid, _path in rows if mode != SUBMODULE]
        contents = self._blobs(wanted)
        entries = []
        for mode, oid, path in rows:
            if mode == SUBMODULE:
                entries += self._submodule(commit, path, oid, into)
            else:
                entries.append(_entry(mode, path, next(contents), into))
        return entries

    def _blobs(self, oids: list[str]) -> Iterator[bytes]:
        """Give the bytes of objects, in the order asked for, one at a time."""
        process = subprocess.Popen(
            self._here("cat-file", "--batch"),
            env=variables("") | ONLY_HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None  # noqa: S101  (it was asked for)
        assert process.stdout is not None  # noqa: S101
        with process:
            for oid in oids:
                process.stdin.write(oid.encode() + b"\n")
                process.stdin.flush()
                header = process.stdout.readline().split()
                if len(header) != 3 or header[1] != b"blob":  # noqa: PLR2004  (oid, kind, size)
                    raise SourceUnusable(f"object {oid[:12]} of `{self.place.public}` is missing")
                data = process.stdout.read(int(header[2]))
                process.stdout.read(1)
                yield data
            process.stdin.close()

    def _submodule(self, commit: str, path: str, oid: str, into: Importer) -> list[Entry]:
        url = self._submodule_url(commit, path)
        if url is None:
            raise SourceUnusable(f"the submodule `{path}` is not described in `.gitmodules`")
        if into.depth >= MAX_DEPTH:
            raise SourceUnusable(f"submodules are nested deeper than {MAX_DEPTH} at `{path}`")
        place = location.parse(url, _is_path)
        if place.kind == "zip":
            raise SourceRefused(f"the submodule `{path}` names an archive, `{place.public}`")
        if place.kind == "folder" and not (self.local or _is_path(self.place.address)):
            raise SourceRefused(f"the submodule `{path}` names a local path, `{url}`")
        inner = Mirror(replace(place, kind="git"), self.home)
        into.progress(f"fetching submodule {path} from {place.public}")
        inner_commit, _ = inner.resolve(oid)
        below = into.deeper()
        return [_prefixed(path, entry) for entry in inner.tree(inner_commit, below)]

    def _submodule_url(self, commit: str, path: str) -> str | None:
        text = self._ask("config", "--blob", f"{commit}:.gitmodules", "-z", "--list") or b""
        values: dict[str, str] = {}
        for record in text.split(b"\0"):
            name, _, setting = os.fsdecode(record).partition("\n")
            values[name] = setting
        for name, setting in values.items():
            if name.startswith("submodule.") and name.endswith(".path") and setting == path:
                url = values.get(name[: -len("path")] + "url", "")
                return self._absolute(url) if url else None
        return None

    def _absolute(self, url: str) -> str:
        """Resolve `./` and `../` against the address of this remote, as Git does."""
        if not url.startswith(("./", "../")):
            return url
        base = self.place.address.rstrip("/")
        if self.local:
            origin = self._ask("config", "remote.origin.url")
            base = os.fsdecode(origin.strip()).rstrip("/") if origin else base
        scheme, colon, rest = base.partition("://")
        head, _, tail = rest.partition("/") if colon else ("", "", base)
        if not colon and not base.startswith("/"):
            head, _, tail = base.partition(":")
            return f"{head}:{posixpath.normpath(posixpath.join(tail, url))}"
        joined = posixpath.normpath(posixpath.join("/" + tail if colon else tail, url))
        return f"{scheme}://{head}{joined}" if colon else joined


class Importer:
    """Takes the bytes of fetched files into the store."""

    def __init__(self, blobs: Blobs, progress: Callable[[str], None], depth: int = 0) -> None:
        """Take the store and whom to tell of progress."""
        self.blobs = blobs
        self.progress = progress
        self.depth = depth

    def deeper(self) -> Importer:
        """Give an importer for what is nested inside."""
        return Importer(self.blobs, self.progress, self.depth + 1)


def fetch_tree(
    mirror: Mirror, commit: str, blobs: Blobs, memos: Memos, progress: Callable[[str], None]
) -> str:
    """Give the manifest digest of a commit, known or imported."""
    known = memos.get("commit", _subject(mirror, commit))
    if isinstance(known, str) and blobs.has(known):
        return known
    return import_tree(mirror, commit, blobs, memos, progress)


def import_tree(
    mirror: Mirror, commit: str, blobs: Blobs, memos: Memos, progress: Callable[[str], None]
) -> str:
    """Bring all files of a commit into the store and give their manifest digest.

    It is known again by the commit id alone, which names the tree and its submodules. Raises
    SourceUnusable for trees with paths that no tree may have.
    """
    progress(f"reading commit {commit[:12]}")
    whole = keep(mirror.tree(commit, Importer(blobs, progress)), blobs)
    memos.put("commit", _subject(mirror, commit), whole)
    return whole


def _subject(mirror: Mirror, commit: str) -> str:
    # Git checks the objects that it fetches; those of a local repository may not be what their
    # names say, and must not stand for the commit elsewhere
    return f"{commit} of {mirror.path}" if mirror.local else commit


def configuration() -> list[str]:
    """Give the options that keep a foreign repository from having an effect."""
    return [part for name, setting in CONFIGURATION.items() for part in ("-c", f"{name}={setting}")]


def variables(address: str) -> dict[str, str]:
    """Give the environment of Git: the caller's, without what could redirect it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEPT}
    loopback = address.startswith("http://")
    return kept | {
        "GIT_ALLOW_PROTOCOL": PROTOCOLS + (":http" if loopback else ""),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ASKPASS": kept.get("GIT_ASKPASS", ""),
        "LC_ALL": "C",
    }


_KEPT = (
    "GIT_ASKPASS",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_SSL_CERT",
    "GIT_SSL_KEY",
    "GIT_SSL_NO_VERIFY",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_PROXY_COMMAND",
    "GIT_HTTP_LOW_SPEED_LIMIT",
    "GIT_HTTP_LOW_SPEED_TIME",
)


def _no_git() -> Unreachable:
    hint = "install Git to run projects from a remote"
    return Unreachable("there is no `git` on PATH", hints=[hint])


def _ssh() -> str:
    """Give the ssh command that the user has set up, or one that never asks."""
    done = subprocess.run(
        ["git", "config", "--global", "core.sshCommand"],  # noqa: S607  (the caller's own git)
        env=variables(""),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return os.fsdecode(done.stdout).strip() or "ssh -o BatchMode=yes"


ONLY_HERE = {
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # for a Git too old to know the line above
}


def _is_path(address: str) -> bool:
    """Tell a path from an scp-like address, as Git does: by what stands before the first `/`."""
    return "://" not in address and ":" not in address.partition("/")[0]


def _row(record: bytes) -> tuple[str, str, str]:
    facts, _, path = record.partition(b"\t")
    mode, _kind, oid = facts.decode("ascii").split()
    return mode, oid, os.fsdecode(path)


def _entry(mode: str, path: str, data: bytes, into: Importer) -> Entry:
    kind = MODES.get(mode)
    if kind is None:
        raise SourceUnusable(f"`{path}` has the unknown mode {mode}")
    if kind == "link":
        return Entry(path=path, kind=kind, content=os.fsdecode(data), size=len(data))
    if data.startswith(LFS) and len(data) < LFS_LARGEST:
        raise SourceUnusable(
            f"`{path}` is kept in Git LFS, which is not fetched",
            hints=["clone the project with `git lfs` and run it from the local folder"],
        )
    return Entry(path=path, kind=kind, content=into.blobs.put(data), size=len(data))


def _prefixed(path: str, entry: Entry) -> Entry:
    return Entry(
        path=f"{path}/{entry.path}", kind=entry.kind, content=entry.content, size=entry.size
    )
