"""How far a step is kept apart from this machine: the level in force, and what it may see."""

from __future__ import annotations

import os

from repro import plan
from repro.errors import Unsupported, UsageError
from repro.ports import Confinement
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.backends.nursery import Nursery
    from repro.backends.sandbox.means import Available
    from repro.ports import Backend, Job, Realized
    from repro.store.memos import Memos


class Isolation:
    """The sandbox of this machine; what it can do is found out when it is first needed."""

    def __init__(self, environ: Mapping[str, str], memos: Memos) -> None:
        """Try nothing yet."""
        self._environ = environ
        self._memos = memos
        self._found: Available | None = None
        self._nurseries: dict[str, Nursery] = {}
        self._around: dict[tuple[tuple[str, ...], str], tuple[tuple[str, str], ...]] = {}

    def close(self) -> None:
        """End what was kept ready for more steps."""
        for nursery in self._nurseries.values():
            nursery.close()

    def asked(self, request: str, entry: str) -> str:
        """Give the level that is insisted on, empty for the best that there is.

        Raises UsageError for a word that is no level.
        """
        level = request or entry or self._environ.get("REPRO_SANDBOX", "")
        if level == "auto":
            return ""
        if level and level not in plan.LEVELS:
            hints = [f"choose one of {', '.join(plan.LEVELS)}, or auto"]
            raise UsageError(f"no sandbox level `{level}`", hints=hints)
        return level

    def level(self, asked: str) -> str:
        """Give the level in force. Raises Unsupported for one that is not to be had here."""
        if asked == "none":
            return asked
        available = self._available()
        if asked:
            available.means_for(asked)
            return asked
        return "mounts" if available.means.get("mounts") else "none"

    def means(self, level: str) -> str:
        """Name what confines at a level, empty for nothing."""
        return "" if level == "none" else self._available().means_for(level)

    def blocks(self, level: str) -> bool:
        """Say whether the network can be taken away from a step at a level."""
        return level != "none" and "hermetic" in self._available().means

    def missing(self) -> str:
        """Say why there is no sandbox here, empty where there is one."""
        available = self._available()
        if available.means.get("mounts"):
            return ""
        reasons = [f"{name}: {why}" for name, why in available.reasons.items() if why]
        return "; ".join(reasons) or "this system has none"

    def accepts(self, made: str, asked: str) -> bool:
        """Say whether a result that was made at one level serves where a level is asked for.

        Where none is insisted on, a result must have been made at the level in force here, so
        that what a step read without saying so cannot come back.
        """
        wanted = asked or "mounts"
        if plan.LEVELS.index(made if made in plan.LEVELS else "none") >= plan.LEVELS.index(wanted):
            return True
        return not asked and self.level("") == "none"

    def confinement(
        self,
        level: str,
        writable: Iterable[str],
        shown: Iterable[str],
        realized: Realized,
        receiver: str,
        *,
        network: bool,
    ) -> Confinement:
        """Give what a step may see and change.

        The last of `writable` is its folder for temporary files. `shown` are paths that it may
        read, and `receiver` is the address of what takes its MLflow calls.
        """
        if level == "none":
            return Confinement()
        folders = tuple(writable)
        mine = self._surroundings(tuple(realized.path), realized.prefix)
        given = tuple((os.path.abspath(path), os.path.abspath(path)) for path in shown)
        port = receiver.rpartition(":")[2].partition("/")[0]
        return Confinement(
            level=level,
            writable=folders,
            temporary=folders[-1],
            readable=(*mine, *given),
            network=network and level != "hermetic",
            port=int(port) if port.isdecimal() else 0,
        )

    def _surroundings(self, path: tuple[str, ...], prefix: str) -> tuple[tuple[str, str], ...]:
        """Find out what an environment consists of, once for all steps that are in it."""
        known = self._around.get((path, prefix))
        if known is None:
            from repro.backends.sandbox import surroundings

            known = surroundings.of_environment(path, prefix)
            self._around[path, prefix] = known
        return known

    def hints(
        self, said: bytes, confinement: Confinement, folder: str, project: str
    ) -> tuple[tuple[str, str], ...]:
        """Read out of what a failed step said which files it missed: (what, what to do)."""
        if confinement.level == "none":
            return ()
        from repro.backends.sandbox import explanation, means

        view = means.view(confinement)
        found = explanation.undeclared(said, confinement, view, folder, project)
        return tuple((f"the step did not see `{one.path}`", one.hint) for one in found)

    def watched(self, job: Job, output: str) -> Job:
        """Give a job under whose command all files and hosts are noted in the file `output`.

        Raises Unsupported where strace is not installed.
        """
        import shutil

        from repro.backends.sandbox import trace

        strace = shutil.which("strace", path=self._environ.get("PATH"))
        if strace is None:
            raise Unsupported(
                "watching a step needs strace, which is not here",
                hints=["install it, for example with `apt-get install strace`"],
            )
        return replace(job, argv=trace.argv(job.argv, strace, output))

    def undeclared(
        self, output: str, confinement: Confinement, folder: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give the files and hosts that a watched job used and that a confined one had not had."""
        from repro.backends.sandbox import means, trace

        with open(output, encoding="utf-8", errors="replace") as file:
            found = trace.parse(file.read(), folder)
        left = trace.undeclared(found, means.view(confinement), confinement.port)
        there = tuple(path for path in left.read if os.path.lexists(path))
        return there, left.hosts

    def backend(self, level: str) -> Backend:
        """Give what starts the processes of steps at a level."""
        from repro.backends.local import NOTHING, Local
        from repro.backends.nursery import Nursery

        nursery = self._nurseries.setdefault("", Nursery())  # of two threads, one is the first
        return Local(NOTHING if level == "none" else self._available(), nursery)

    def _available(self) -> Available:
        if self._found is None:
            from repro.backends.sandbox import probe

            self._found = probe.available(self._environ, self._memos)
        return self._found
