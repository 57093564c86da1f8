"""Measure how environments are locked, made and used, beside uv, pip, conda-lock and MLflow."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import makers
import sections
from measure import CommandFailed, Sample
from peers import RESULTS, facts
from table import Budget, ratio, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from makers import Maker, Workshop

NAME = "environments"
TITLES = {
    "lock": "Locking",
    "cold": "Making, with empty caches",
    "warm": "Making, with warm caches",
    "use": "Using one that is there",
}
SLOW = ("warm.pip", "warm.mlflow")
TOOK = re.compile(r"^took ([\d.]+) ([\d.]+)$", re.MULTILINE)
HEAD = ("command", "calls", "wall median", "wall min", "CPU median", "CPU min", "wall x repro")

Samples = dict[str, list[Sample]]


def main() -> None:
    """Measure, and write the report to stdout and to a file."""
    options = _options()
    shop = makers.Workshop(options.workspace.resolve())
    load = " ".join(f"{part:.2f}" for part in os.getloadavg())
    _tell("preparing")
    shop.prepare()
    try:
        chosen = makers.makers(shop)
        samples = _measured(chosen, options.rounds, shop)
        told = makers.sizes(shop)
    except CommandFailed as error:
        sys.exit(f"error: {error}")
    finally:
        shop.close()
    report = _report(chosen, samples, {**facts(load, {}, options.rounds), **told})
    sys.stdout.write(report)
    sections.put(options.output, NAME, report)


def _options() -> argparse.Namespace:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to measure (default: 3)")
    parser.add_argument(
        "--workspace",
        type=Path,
        default=Path(cache, "repro-benchmarks", NAME),
        metavar="DIR",
        help="folder for packages, stores and environments (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE")
    return parser.parse_args()


def _measured(chosen: Sequence[Maker], rounds: int, shop: Workshop) -> Samples:
    """Call all in turn, so that every one meets the same disturbances; first once unmeasured."""
    samples: Samples = {maker.name: [] for maker in chosen}
    for number in range(rounds + 1):
        _tell(f"round {number} of {rounds}" if number else "warm-up")
        for maker in chosen:
            if number == 0 and maker.name in SLOW:
                continue
            maker.before()
            os.sync()
            found = _called(maker, shop)
            samples[maker.name] += found if number else []
    return samples


def _called(maker: Maker, shop: Workshop) -> list[Sample]:
    log = shop.state / "log"
    with log.open("wb") as told:
        started = time.perf_counter()
        process = subprocess.Popen(
            maker.argv,
            cwd=shop.state,
            env=shop.variables,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    if process.returncode:
        raise CommandFailed(f"{maker.name} ended with {process.returncode}:\n{text[-2000:]}")
    if maker.told:
        took = TOOK.findall(text)
        return [Sample(wall=float(w), cpu=float(c)) for w, c in took[1:] or took]
    return [Sample(cpu=(usage.ru_utime + usage.ru_stime) * 1000, wall=wall * 1000)]


def _report(chosen: Sequence[Maker], samples: Samples, about: Mapping[str, str]) -> str:
    parts = ["# Environments", "\n".join(f"- {name}: {text}" for name, text in about.items())]
    head = ("budget", "limit", "measured", "verdict")
    parts += ["## Budgets of environments", table(head, _budget_rows(samples))]
    for group, title in TITLES.items():
        rows = _rows([maker for maker in chosen if maker.group == group], samples)
        parts += [f"## {title}", table(HEAD, rows)]
    return "\n\n".join(parts) + "\n"


def _wall(samples: Samples, name: str) -> float:
    return statistics.median(sample.wall for sample in samples[name])


def _budgets(samples: Samples) -> Iterator[Budget]:
    def times(name: str, base: str) -> float | None:
        return ratio(_wall(samples, name), _wall(samples, base))

    yield Budget(
        "lock of conda packages for three platforms, ms", _wall(samples, "lock.repro"), 2000
    )
    faster = times("lock.conda-lock", "lock.repro")
    yield Budget("`conda-lock lock` / repro", faster, 5, at_least=True)
    yield Budget("conda environment made warm, ms", _wall(samples, "warm.repro"), 1000)
    yield Budget("wheels made warm, ms", _wall(samples, "warm.repro-python"), 1000)
    slower = times("warm.mlflow", "warm.repro-inside-python")
    # without the start of either: `import mlflow` alone takes a second
    yield Budget("MLflow's way / repro, wheels made warm", slower, 50, at_least=True)
    yield Budget("conda environment used, ms", _wall(samples, "use.repro"), 10)
    yield Budget("wheels used, ms", _wall(samples, "use.repro-python"), 10)


def _budget_rows(samples: Samples) -> Iterator[tuple[str, ...]]:
    for budget in _budgets(samples):
        limit = f"{'at least' if budget.at_least else 'at most'} {budget.limit:g}"
        measured = "-" if budget.value is None else f"{budget.value:.1f}"
        yield budget.text, limit, measured, budget.verdict


def _rows(chosen: Sequence[Maker], samples: Samples) -> Iterator[tuple[str, ...]]:
    for maker in chosen:
        found = samples[maker.name]
        kinds = ([s.wall for s in found], [s.cpu for s in found])
        compared = ratio(_wall(samples, maker.name), _wall(samples, chosen[0].name)) or 0
        yield (
            maker.label,
            str(len(found)),
            *(f"{how(times):.1f}" for times in kinds for how in (statistics.median, min)),
            f"{compared:.2f}",
        )


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
