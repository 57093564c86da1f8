"""How much each backend adds to its engine: one step, and many small ones at the same time.

    python benchmarks/backends.py                        everything, into benchmarks/results.md
    python benchmarks/backends.py --quick --only docker

Run it as root with a Python that has `.[test]` and `uv`; the engines are those of the tests. What
is not there is left out, with the reason on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import peers
import sections
import table
from workspace import DISTRIBUTION, REPOSITORY, Workspace, call

sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY)]

from support import cache_servers, docker_engine, kubernetes_engine, slurm_engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

AT_ONCE = 8
BUDGET = 150  # ms that a step in docker may take over `docker run`
SAYS = "hello"
SNAKEMAKE = ("snakemake==9.27.1", "snakemake-executor-plugin-slurm==2.8.0")
HEAD = ("command", "first line", "result", "x bare", "over bare", "{} at -j8", "over bare")
MISSING = (docker_engine.Missing, slurm_engine.Missing, kubernetes_engine.Missing)
NUMBERS = itertools.count(time.time_ns() % 10**9)  # no step is asked for twice
# waits like everybody who has no better way
LOOP = """\
id=$(sbatch --parsable {options} --wrap 'echo hello {n}')
while [ -n "$(squeue -h -j "$id")" ]; do sleep 0.1; done
cat bare-{n}.out
"""
SWEPT_LOOP = """\
for n in {numbers}; do sbatch --parsable --output=bare-$n.out --wrap "echo hello $n"; done >ids
while [ -n "$(squeue -h -j "$(paste -sd, ids)")" ]; do sleep 0.1; done
cat bare-*.out
"""
KUBECTL = """\
kubectl() {{ {kubectl} -n {namespace} "$@"; }}
kubectl create job bare-{n} --image={image} -- sh -c 'echo hello {n}' >/dev/null
kubectl wait --for=condition=complete --timeout=120s job/bare-{n} >/dev/null
kubectl logs job/bare-{n}
kubectl delete job bare-{n} --wait=false >/dev/null
"""
SRUN = """\
#!/bin/sh
export SLURM_CONF={conf}
exec {srun} "$@"
"""
SNAKEFILE = """\
rule all:
    input: expand("out/{n}", n=config["numbers"].split("-"))
rule one:
    output: "out/{n}"
    resources: mem_mb=1000, slurm_partition="debug", slurm_account="none"
    shell: "echo hello {wildcards.n}; echo {wildcards.n} > {output}"
