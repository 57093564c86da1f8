"""Values of `path` parameters: brought here if they are remote, and known by their content."""

from __future__ import annotations

import os
import stat

from repro import digest, manifest
from repro.errors import ParameterInvalid, Unreachable, Unsupported
from repro.fetch import folder
from repro.manifest import Entry

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
        """Give the digest of a file, or of all files below a folder, by its content alone."""
        known: dict[str, Any] = self.memos.get("path", path) or {"rows": [], "seen_ns": 0}
        rows = {row[0]: row for row in known["rows"]}
        seen_ns = folder.now_ns()
        found = [
            folder.row(base, name, rows.get(name), known["seen_ns"]) for base, name in _files(path)
        ]
        settled = [row for row in found if row is not None]
        if settled != known["rows"]:
            self.memos.put("path", path, {"rows": settled, "seen_ns": seen_ns})
        if not os.path.isdir(path):
            return str(settled[0][2])
        return manifest.of(Entry(path=r[0], kind=r[1], content=r[2], size=r[3]) for r in settled)

    def mounted(self, path: str) -> str:
        """Give what stands for a mounted path in the key. Raises ParameterInvalid."""
        if not os.path.exists(path):
            raise ParameterInvalid(
                f"the mount `{path}` is not there", hints=["see `mounts:` in the MLproject"]
            )
        return digest.of_value("repro/mount", self.identify(path))

    def _download(self, name: str, url: str, target: str) -> str:
        import requests

        self.progress(f"fetching {url.partition('?')[0]}")
        os.makedirs(target, exist_ok=True)
        path = os.path.join(target, os.path.basename(url.partition("?")[0].rstrip("/")) or "file")
        try:
            with (
                requests.get(url, stream=True, timeout=TIMEOUT) as answer,
                open(path, "wb") as file,
            ):
                if not answer.ok:
                    raise Unreachable(
                        f"parameter `{name}`: the server answers {answer.status_code} "
                        f"{answer.reason}"
                    )
                file.writelines(answer.iter_content(1 << 20))
        except requests.RequestException as error:
            raise Unreachable(
                f"parameter `{name}`: cannot be fetched, {type(error).__name__}",
                hints=["check the address and the network, and run again"],
            ) from None
        return path


def _files(path: str) -> Iterator[tuple[str, str]]:
    """Give (base, name) of a file, or of every file and link below a folder, in one order."""
    real = os.path.realpath(path)
    if not stat.S_ISDIR(os.stat(real).st_mode):
        yield os.path.dirname(real), os.path.basename(real)
        return
    for base, folders, names in os.walk(real):
        folders.sort()
        links = [n for n in folders if os.path.islink(os.path.join(base, n))]
        for name in sorted([*names, *links]):
            yield real, os.path.relpath(os.path.join(base, name), real)
