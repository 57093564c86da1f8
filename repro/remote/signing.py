"""Results signed with a team's SSH keys: who made one, said in a way that nobody can forge.

`ssh-keygen` signs and verifies. It runs on misses only, and its verdicts are remembered by the
digest of what it was asked.
"""

from __future__ import annotations

import os
import subprocess
import time

from repro import digest
from repro.errors import UsageError
from repro.remote.port import Denied, Unfit
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.store.home import Home
    from repro.store.memos import Memos

NAMESPACE = "repro-result"
KEY = "REPRO_REMOTE_KEY"
SIGNERS = "REPRO_REMOTE_SIGNERS"
SECONDS = 60
DAY_NS = 86_400_000_000_000
PASSED = ("PATH", "HOME", "SSH_AUTH_SOCK")


class Signing:
    """A key to sign with, or none, and a file that names whose signatures count."""

    def __init__(self, environ: Mapping[str, str], home: Home, memos: Memos) -> None:
        """Read where key and signers are. Raises UsageError for a file that is not there."""
        self.home = home
        self.memos = memos
        self.key = _file(environ, KEY, "the key that signs results")
        self.signers = _file(environ, SIGNERS, "the list of those whose results count")
        self._environ = {name: environ[name] for name in PASSED if name in environ}

    def sign(self, record: bytes) -> bytes:
        """Give the signature of a record; nothing without a key. Raises Denied if it fails."""
        if not self.key:
            return b""
        found = self._run("sign", "-q", "-f", self.key, "-n", NAMESPACE, data=record)
        if found is None:
            raise Denied(f"the result cannot be signed with `{self.key}`")
        return found

    def check(self, record: bytes, signature: bytes) -> None:
        """Raise Unfit for a record that nobody who counts has signed.

        Without a key of our own it is Denied: we could not put a better one in its place.
        """
        if not self.is_trusted(record, signature):
            refusal = Unfit if self.key else Denied
            raise refusal("a result is refused: nobody who counts has signed it")

    def is_trusted(self, record: bytes, signature: bytes) -> bool:
        """Say whether a signer who counts has signed a record."""
        if not self.signers or not signature:
            return False
        asked = [*map(digest.of_bytes, (record, signature)), self._state_of_signers()]
        subject = digest.of_value("repro/verdict", asked)
        known = self.memos.get("verdict", subject)
        now = time.time_ns()
        if isinstance(known, dict) and 0 <= now - known["at"] < DAY_NS:
            return bool(known["trusted"])
        trusted = self._verified(record, signature)
        self.memos.put("verdict", subject, {"trusted": trusted, "at": now})
        return trusted

    def _state_of_signers(self) -> str:
        return digest.of_bytes(files.read(self.signers) or b"")

    def _verified(self, record: bytes, signature: bytes) -> bool:
        path = os.path.join(self.home.scratch(), f"signature-{os.urandom(8).hex()}")
        files.replace(path, signature, durable=False)
        try:
            given = ("-s", path, "-f", self.signers)
            names = self._run("find-principals", *given, data=b"")
            name = (names or b"").decode("utf-8", "replace").partition("\n")[0].strip()
            if not name or name.startswith("-"):
                return False
            named = ("-I", name, "-n", NAMESPACE)
            return self._run("verify", *given, *named, data=record) is not None
        finally:
            files.unlink(path)

    def _run(self, *words: str, data: bytes) -> bytes | None:
        """Run ssh-keygen without a terminal, so that it can ask for nothing."""
        try:
            done = subprocess.run(
                ["ssh-keygen", "-Y", *words],  # noqa: S607  (the caller's own ssh)
                input=data,
                env={**self._environ, "LC_ALL": "C"},
                capture_output=True,
                timeout=SECONDS,
                start_new_session=True,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            raise Denied("`ssh-keygen` cannot be run, or does not answer") from None
        return done.stdout if done.returncode == 0 else None


def _file(environ: Mapping[str, str], variable: str, what: str) -> str:
    given = environ.get(variable, "")
    path = given and os.path.abspath(os.path.expanduser(given))
    if path and not os.path.isfile(path):
        raise UsageError(
            f"`{variable}` names no file: `{path}`", hints=[f"it names {what}, see ssh-keygen(1)"]
        )
    return path