"""


class Unfit(Exception):
    """A command failed, or did something else than what is being measured."""


@dataclass(frozen=True)
class Tool:
    """A way to run a step.

    `one` gives the words for a step of that number, `many` those for steps of these numbers at the
    same time; without it, a step is started for each. `sweeps` is false for what takes minutes.
    """

    label: str
    one: Callable[[int], list[str]]
    folder: Path
    environ: Mapping[str, str]
    many: Callable[[list[int]], list[str]] | None = None
    sweeps: bool = True


@dataclass
class Taken:
    """Milliseconds: to the first line of the step, to the result, and to those of a sweep."""

    first: list[float] = field(default_factory=list)
    result: list[float] = field(default_factory=list)
    sweep: list[float] = field(default_factory=list)


# --- the measuring -------------------------------------------------------------------------


def timed(tool: Tool) -> tuple[float, float]:
    """Run one step; give the milliseconds to its first line and to its end."""
    began = time.perf_counter()
    process = _popen(tool, tool.one(next(NUMBERS)))
    first, said = 0.0, []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        # the words of the command may be shown too
        if not first and f"{SAYS} " in line and "echo" not in line:
            first = time.perf_counter() - began
    process.stdout.close()
    if process.wait() or not first:
        raise Unfit(f"{tool.label} ended with {process.returncode}:\n{''.join(said)[-1500:]}")
    return first * 1000, (time.perf_counter() - began) * 1000


def swept(tool: Tool, count: int) -> float:
    """Run many steps, some of them at once; give the milliseconds to the end of all."""
    numbers = [next(NUMBERS) for _ in range(count)]
    began = time.perf_counter()
    if tool.many:
        _ended(tool, [_popen(tool, tool.many(numbers))])
    else:
        waiting = list(numbers)
        running: list[subprocess.Popen[str]] = []
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                running.append(_popen(tool, tool.one(waiting.pop())))
            over = [process for process in running if process.poll() is not None]
            _ended(tool, over)
            running = [process for process in running if process not in over]
            time.sleep(0.005)
    return (time.perf_counter() - began) * 1000


def _ended(tool: Tool, processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        said, _ = process.communicate()
        if process.returncode:
            raise Unfit(f"{tool.label} ended with {process.returncode}:\n{said[-1500:]}")


def _popen(tool: Tool, argv: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        cwd=tool.folder,
        env=tool.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def measured(tools: list[Tool], options: argparse.Namespace) -> dict[str, Taken]:
    """Run the tools in turn, each once before it is measured; one that fails is left out."""
    fit = []
    for tool in tools:
        try:
            timed(tool)
            fit.append(tool)
        except Unfit as error:
            _tell(f"left out: {error}")
    taken = {tool.label: Taken() for tool in fit}
    for number in range(options.rounds):
        _tell(f"round {number + 1} of {options.rounds}")
        for tool in fit:
            first, result = timed(tool)
            taken[tool.label].first.append(first)
            taken[tool.label].result.append(result)
    for _ in range(options.sweeps):
        for tool in fit:
            if tool.sweeps:
                _tell(f"{options.jobs} jobs: {tool.label}")
                taken[tool.label].sweep.append(swept(tool, options.jobs))
    return taken


# --- what is measured ----------------------------------------------------------------------


def project(folder: Path, head: str, jobs: int) -> None:
    """Write a project of one step, and one of many steps that a last one needs."""
    command = f"echo {SAYS} {{n}}; echo {{n}} > out-{{n}}.txt"
    keys = f'parameters: {{n: integer}}, inputs: [], command: "{command}"'
    many = "".join(
        f"  s{i}: {{parameters: {{base: integer}}, inputs: [], outputs: [o{i}],"
        f' command: "echo {SAYS} {{base}}; echo {{base}} > o{i}"}}\n'
        for i in range(jobs)
    )
    given = '{base: "{base}"}'
    needs = ", ".join(f"{{step: s{i}, parameters: {given}}}" for i in range(jobs))
    keyed = f"parameters: {{base: integer}}, needs: [{needs}]"
    last = f'  all: {{{keyed}, inputs: [], command: "true {{base}}"}}\n'
    for name, text in (
        ("one", f"{head}entry_points:\n  main: {{{keys}}}\n"),
        ("many", f"{head}entry_points:\n{many}{last}"),
    ):
        place = folder / name
        place.mkdir(parents=True)
        (place / "MLproject").write_text(text)


def with_repro(
    place: Workspace, jobs: int, more: Mapping[str, str], head: str, *words: str
) -> Tool:
    """Give `repro run` with these words."""
    folder = place.state / f"repro-{words[1]}"
    project(folder, head, jobs)
    program = str(place.venv("repro") / "bin" / "repro")
    environ = {**place.environ("repro"), **more}
    if head:
        for name in ("one", "many"):
            call([program, "lock", "-q", str(folder / name)], folder, environ)
    return Tool(
        label=f"`repro run -b {words[1]}`",
        one=lambda n: [program, "run", "one", "-P", f"n={n}", *words],
        many=lambda numbers: [
            program, "run", "many", "-e", "all", "-P", f"base={numbers[0]}", f"-j{AT_ONCE}", *words,
        ],
        folder=folder,
        environ=environ,
    )  # fmt: skip


@contextlib.contextmanager
def docker(place: Workspace, jobs: int) -> Iterator[list[Tool]]:
    """Give `docker run`, repro, and `mlflow run` with the same image."""
    engine = docker_engine.started()
    head = f"name: bench\ndocker_env: {{image: '{engine.tag}'}}\n"
    bare = {**place.environ("docker"), **engine.environ}
    run = ["docker", "run", "--rm", "--init", "--network", "host", engine.image, "sh", "-c"]
    tools = [
        Tool("`docker run --rm`", lambda n: [*run, f"echo {SAYS} {n}"], place.state, bare),
        with_repro(place, jobs, engine.environ, head, "-b", "docker"),
    ]
    folder = place.state / "mlflow-docker"
    project(folder, head, 1)
    mlflow = str(place.venv("mlflow") / "bin" / "mlflow")
    environ = {**place.environ("mlflow"), **engine.environ, "GIT_PYTHON_REFRESH": "quiet"}
    tools.append(
        Tool(
            "`mlflow run` with a `docker_env`",
            lambda n: [mlflow, "run", "one", "-P", f"n={n}"],
            folder,
            environ,
            sweeps=False,
        )
    )
    yield tools


@contextlib.contextmanager
def slurm(place: Workspace, jobs: int) -> Iterator[list[Tool]]:
    """Give a loop around `squeue`, `sbatch --wait`, repro and snakemake."""
    with slurm_engine.running() as cluster:
        folder = place.state / "slurm"
        folder.mkdir()
        environ = {**place.environ("slurm"), "SLURM_CONF": str(cluster.conf)}

        def loop(n: int) -> list[str]:
            return ["sh", "-ec", LOOP.format(n=n, options=f"--output=bare-{n}.out")]

        def loops(numbers: list[int]) -> list[str]:
            return ["sh", "-ec", SWEPT_LOOP.format(numbers=" ".join(map(str, numbers)))]

        def waiting(n: int) -> list[str]:
            sbatch = f"sbatch --wait --output=wait-{n}.out --wrap 'echo {SAYS} {n}'"
            return ["sh", "-ec", f"{sbatch} >/dev/null; cat wait-{n}.out"]

        yield [
            Tool("`sbatch` and a loop of `squeue`", loop, folder, environ, loops),
            Tool("`sbatch --wait`", waiting, folder, environ),
            with_repro(
                place,
                jobs,
                {"SLURM_CONF": str(cluster.conf)},
                "",
                "-b",
                "slurm",
                "--env-manager",
                "local",
            ),
            _snakemake(place, environ),
        ]


def _snakemake(place: Workspace, environ: Mapping[str, str]) -> Tool:
    venv = place.root / "venv-snakemake"
    _install(venv, list(SNAKEMAKE))
    folder = place.state / "snakemake"
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE)
    # it takes all variables of Slurm from a job, which has to know where its Slurm is
    (folder / "srun").write_text(SRUN.format(conf=environ["SLURM_CONF"], srun=shutil.which("srun")))
    (folder / "srun").chmod(0o755)
    words = [str(venv / "bin" / "snakemake"), "--executor", "slurm", f"-j{AT_ONCE}"]
    words += ["--slurm-status-command", "squeue", "--latency-wait", "10"]
    # it would wait for 40 seconds before it asks at all, and then for 10 each time
    words += ["--slurm-init-seconds-before-status-checks", "1"]
    words += ["--seconds-between-status-checks", "1", "--config"]

    def one(n: int) -> list[str]:  # it keeps what a job prints in a file
        return ["sh", "-ec", f"{shlex.join([*words, f'numbers={n}-{n}'])}; echo {SAYS} {n}"]

    def many(numbers: list[int]) -> list[str]:
        return [*words, f"numbers={'-'.join(map(str, numbers))}"]

    path = f"{folder}{os.pathsep}{venv / 'bin'}{os.pathsep}{environ['PATH']}"
    return Tool("`snakemake --executor slurm`", one, folder, {**environ, "PATH": path}, many)


@contextlib.contextmanager
def kubernetes(place: Workspace, jobs: int) -> Iterator[list[Tool]]:
    """Give `kubectl create job` and `kubectl wait`, and repro."""
    with contextlib.ExitStack() as held:
        cluster = held.enter_context(kubernetes_engine.running())
        folder = place.state / "kubernetes"
        (folder / "cache").mkdir(parents=True)
        server = held.enter_context(cache_servers.nginx(folder / "cache"))
        namespace = f"bench-{os.getpid()}"
        cluster.kubectl("create", "namespace", namespace)
        held.callback(cluster.kubectl, "delete", "namespace", namespace, "--wait=false")
        find = ("-n", namespace, "get", "sa", "-o", "name")
        cluster.until(lambda: "default" in cluster.kubectl(*find, check=False))
        config = {"cache": server.apart(), "namespace": namespace, "pod": {"hostNetwork": True}}
        about = {
            "image": cluster.image,
            "namespace": namespace,
            "kubectl": str(Path(cluster.programs) / "kubectl"),
        }
        environ = {**place.environ("kubernetes"), **cluster.environ}
        head = f"name: bench\ndocker_env: {{image: '{cluster.image}'}}\n"
        words = ("-b", "kubernetes", "--backend-config", json.dumps(config))
        yield [
            Tool(
                "`kubectl create job`, `kubectl wait`",
                lambda n: ["sh", "-ec", KUBECTL.format(n=n, **about)],
                folder,
                environ,
            ),
            with_repro(place, jobs, cluster.environ, head, *words),
        ]


GROUPS = {"docker": docker, "slurm": slurm, "kubernetes": kubernetes}


# --- the report ----------------------------------------------------------------------------


def rows(taken: Mapping[str, Taken]) -> Iterator[tuple[str, ...]]:
    """Write a row for each tool; the first one is what the others are compared to."""
    bare = next(iter(taken.values()))
    for label, one in taken.items():
        result, base = statistics.median(one.result), statistics.median(bare.result)
        first = f"{statistics.median(one.first):.0f}"
        yield (
            label,
            "-" if "snakemake" in label else first,
            f"{result:.0f}",
            f"{result / base:.2f}",
            f"{result - base:+.0f}",
            *_sweep(one.sweep, bare.sweep),
        )


def _sweep(sweep: list[float], bare: list[float]) -> tuple[str, str]:
    if not sweep or not bare:
        return "-", "-"
    took, base = statistics.median(sweep), statistics.median(bare)
    return f"{took:.0f}", f"{took - base:+.0f}"


def report(found: Mapping[str, Mapping[str, Taken]], facts: Mapping[str, str], jobs: int) -> str:
    """Give the whole report."""
    parts = ["# Backends", "\n".join(f"- {name}: {text}" for name, text in facts.items())]
    for name, taken in found.items():
        if name == "docker" and len(taken) > 1:
            bare, ours, *_ = (statistics.median(one.result) for one in taken.values())
            verdict = "pass" if ours - bare <= BUDGET else "FAIL"
            cells = ("a step in docker over `docker run`", f"at most {BUDGET} ms")
            budget = iter([(*cells, f"{ours - bare:.0f} ms", verdict)])
            parts.append(table.table(("budget", "limit", "measured", "verdict"), budget))
        if taken:
            head = tuple(cell.format(jobs) for cell in HEAD)
            parts += [f"## {name.capitalize()}", table.table(head, rows(taken))]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, and write the report to stdout and to a file."""
    options = _options()
    place = Workspace(options.workspace.resolve(), options.peers and options.peers.absolute())
    load = " ".join(f"{part:.2f}" for part in os.getloadavg())
    _install(
        place.venv("repro"), ["--reinstall-package", DISTRIBUTION, f"{REPOSITORY}[kubernetes]"]
    )
    if "docker" in options.only or not options.only:
        place.install("mlflow")
    place.clear()
    found: dict[str, dict[str, Taken]] = {}
    for name in options.only or GROUPS:
        _tell(f"measuring {name}")
        try:
            with GROUPS[name](place, options.jobs) as tools:
                found[name] = measured(tools, options)
        except MISSING as error:
            _tell(f"left out: {name}: {error}")
    facts = peers.facts(load, {}, options.rounds)
    facts["rounds"] = f"{options.rounds}; commands in turn; wall time in ms, medians; no hits"
    written = report(found, facts, options.jobs)
    sys.stdout.write(written)
    output = options.output or (None if options.only or options.quick else peers.RESULTS)
    if output:
        sections.put(output, "backends", written)


def _options() -> argparse.Namespace:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--rounds", type=int, default=15, help="steps of each command (default: 15)")
    add("--sweeps", type=int, default=3, help="sweeps of each command (default: 3)")
    add("--jobs", type=int, default=50, help="jobs of a sweep (default: 50)")
    add("--quick", action="store_true", help="three steps, one sweep; writes no file by itself")
    add("--only", action="append", default=[], choices=GROUPS, help="may be repeated")
    add("--workspace", type=Path, default=Path(cache, "repro-benchmarks"), metavar="DIR")
    add("--peers", type=Path, metavar="VENV", help="a virtual environment that has mlflow")
    add("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.sweeps = 3, 1
    return options


def _install(venv: Path, requests: list[str]) -> None:
    uv = shutil.which("uv") or os.path.join(os.path.dirname(sys.executable), "uv")
    if not (venv / "bin" / "python").exists():
        call([uv, "venv", "--quiet", "--python", sys.executable, str(venv)])
    python = str(venv / "bin" / "python")
    call([uv, "pip", "install", "--quiet", "--python", python, *requests])


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
