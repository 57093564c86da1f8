"""The pages of Python package indexes in their JSON form (PEP 691, 700, 740)."""

from __future__ import annotations

import base64
import json
import time

from repro.environments import downloads
from repro.mirrors import Mirrors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

TYPE = "application/vnd.pypi.simple.v1+json"
ATTESTATION_TYPE = "application/vnd.pypi.integrity.v1+json"
LARGEST = 64 << 20
PIECE = 1 << 16
PATIENCE = 5.0
"""Seconds that a server may be silent."""

MISSING = 404


class Late(Exception):
    """An index did not answer in time, or not what was asked for."""


class Reader:
    """Reads pages until `deadline` (of the monotonic clock); any thread may ask."""

    def __init__(self, environ: Mapping[str, str], deadline: float, connections: int) -> None:
        """Connect to nothing yet; logins are those of the caller's settings."""
        import requests
        from requests.adapters import HTTPAdapter

        self._environ = environ
        self._deadline = deadline
        self._mirrors = Mirrors(environ)
        self._session = requests.Session()
        self._session.verify = downloads.certificates(environ)
        self._session.mount("https://", HTTPAdapter(pool_maxsize=connections))
        self._session.mount("http://", HTTPAdapter(pool_maxsize=connections))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def page(self, index: str, name: str) -> dict[str, Mapping[str, Any]]:
        """Give what an index says of the files of a package, by their names. Raises Late.

        A package that it does not have has no files.
        """
        url = self._mirrors.of(f"{index.rstrip('/')}/{name}/")
        found = self._json(url, TYPE)
        rows = [] if found is None else found.get("files")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Late
        return {str(row.get("filename")): row for row in rows}

    def fault(self, url: str, filename: str, sha256: str) -> str:
        """Say why the attestations at `url` are none of a file; empty where one is. Raises Late.

        Only what they are about is compared. Who signed them is another matter.
        """
        if not url.startswith("https://") and not url.startswith("http://127.0.0.1:"):
            return "the index names no place where it could be read"
        found = self._json(url, ATTESTATION_TYPE)
        if found is None:
            return "the index names it, and does not have it"
        about = [pair for pair in _subjects(found) if pair[0] == filename]
        if not about:
            return "it is of another file"
        return "" if (filename, sha256) in about else "it is of another content"

    def _json(self, url: str, kind: str) -> dict[str, Any] | None:
        """Read an object, None where there is nothing. Raises Late."""
        import requests

        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Late
        patience = min(left, PATIENCE)
        try:
            with self._session.get(
                url,
                headers={"Accept": kind},
                timeout=(patience, patience),
                auth=downloads.login(url, self._environ),
                stream=True,
            ) as answer:
                if answer.status_code == MISSING:
                    return None
                answer.raise_for_status()
                found = json.loads(self._body(answer))
        except (requests.RequestException, ValueError, RecursionError):
            raise Late from None
        if not isinstance(found, dict):
            raise Late
        return found

    def _body(self, answer: Any) -> bytes:
        data = bytearray()
        for piece in answer.iter_content(PIECE):
            data += piece
            if len(data) > LARGEST or time.monotonic() > self._deadline:
                raise Late
        return bytes(data)


def _subjects(found: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Give the files that the statements of a provenance object are about, with their SHA-256."""
    subjects = set()
    try:
        for bundle in found["attestation_bundles"]:
            for attestation in bundle["attestations"]:
                statement = json.loads(base64.b64decode(attestation["envelope"]["statement"]))
                for one in statement["subject"]:
                    subjects.add((str(one["name"]), str(one["digest"]["sha256"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        return set()
    return subjects
