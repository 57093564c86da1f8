"""What makes environments: repro, uv, pip, conda-lock, and MLflow's way, with the same packages.

All of them work on files of this machine: wheels that were downloaded once, and a conda channel
made of these, served on the loopback interface. So the tools are compared, and no network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workspace import REPOSITORY, call

sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY)]

from support import channel as channels  # noqa: E402  (found by the lines above)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

WANTED = ("numpy", "pandas", "scikit-learn", "pyyaml", "requests", "click", "tqdm")
TOOLS = ("virtualenv", "pip", "conda-lock>=4,<5")
TOLD = {
    "another": ", beside a similar one",
    "pruned": ", right after `repro env prune`",
    "removed": ", right after `rm -r` of its folder",
    "inside": ", in a running process",
    "often": ", in a running process",
}
INSIDE = ("inside", "often")
"""What is measured from within, without the start of an interpreter."""
PLATFORMS = channels.PLATFORMS
STAND_IN = REPOSITORY / "tests" / "support" / "standin_conda.py"
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
WORKER = """\
import os, sys, time
from repro import canonical, lock, value
kind, home, file, how = sys.argv[1:]
if kind == "conda":
    from repro.environments.conda import Conda as Maker
else:
    from repro.environments.python import Python as Maker
wanted = value.load(canonical.decode(open(file, "rb").read()), lock.CLASSES)
if how == "another":  # one that nobody has made yet: each time another package is missing
    names = [a.name for a in wanted.artifacts if a.name != "python"]
    left_out = names[-len(os.listdir(home + "/envs")) % len(names)]
    kept = tuple(a for a in wanted.artifacts if a.name != left_out)
    wanted = value.replace(wanted, artifacts=kept)
maker = Maker(home, os.environ)
for _ in range(20 if how == "often" else 1):
    start, cpu = time.perf_counter(), time.process_time()
    maker.realize(wanted, lambda _text: None).release()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"took {wall * 1000:.3f} {cpu * 1000:.3f}")
"""
PRUNER = """\
import sys
from repro.environments import cache
cache.prune(sys.argv[1], older_than_ns=None, everything=True, dry_run=False, now_ns=0)
"""
LOCKER = """\
import os, sys
from repro import canonical, condafile, value
from repro.environments.conda import Conda
from repro.environments.python import Python
from repro.ports import LockRequest
from repro.spec import CondaEnvironment, PythonEnvironment
kind, home, file, out, *platforms = sys.argv[1:]
text = open(file, encoding="utf-8").read()
if kind == "conda":
    maker = Conda(home, os.environ)
    wanted = condafile.fill(CondaEnvironment(file="environment.yml", text=text), lambda _p: None)
else:
    maker = Python(home, os.environ, tool="uv")
    lines = text.splitlines()
    options = tuple(line for line in lines if line.startswith("--"))
    needs = tuple(line for line in lines if not line.startswith("--"))
    wanted = PythonEnvironment(requirements=needs, options=options, source="requirements.in")
