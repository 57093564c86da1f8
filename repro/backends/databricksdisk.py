"""Files of a workspace that its clusters see as a folder: DBFS, or a volume of Unity Catalog."""

from __future__ import annotations

import base64
import functools
import os
from urllib.parse import quote

from repro.backends.databricksrest import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol, TypeVar

    from repro.backends.databricksrest import Client

    T = TypeVar("T")

    class Disk(Protocol):
        """Files below a root. Names are relative to it. Raises Down and Refused."""

        root: str
        uri: str
        seen: str

        def write(self, name: str, data: bytes) -> None:
            """Write a file, with the folders above it."""

        def upload(self, name: str, source: str) -> None:
            """Write a file of this machine there."""

        def read(self, name: str) -> bytes | None:
            """Give a file of fewer than a million bytes, None where there is none. Asks once."""

        def download(self, name: str, target: str) -> bool:
            """Write a file of there here; say whether it was there."""

        def files(self, folder: str) -> dict[str, tuple[int, int]]:
            """Give the files right in a folder, with size and time of change in milliseconds."""

        def discard(self, name: str) -> None:
            """Remove a file, if it is there."""

        def remove(self, folder: str) -> None:
            """Remove a folder with all below it, if it is there. Gives up after a while."""


LIMIT = 1_000_000  # bytes in one call of DBFS; it says 1 MB
TIDYING = 120.0  # seconds to try to remove what is not needed any more
DBFS, FS = "/api/2.0/dbfs", "/api/2.0/fs"


def disk(client: Client, folder: str, mount: str) -> Disk:
    """Give what `folder` names: `dbfs:/…`, or `/Volumes/…`."""
    if folder.startswith("/Volumes/"):
        return Volume(client, folder)
    return Dbfs(client, folder.removeprefix("dbfs:"), mount)


