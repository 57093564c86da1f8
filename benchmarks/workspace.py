"""The workspace: the virtual environments of the tools, and the surroundings of their processes."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
DISTRIBUTION = "repro-projects"
PEERS = ("mlflow==3.17.2", "dvc==3.67.1", "snakemake==9.27.1")


@dataclass(frozen=True)
class Workspace:
    """One folder for everything that a benchmark makes; `given_peers` stays outside of it.

    `peers` is what the virtual environment of the peers is installed from.
    The next benchmark uses the virtual environments and the bytecode again, but no other state.
    """

    root: Path
    given_peers: Path | None = None
    peers: tuple[str, ...] = PEERS

    def venv(self, tool: str) -> Path:
        """Give the virtual environment of a tool: repro has its own, the peers share one."""
        if tool == "repro":
            return self.root / "venv-repro"
        return self.given_peers or self.root / "venv-peers"

    @property
    def state(self) -> Path:
        """Give the folder for projects and stores."""
        return self.root / "benchmark-state"

    @property
    def log(self) -> Path:
        """Give the file with what the last measured command said."""
        return self.state / "log"

    @property
    def bytecode(self) -> Path:
        """Give the folder that all tools keep their compiled modules in."""
        return self.root / "bytecode"

    def clear(self) -> None:
        """Forget the projects and stores of an earlier benchmark."""
        shutil.rmtree(self.state, ignore_errors=True)
        (self.state / "home").mkdir(parents=True)

    def environ(self, tool: str) -> dict[str, str]:
        """Give the variables of a tool's process: none of the caller's but PATH."""
        common = {
            "PATH": f"{self.venv(tool) / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.state / "home"),
            "LANG": "C.UTF-8",
            "PYTHONPYCACHEPREFIX": str(self.bytecode),
            "DO_NOT_TRACK": "1",
        }
        own = {
            "repro": {
                "REPRO_HOME": str(self.state / "repro-home"),
                "REPRO_DATA": str(self.state / "repro-data"),
            },
            "mlflow": {
                "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            "dvc": {
                "DVC_NO_ANALYTICS": "1",
                "DVC_SITE_CACHE_DIR": str(self.state / "dvc-site"),
            },
        }
        return common | own.get(tool, {})

    def install(self, tool: str) -> None:
        """Make the virtual environment of a tool, or bring it up to date."""
        if tool == "repro":
            again = ["--reinstall-package", DISTRIBUTION]
            _install(self.venv(tool), [*again, str(REPOSITORY)])
        elif self.given_peers is None:
            _install(self.venv(tool), list(self.peers))

    def versions(self, tool: str, names: tuple[str, ...]) -> dict[str, str]:
        """Give the installed versions of some distributions, by name, and that of Python."""
        code = (
            "import importlib.metadata as m, json, platform, sys;"
            "found = {name: m.version(name) for name in sys.argv[1:]};"
            "print(json.dumps({'Python': platform.python_version(), **found}))"
        )
        python = str(self.venv(tool) / "bin" / "python")
        found: dict[str, str] = json.loads(call([python, "-I", "-c", code, *names]))
        return found


def _install(venv: Path, requests: list[str]) -> None:
    uv = _uv()
    python = venv / "bin" / "python"
    if not python.exists():
        call([*uv, "venv", "--quiet", "--python", sys.executable, str(venv)])
    call([*uv, "pip", "install", "--quiet", "--python", str(python), *requests])


def _uv() -> list[str]:
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    found = shutil.which("uv") or shutil.which(beside)
    if found:
        return [found]
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    raise SystemExit("error: uv is needed: https://docs.astral.sh/uv/getting-started/installation/")


def call(
    command: Sequence[str], folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> bytes:
    """Run a command that is not measured, and give its stdout; end the benchmark if it fails."""
    try:
        ended = subprocess.run(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, check=False
        )
    except OSError as error:
        raise SystemExit(f"error: {error}") from None
    if ended.returncode:
        raise SystemExit(f"error: failed: {' '.join(command)}")
    return ended.stdout