request = LockRequest(environment=wanted, platforms=tuple(platforms))
locks = maker.lock(request, lambda _text: None)
open(out, "wb").write(canonical.encode(value.dump(locks[0])))
"""


@dataclass(frozen=True)
class Maker:
    """One command that is measured.

    `before` sets the scene and is not measured. `told` says that the command prints what it
    measured itself, several times, as `took WALL CPU` in milliseconds.
    """

    name: str
    label: str
    argv: tuple[str, ...]
    before: Callable[[], None] = lambda: None
    told: bool = False

    @property
    def group(self) -> str:
        """Give the first word of the name: makers of a group are compared to each other."""
        return self.name.partition(".")[0]


@dataclass
class Workshop:
    """The folder for all of it: `wheels` and `tools` stay, the rest is made anew each time."""

    root: Path
    server: channels.Server | None = None
    variables: dict[str, str] = field(default_factory=dict)
    moved: int = 0

    @property
    def wheels(self) -> Path:
        """Give the folder of wheels."""
        return self.root / "wheels"

    @property
    def tools(self) -> Path:
        """Give the virtual environment of virtualenv, pip and conda-lock."""
        return self.root / "venv-tools"

    @property
    def state(self) -> Path:
        """Give the folder for stores, caches and environments."""
        return self.root / "state"

    def prepare(self) -> None:
        """Fetch the wheels, make the channel and serve it; no tool needs a network then."""
        uv = [sys.executable, "-m", "uv"] if not shutil.which("uv") else ["uv"]
        if not self.tools.exists():
            call([*uv, "venv", "-q", "--python", sys.executable, str(self.tools)])
            call([*uv, "pip", "install", "-q", "--python", str(self.tools), *TOOLS])
        if not self.wheels.exists():
            fetch = ["download", "-q", "--only-binary", ":all:", "-d", str(self.wheels)]
            call([str(self.tools / "bin" / "pip"), *fetch, *WANTED])
        shutil.rmtree(self.state, ignore_errors=True)
        for name in ("home", "aside"):
            (self.state / name).mkdir(parents=True)
        self.server = channels.Server(self._channel())
        self._write()

    def _channel(self) -> channels.Channel:
        made = channels.Channel(self.state / "channel")
        python = channels.full() or channels.shim()
        packages = [channels.of_wheel(path) for path in sorted(self.wheels.glob("*.whl"))]
        others = [p for p in PLATFORMS if p != channels.here()]
        made.add(channels.python_abi(), python, *packages)
        made.add(*(channels.stand_in(platform) for platform in others))
        return made.add(*(_elsewhere(p, o) for p in packages if not p.noarch for o in others))

    def _write(self) -> None:
        needs = "\n".join(WANTED)
        self.variables = {
            "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])),
            "HOME": str(self.state / "home"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "PIP_CONFIG_FILE": os.devnull,
            "UV_NO_CONFIG": "1",
            "STANDIN_CONDA_CACHE": str(self.state / "standin"),
        }
        assert self.server is not None
        asked = f"channels: ['{self.server.url}']\ndependencies:\n- python\n"
        asked += "".join(f"- {name}\n" for name in WANTED)
        self.file("environment.yml", asked + f"platforms: {list(PLATFORMS)}\n".replace("'", '"'))
        self.file("conda.yml", asked)
        self.file("requirements.in", f"--no-index\n--find-links {self.wheels}\n{needs}\n")
        self.file("requirements.txt", f"{needs}\n")
        lines = (STAND_IN.read_text(encoding="utf-8")).splitlines()
        self.file("conda", "\n".join([f"#!{sys.executable}", *lines]) + "\n").chmod(0o755)

    def file(self, name: str, text: str) -> Path:
        """Write a file of the scene."""
        path = self.state / name
        path.write_text(text, encoding="utf-8")
        return path

    def close(self) -> None:
        """End the server, and remove what was moved."""
        if self.server:
            self.server.close()
        shutil.rmtree(self.state / "aside", ignore_errors=True)

    def gone(self, *names: str) -> Callable[[], None]:
        """Give what moves folders of the state out of the way, until all is over.

        Some file systems are slow for a minute after files were removed, whoever did it.
        """

        def move() -> None:
            for name in names:
                for path in self.state.glob(name):
                    self.moved += 1
                    path.rename(self.state / "aside" / f"{self.moved}")

        return move

    def removed(self, *names: str) -> Callable[[], None]:
        """Give what removes folders of the state."""

        def remove() -> None:
            for name in names:
                for path in self.state.glob(name):
                    subprocess.run(["rm", "-rf", str(path)], check=True)

        return remove

    def pruned(self, kind: str) -> Callable[[], None]:
        """Give what removes the environments of a store and leaves its packages."""
        command = (sys.executable, "-c", PRUNER, f"{self.state}/store-{kind}")

        def prune() -> None:
            call(command, environ=self.variables)

        return prune


def _elsewhere(package: channels.Package, subdir: str) -> channels.Package:
    """Give a package of another platform: what can be locked, and is never installed."""
    index = {**package.index, "subdir": subdir}
    name, version, build = (index.pop(key) for key in ("name", "version", "build"))
    depends = index.pop("depends")
    index.pop("timestamp")
    return channels.Package(name, version, build, depends=depends, **index).add("share/x", "x")


def makers(shop: Workshop) -> list[Maker]:
    """List what is measured; in each group what the others are compared to first."""
    return [*_locks(shop), *_cold(shop), *_warm(shop), *_use(shop)]


def _locks(shop: Workshop) -> list[Maker]:
    state, python = shop.state, sys.executable
    lock = (python, "-c", LOCKER)
    conda = ("conda", f"{state}/store-conda", f"{state}/conda.yml", f"{state}/conda.json")
    wheels = ("python", f"{state}/store-python", f"{state}/requirements.in", f"{state}/python.json")
    engine = ("--conda", f"{state}/conda")
    names = [word for platform in PLATFORMS for word in ("-p", platform)]
    file = ("-f", f"{state}/environment.yml", "--lockfile", f"{state}/conda-lock.yml")
    hashed = ("--generate-hashes", "--no-header", "--no-config", "-q")
    compiled = (*hashed, f"{state}/requirements.in", "-o", f"{state}/hashed.txt")
    count = len(PLATFORMS)
    return [
        Maker("lock.repro", f"repro, conda, {count} platforms", (*lock, *conda, *PLATFORMS)),
        Maker(
            "lock.conda-lock",
            f"`conda-lock lock`, {count} platforms, the same solver",
            (str(shop.tools / "bin" / "conda-lock"), "lock", *engine, *file, *names),
            shop.gone("conda-lock.yml"),
        ),
        Maker("lock.repro-python", "repro, wheels, 1 platform", (*lock, *wheels)),
        Maker("lock.uv", "`uv pip compile --generate-hashes`", ("uv", "pip", "compile", *compiled)),
    ]


def _repro(
    shop: Workshop, name: str, how: str = "once", before: Callable[[], None] = lambda: None
) -> Maker:
    state, kind = shop.state, "python" if name.endswith(("python", "wheels")) else "conda"
    words = (kind, f"{state}/store-{kind}", f"{state}/{kind}.json", how)
    label = f"repro, {'conda' if kind == 'conda' else 'wheels'}{TOLD.get(how, '')}"
    return Maker(name, label, (sys.executable, "-c", WORKER, *words), before, told=how in INSIDE)


def _both(shop: Workshop, group: str, *, caches: bool) -> list[Maker]:
    """Give what makes an environment without any cache, or with all."""
    state, gone = shop.state, shop.gone
    tools, prefix = shop.tools / "bin", state / f"{group}-env"
    links = f"--no-index --find-links {shop.wheels}"
    conda = gone("store-conda/envs", *(("store-conda/pkgs",) if caches else ()))
    wheels = gone("store-python/envs", *(("store-python/wheels",) if caches else ()))
    uv = f"uv venv -q --python {sys.executable} {prefix}-uv && uv pip sync -q --offline"
    uv += f" --require-hashes {links} --python {prefix}-uv/bin/python {state}/hashed.txt"
    install = (
        "install",
        "--conda",
        f"{state}/conda",
        "-p",
        f"{prefix}-cl",
        f"{state}/conda-lock.yml",
    )
    return [
        _repro(shop, f"{group}.repro", before=conda),
        _repro(shop, f"{group}.repro-python", before=wheels),
        Maker(
            f"{group}.uv",
            "`uv venv`, `uv pip sync`",
            ("sh", "-c", uv),
            gone(f"{group}-env-uv", *(("home/.cache/uv",) if caches else ())),
        ),
        Maker(
            f"{group}.conda-lock",
            "`conda-lock install`, the same installer",
            (str(tools / "conda-lock"), *install),
            gone(f"{group}-env-cl", *(("standin",) if caches else ())),
        ),
    ]


def _cold(shop: Workshop) -> list[Maker]:
    return _both(shop, "cold", caches=True)


def _warm(shop: Workshop) -> list[Maker]:
    state, gone = shop.state, shop.gone
    links = f"-q --no-index --find-links {shop.wheels}"
    pip = f"{sys.executable} -m venv {state}/warm-env-pip && {state}/warm-env-pip/bin/pip install"
    pip += f" --require-hashes {links} -r {state}/hashed.txt"
    mlflow = f"{shop.tools}/bin/virtualenv -q --python {sys.executable} {state}/warm-env-mlflow &&"
    mlflow += f" {state}/warm-env-mlflow/bin/pip install {links} -r {state}/requirements.txt"
    return [
        *_both(shop, "warm", caches=False),
        _repro(shop, "warm.repro-inside", "inside", gone("store-conda/envs")),
        _repro(shop, "warm.repro-inside-python", "inside", gone("store-python/envs")),
        _repro(shop, "warm.repro-another", "another"),
        _repro(shop, "warm.repro-another-python", "another"),
        _repro(shop, "warm.repro-pruned", "pruned", shop.pruned("conda")),
        _repro(shop, "warm.repro-pruned-python", "pruned", shop.pruned("python")),
        _repro(shop, "warm.repro-removed", "removed", shop.removed("store-conda/envs")),
        _repro(shop, "warm.repro-removed-python", "removed", shop.removed("store-python/envs")),
        Maker(
            "warm.pip",
            "`python -m venv`, `pip install --require-hashes`",
            ("sh", "-c", pip),
            gone("warm-env-pip"),
        ),
        Maker(
            "warm.mlflow",
            "MLflow's way: `virtualenv`, `pip install -r`, not locked",
            ("sh", "-c", mlflow),
            gone("warm-env-mlflow"),
        ),
    ]


def _use(shop: Workshop) -> list[Maker]:
    return [_repro(shop, "use.repro", "often"), _repro(shop, "use.repro-python", "often")]


def sizes(shop: Workshop) -> Mapping[str, str]:
    """Say how much was made, by kind."""
    found = {}
    for kind in ("conda", "python"):
        lock = json.loads((shop.state / f"{kind}.json").read_text(encoding="utf-8"))
        prefix = max((shop.state / f"store-{kind}" / "envs").iterdir(), key=_weight)
        size, count = _weight(prefix)
        found[kind] = f"{len(lock['artifacts'])} packages, {count} files, {size / 1e6:.0f} MB"
    return found


def _weight(prefix: Path) -> tuple[int, int]:
    found = [path.lstat().st_size for path in prefix.rglob("*") if not path.is_dir()]
    return sum(found), len(found)