class Dbfs:
    """A folder of DBFS, which nodes see below `/dbfs`."""

    def __init__(self, client: Client, root: str, mount: str) -> None:
        """Name the folder, and where nodes see DBFS."""
        self._client = client
        self.root = "/" + root.strip("/")
        self.uri = f"dbfs:{self.root}"
        self.seen = mount.rstrip("/") + self.root

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file, with the folders above it."""
        if len(data) <= LIMIT:
            body = {"path": self._path(name), "contents": _packed(data), "overwrite": True}
            self._client.insist("POST", f"{DBFS}/put", body=body)
        else:
            pieces = [data[at : at + LIMIT] for at in range(0, len(data), LIMIT)]
            self._client.patiently(lambda: self._stream(name, iter(pieces)))

    def upload(self, name: str, source: str) -> None:
        """Write a file of this machine there."""
        with open(source, "rb") as file:
            if os.fstat(file.fileno()).st_size <= LIMIT:
                self.write(name, file.read())
                return

            def anew() -> None:
                file.seek(0)
                self._stream(name, iter(lambda: file.read(LIMIT), b""))

            self._client.patiently(anew)

    def _stream(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write in pieces. A call that was not answered may have come through: then all anew."""
        body = {"path": self._path(name), "overwrite": True}
        handle = self._client.ask("POST", f"{DBFS}/create", body=body)["handle"]
        for piece in pieces:
            block = {"handle": handle, "data": _packed(piece)}
            self._client.ask("POST", f"{DBFS}/add-block", body=block)
        self._client.ask("POST", f"{DBFS}/close", body={"handle": handle})

    def read(self, name: str) -> bytes | None:
        """Give a file of fewer than a million bytes, None where there is none. Asks once."""
        return _if_there(lambda: self._piece(name, 0))

    def _piece(self, name: str, at: int) -> bytes:
        query = {"path": self._path(name), "offset": at, "length": LIMIT}
        answer = self._client.ask("GET", f"{DBFS}/read", query=query)
        return base64.b64decode(answer.get("data") or "")

    def download(self, name: str, target: str) -> bool:
        """Write a file of there here; say whether it was there."""
        at = 0
        with open(target, "wb") as file:
            while (piece := self._insisted(name, at)) is not None:
                file.write(piece)
                at += len(piece)
                if len(piece) < LIMIT:
                    return True
        return False

    def _insisted(self, name: str, at: int) -> bytes | None:
        return _if_there(lambda: self._client.patiently(lambda: self._piece(name, at)))

    def files(self, folder: str) -> dict[str, tuple[int, int]]:
        """Give the files right in a folder, with size and time of change in milliseconds."""
        query = {"path": self._path(folder)}
        found = _if_there(lambda: self._client.insist("GET", f"{DBFS}/list", query=query)) or {}
        return {
            str(one["path"]).rpartition("/")[2]: (
                int(one.get("file_size", 0)),
                int(one.get("modification_time", 0)),
            )
            for one in found.get("files", ())
            if not one.get("is_dir")
        }

    def discard(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._delete({"path": self._path(name)})

    def remove(self, folder: str) -> None:
        """Remove a folder with all below it, if it is there. Gives up after a while."""
        # A big folder goes a part at a time, each answered as if the workspace were busy.
        self._delete({"path": self._path(folder), "recursive": True})

    def _delete(self, body: dict[str, Any]) -> None:
        ask = functools.partial(self._client.ask, "POST", f"{DBFS}/delete", body=body)
        _if_there(lambda: self._client.patiently(ask, TIDYING))


class Volume:
    """A folder in a volume of Unity Catalog, which nodes see at its own path."""

    def __init__(self, client: Client, root: str) -> None:
        """Name the folder."""
        self._client = client
        self.root = self.seen = root.rstrip("/")
        self.uri = f"dbfs:{self.root}"

    def _file(self, name: str) -> str:
        return f"{FS}/files{quote(self.root)}/{quote(name)}"

    def _folder(self, name: str) -> str:
        return f"{FS}/directories{quote(self.root)}/{quote(name)}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file, with the folders above it."""
        self._send(name, data)

    def upload(self, name: str, source: str) -> None:
        """Write a file of this machine there."""
        with open(source, "rb") as file:
            self._send(name, file if os.fstat(file.fileno()).st_size else b"")

    def _send(self, name: str, data: Any) -> None:
        query = {"overwrite": "true"}
        try:
            self._client.insist("PUT", self._file(name), query=query, data=data)
        except Refused as error:
            if not error.is_missing:
                raise
            self._client.insist("PUT", self._folder(os.path.dirname(name)))
            self._client.insist("PUT", self._file(name), query=query, data=data)

    def read(self, name: str) -> bytes | None:
        """Give a file of fewer than a million bytes, None where there is none. Asks once."""
        return _if_there(lambda: self._client.content(self._file(name)))

    def download(self, name: str, target: str) -> bool:
        """Write a file of there here; say whether it was there."""

        def fetched() -> bool:
            self._client.fetch(self._file(name), target)
            return True

        return bool(_if_there(lambda: self._client.patiently(fetched)))

    def files(self, folder: str) -> dict[str, tuple[int, int]]:
        """Give the files right in a folder, with size and time of change in milliseconds."""
        return {
            str(one["path"]).rpartition("/")[2]: (
                int(one.get("file_size", 0)),
                int(one.get("last_modified", 0)),
            )
            for one in self._listed(folder)
            if not one.get("is_directory")
        }

    def _listed(self, folder: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page = self._page(folder, "")
        while page is not None:
            found += page.get("contents", ())
            token = page.get("next_page_token")
            page = self._page(folder, token) if token else None
        return found

    def _page(self, folder: str, token: str) -> dict[str, Any] | None:
        query = {"page_token": token} if token else {}
        return _if_there(lambda: self._client.insist("GET", self._folder(folder), query=query))

    def discard(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._delete(self._file(name))

    def remove(self, folder: str) -> None:
        """Remove a folder with all below it, if it is there. Gives up after a while."""
        for one in self._listed(folder):
            inside = f"{folder}/{str(one['path']).rpartition('/')[2]}"
            if one.get("is_directory"):
                self.remove(inside)
            else:
                self.discard(inside)
        self._delete(self._folder(folder))

    def _delete(self, path: str) -> None:
        ask = functools.partial(self._client.ask, "DELETE", path)
        _if_there(lambda: self._client.patiently(ask, TIDYING))


def _packed(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _if_there(do: Callable[[], T]) -> T | None:
    """Do it; give None where what it is done with is not there."""
    try:
        return do()
    except Refused as error:
        if not error.is_missing:
            raise
        return None
