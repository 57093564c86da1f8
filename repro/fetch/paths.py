"""Values of `path` parameters: brought here if they are remote, and known by their content."""

from __future__ import annotations

import os

from repro import digest, manifest
from repro.errors import ParameterInvalid, Unreachable, Unsupported
from repro.fetch import folder
from repro.location import without_credentials
from repro.manifest import Entry
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from repro.params import Argument
    from repro.store.memos import Memos

TIMEOUT = (10, 60)


class Paths:
    """Finds what `path` parameters point to."""

    def __init__(self, memos: Memos, caller: str, progress: Callable[[str], None]) -> None:
        """Take the folder that relative paths start from, and whom to tell of downloads."""
        self.memos = memos
        self.caller = caller
        self.progress = progress

    def local(self, argument: Argument, index: int, storage: Callable[[], str]) -> str:
        """Give the absolute path of a `path` parameter's value.

        Remote files come into `param_<index>` below the folder that `storage` gives, as in
        MLflow. Raises ParameterInvalid where nothing is there.
        """
        text = argument.text or ""
        scheme, colon, rest = text.partition("://")
        if text.startswith("file:") and not colon:
            text = text.removeprefix("file:")
        elif colon and scheme in ("http", "https"):
            return self._download(argument.name, text, os.path.join(storage(), f"param_{index}"))
        elif colon and (scheme != "file" or not rest.startswith("/")):
            raise Unsupported(
                f"parameter `{argument.name}`: `{scheme}` addresses cannot be fetched",
                hints=["give a local path, or an address with http or https"],
            )
        elif colon:
            text = rest
        path = os.path.normpath(os.path.join(self.caller, os.path.expanduser(text)))
        if not text or not os.path.exists(path):
            raise ParameterInvalid(
                f"parameter `{argument.name}`: there is no file or folder `{text}`",
                hints=[f"a relative path starts from the current folder, `{self.caller}`"],
            )
        return path

    def identify(self, path: str) -> str:
        """Give the digest of a file, or of all files below a folder, by its content alone.

        A link that leaves the folder stands for what is behind it. Raises ParameterInvalid for
        what is neither a file nor a folder, or cannot be read.
        """
        known: dict[str, Any] = self.memos.get("path", path) or {"rows": [], "seen_ns": 0}
        before = {row[0]: row for row in known["rows"]}
        seen_ns = folder.now_ns()
        rows: list[list[Any]] = []
        for name, place in _files(os.path.realpath(path)):
            now = folder.row("/", place, before.get(name), known["seen_ns"])
            if now is not None:
                rows.append(now if now[0] == name else [name, *now[1:]])
        if folder.were_read(rows, before):
            self.memos.put("path", path, {"rows": rows, "seen_ns": seen_ns})
        if os.path.isfile(path) and rows:
            return str(rows[0][2])
        if not os.path.isdir(path):
            raise ParameterInvalid(f"`{path}` is neither a file nor a folder")
        return manifest.of(Entry(path=r[0], kind=r[1], content=r[2], size=r[3]) for r in rows)

    def mounted(self, path: str) -> str:
        """Give what stands for a mounted path in the key. Raises ParameterInvalid."""
        if not os.path.exists(path):
            raise ParameterInvalid(
                f"the mount `{path}` is not there", hints=["see `mounts:` in the MLproject"]
            )
        return digest.of_value("repro/mount", self.identify(path))

    def _download(self, name: str, url: str, target: str) -> str:
        import requests

        plain = without_credentials(url)
        self.progress(f"fetching {plain}")
        os.makedirs(target, exist_ok=True)
        last = os.path.basename(plain.rstrip("/"))
        path = os.path.join(target, last if last not in ("", ".", "..") else "file")
        half = f"{path}.{os.urandom(4).hex()}~"
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT) as answer:
                if not answer.ok:
                    code = f"{answer.status_code} {answer.reason}"
                    raise Unreachable(f"parameter `{name}`: the server answers {code}")
                with open(half, "xb") as file:
                    file.writelines(answer.iter_content(files.CHUNK))
            os.replace(half, path)
        except requests.RequestException as error:
            raise Unreachable(
                f"parameter `{name}`: cannot be fetched, {type(error).__name__}",
                hints=["check the address and the network, and run again"],
            ) from None
        finally:
            files.unlink(half)
        return path


def _files(path: str) -> Iterator[tuple[str, str]]:
    """Give the name and the place of a file, or of every file and link below a folder."""
    if not os.path.isdir(path):
        yield ".", path
        return
    seen = {path}
    pending = [("", path)]
    while pending:
        prefix, top = pending.pop()
        for base, folders, names in os.walk(top, onerror=_cannot_list):
            folders.sort()
            links = [name for name in folders if os.path.islink(os.path.join(base, name))]
            for last in sorted([*names, *links]):
                place = os.path.join(base, last)
                name = prefix + place[len(top) + 1 :]
                behind = _behind(place, top)
                if not os.path.isdir(behind):
                    yield name, behind
                elif behind in seen:
                    yield name, place
                else:
                    seen.add(behind)
                    pending.append((f"{name}/", behind))


def _behind(place: str, top: str) -> str:
    """Give what a link stands for: itself, as long as it stays in the folder or leads nowhere."""
    if not os.path.islink(place):
        return place
    real = os.path.realpath(place)
    by_text = manifest.link_stays(place[len(top) + 1 :], os.readlink(place))
    if by_text and (real == top or real.startswith(f"{top}/")):
        return place
    return real if os.path.exists(real) else place


def _cannot_list(error: OSError) -> None:
    raise ParameterInvalid(f"`{error.filename}` cannot be listed: {(error.strerror or '').lower()}")
