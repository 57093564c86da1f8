"""Results shared with other machines: read through on a miss, written behind, never trusted.

Nothing here ever fails a run: what goes wrong with a remote is a warning.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue

from repro.errors import Unreachable, UsageError
from repro.events import Progress, Warned
from repro.remote import address, credentials
from repro.remote.crew import TROUBLE, Crew
from repro.remote.damage import Damage
from repro.remote.fuse import Fuse
from repro.remote.outbox import Outbox
from repro.remote.port import AC, Limits, Unanswered
from repro.remote.receiving import LARGEST_LIST, Brought, Incoming
from repro.remote.sending import Outgoing
from repro.remote.signing import Signing
from repro.store.blobs import BlobMissing, Blobs
from repro.store.home import Home
from repro.store.memos import Memos
from repro.store.results import Results
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Protocol

    from repro.events import Emit
    from repro.remote.address import Address
    from repro.remote.port import Remote
    from repro.remote.sending import Sent
    from repro.store.results import Result

    class Owner(Protocol):
        """The part of a machine that sharing needs."""

        environ: Mapping[str, str]
        home: Home
        emit: Emit


URL = "REPRO_REMOTE"
MODE = "REPRO_REMOTE_MODE"
TRUST = "REPRO_REMOTE_TRUST"
MODES = ("both", "read", "write")
TRUSTS = ("any", "keys")
BOUND_S = 10.0
BATCH = 100
MOST_WARNINGS = 5


class Policy(Value):
    """What is done with a remote: `mode` is `both`, `read` or `write`, `trust` `any` or `keys`."""

    mode: str = "both"
    trust: str = "any"


class Transferred(Value):
    """What `push` or `pull` did. `present` were there already; `failed` are not, see warnings."""

    results: int = 0
    present: int = 0
    failed: int = 0
    blobs: int = 0
    bytes: int = 0

    def plus(self, **more: int) -> Transferred:
        """Give the sums of ours and `more`."""
        return Transferred(**{name: getattr(self, name) + more[name] for name in self.__fields__})


class Sharing:
    """One remote and one store. Any thread may call; `close` once, at the end."""

    def __init__(
        self, remote: Remote, owner: Owner, signing: Signing, policy: Policy, limits: Limits
    ) -> None:
        """Share the store of `owner` through `remote`."""
        self.remote = Fuse(remote)
        self.policy = policy
        self.home = Home(owner.home.root)  # of our own: threads of ours may outlive the owner's
        self.results = Results(self.home)
        self.blobs = Blobs(self.home)
        self.outbox = Outbox(self.home, remote.name)
        self._emit = owner.emit
        self._told: set[str] = set()
        self._problems: SimpleQueue[Exception] = SimpleQueue()
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._guard = threading.Lock()
        self._sender: threading.Thread | None = None
        memos = Memos(self.home)
        damage = Damage(memos, remote.name)
        self._incoming = Incoming(
            self.remote,
            (self.home, self.results, memos),
            Crew(limits.threads, limits.stall),
            damage,
            signing.check if policy.trust == "keys" else lambda _record, _signature: None,
        )
        self._outgoing = Outgoing(
            self.remote,
            (self.blobs, self.results, memos),
            Crew(limits.threads, limits.commit),
            damage,
            signing.sign,
        )

    # -- during a run

    def fetch_result(self, key: str) -> Result | None:
        """Bring the result of a step of ours into the store, with all that it names.

        None where the remote has none, or none that may be used. Never raises for a remote.
        """
        if self.policy.mode == "write" or self.remote.blown:
            return None
        try:
            brought = self._incoming.bring([key], self._tell, own=True)
        except TROUBLE as error:
            brought = Brought(failed={key: error})
        for problem in brought.failed.values():
            self._warn(problem)
        return brought.results.get(key)

    def fetch_blob(self, name: str, size: int | None = None) -> bool:
        """Bring one blob into the store, whole and durably; say whether it is there now.

        Of unknown `size`, it may be as large as a list of files. Never raises for a remote.
        """
        if self.policy.mode == "write" or self.remote.blown:
            return False
        self.home.scratch()  # made before a thread asks for it
        want = (name, size, LARGEST_LIST)
        outcome = self._incoming.crew.each(lambda w: self._incoming.blob(w, self.blobs), [want])[0]
        if isinstance(outcome, Exception):
            self._warn(outcome)
            return False
        self.blobs.sync()
        return True

    def outdated(self, key: str) -> None:
        """Note that a result of the remote is good, and not good enough: ours is to replace it."""
        self._incoming.damage.note(AC, key)

    def offer(self, key: str) -> None:
        """Send a new result in the background. It is noted durably, so it is not forgotten."""
        if self.policy.mode == "read":
            return
        try:
            self.outbox.add(key)
        except OSError as error:
            self._warn(error)
            return
        self._queue.put(key)
        with self._guard:
            if self._sender is None:
                self._sender = threading.Thread(target=self._work, daemon=True)
                self._sender.start()

    def stop(self) -> None:
        """Give up what is under way, at once; for the thread that handles a signal."""
        self.remote.blow("interrupted")
        for part in (self._incoming, self._outgoing):
            part.crew.stop()

    def close(self, bound_s: float = BOUND_S) -> None:
        """Wait for what is being sent, but not for long; say what is left for the next time."""
        if self._sender is not None:
            self._queue.put("")
            self._sender.join(bound_s)
            while not self._problems.empty():
                self._warn(self._problems.get())
            left = len(self.outbox.waiting())
            if left and self._is_reason("left"):
                results = "result is" if left == 1 else "results are"
                self._emit(
                    Warned(
                        text=f"{left} {results} not on `{self.remote.name}` yet",
                        hint="the next run that executes a step goes on, or `repro cache push`",
                    )
                )
        self.remote.close()
        self.home.close()

    def _work(self) -> None:
        """Send what is offered, and once what earlier runs left."""
        try:
            key = self._queue.get()
            self._send_quietly([key])
            if self.outbox.lock.take(wait=False):
                try:
                    self._send_quietly([k for k in self.outbox.waiting() if k != key])
                finally:
                    self.outbox.lock.free()
            while key := self._queue.get():
                self._send_quietly([key])
        except Exception as error:  # noqa: BLE001  (nobody sees a traceback here: `close` tells)
            self._problems.put(error)

    def _send_quietly(self, keys: list[str]) -> None:
        for at in range(0, len(keys), BATCH):
            sent = self._send(keys[at : at + BATCH], thorough=True)
            for problem in sent.failed.values():
                self._problems.put(problem)

    def _send(self, keys: list[str], *, thorough: bool) -> Sent:
        sent = self._outgoing.send(keys, thorough=thorough)
        rotten = [key for key, error in sent.failed.items() if isinstance(error, BlobMissing)]
        for key in (*sent.arrived, *sent.present, *sent.gone, *rotten):
            self.outbox.drop(key)
        return sent

    # -- as commands

    def push(self, keys: Iterable[str] | None = None) -> Transferred:
        """Send the results of `keys`, or all that the remote lacks.

        Named results are sent thoroughly: each of their blobs is looked for. Raises UsageError
        for a remote that is only read, Unreachable where it does not answer; what was sent stays.
        """
        if self.policy.mode == "read":
            raise UsageError(
                "nothing is pushed to a remote that is only read",
                hints=[f"`{MODE}` is `read`: set it to `both`"],
            )
        if keys is None:
            known = {key for key, _used in self.results.keys()}  # noqa: SIM118  (it is no dict)
            chosen = sorted(known.union(self.outbox.waiting()))
        else:
            chosen = list(keys)
        total = Transferred()
        for at in range(0, len(chosen), BATCH):
            sent = self._send(chosen[at : at + BATCH], thorough=keys is not None)
            lacking = sent.gone if keys is not None else ()
            total = total.plus(
                results=len(sent.arrived),
                present=len(sent.present),
                failed=len(sent.failed) + len(lacking),
                blobs=sent.blobs,
                bytes=sent.bytes,
            )
            self._report(sent.failed, f"pushed {total.results} of {len(chosen)} results")
            if self.remote.read_only:
                raise self._unreachable("it takes no uploads")
        return total

    def pull(self, keys: Iterable[str] | None = None) -> Transferred:
        """Bring the results of `keys`, or all that the remote lists and the store lacks.

        Raises UsageError for a remote that is only written, Unreachable where it does not answer
        or cannot list; what was brought stays.
        """
        if self.policy.mode == "write":
            raise UsageError(
                "nothing is pulled from a remote that is only written",
                hints=[f"`{MODE}` is `write`: set it to `both`"],
            )
        chosen = self._listed() if keys is None else list(keys)
        total = Transferred()
        for at in range(0, len(chosen), BATCH):
            batch = chosen[at : at + BATCH]
            wanted = [key for key in batch if not self._is_complete(key)]
            brought = self._incoming.bring(wanted, self._tell, own=False)
            total = total.plus(
                results=len(brought.results),
                present=len(batch) - len(wanted),
                failed=len(wanted) - len(brought.results),
                blobs=brought.blobs,
                bytes=brought.bytes,
            )
            self._report(brought.failed, f"pulled {total.results} of {len(chosen)} results")
        return total

    def _listed(self) -> list[str]:
        found = self._outgoing.crew.each(lambda remote: remote.keys(), [self.remote])[0]
        if isinstance(found, Exception):
            raise self._unreachable(str(found))
        return list(found)

    def _is_complete(self, key: str) -> bool:
        try:
            return self._outgoing.parcel(key) is not None
        except (BlobMissing, OSError):
            return False

    def _report(self, failed: Mapping[str, Exception], text: str) -> None:
        """Tell how far it is. Raises Unreachable when going on makes no sense."""
        for problem in failed.values():
            self._warn(problem)
        if self.remote.blown:
            raise self._unreachable(self.remote.blown)
        self._tell(text)

    def _unreachable(self, reason: str) -> Unreachable:
        return Unreachable(
            f"the remote cache `{self.remote.name}` cannot be used: {reason}",
            hints=["what was transferred before stays; the same command goes on"],
        )

    # -- what is said

    def _tell(self, text: str) -> None:
        self._emit(Progress(text=text))

    def _warn(self, problem: Exception) -> None:
        """Warn of a problem, of each kind once, and not of very many."""
        if isinstance(problem, Unanswered) and problem.dead:
            self.remote.blow(str(problem))
        text = str(problem) if isinstance(problem, TROUBLE) else repr(problem)
        if self._is_reason(self.remote.blown or text):
            after = ": it is not asked again" if self.remote.blown else ""
            self._emit(Warned(text=f"remote cache `{self.remote.name}`: {text}{after}"))

    def _is_reason(self, text: str) -> bool:
        """Say whether this was not said yet, and may be."""
        if text in self._told or len(self._told) >= MOST_WARNINGS:
            return False
        self._told.add(text)
        return True


def connect(owner: Owner, url: str = "", *, limits: Limits | None = None) -> Sharing | None:
    """Give what shares the store of `owner` through `url`, else through what REPRO_REMOTE names.

    None where neither names a remote. Nothing is asked yet. Raises UsageError for a URL that is
    none, settings that contradict each other, and credentials that would travel in the clear.
    """
    environ = owner.environ
    text = url or environ.get(URL, "")
    if not text:
        return None
    chosen = Policy(mode=_setting(environ, MODE, MODES), trust=_setting(environ, TRUST, TRUSTS))
    home = Home(owner.home.root)
    signing = Signing(environ, home, Memos(home))
    if chosen.trust == "keys" and not signing.signers:
        raise UsageError(
            f"`{TRUST}` is `keys`, and no keys are named",
            hints=["`REPRO_REMOTE_SIGNERS` names the file of those whose results count"],
        )
    patience = limits or Limits()
    remote = open_remote(address.parse(text), environ, patience, read_only=chosen.mode == "read")
    return Sharing(remote, owner, signing, chosen, patience)


def for_run(owner: Owner) -> Sharing | None:
    """Give what `connect` gives; where the settings are wrong, a warning and None."""
    try:
        return connect(owner)
    except UsageError as error:
        owner.emit(Warned(text=error.message, hint=error.hints[0] if error.hints else ""))
        return None


def open_remote(
    where: Address, environ: Mapping[str, str], limits: Limits, *, read_only: bool = False
) -> Remote:
    """Give the adapter for an address. Raises UsageError."""
    if where.kind == "folder":
        from repro.remote.folder import Folder

        return Folder(where, read_only=read_only)
    if where.kind == "s3":
        from repro.remote.s3 import S3

        region = where.where["region"] or credentials.aws_region(environ)
        return S3(where, limits, credentials.for_aws(environ), region, read_only=read_only)
    if where.kind == "oci":
        from repro.remote.oci import Oci

        return Oci(
            where,
            limits,
            lambda: credentials.for_registry(where.host, environ),
            read_only=read_only,
        )
    from repro.remote.http import Http

    return Http(where, limits, credentials.for_http(where, environ), read_only=read_only)


def _setting(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    given = environ.get(name) or choices[0]
    if given not in choices:
        raise UsageError(f"`{name}` is `{given[:40]}`", hints=[f"it may be {', '.join(choices)}"])
    return given
