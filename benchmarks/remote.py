"""How fast results travel: 1 GiB in one file, and many small files, to loopback servers and back.

    python benchmarks/remote.py                      everything, into benchmarks/remote.md
    python benchmarks/remote.py --quick              a fraction of it, shown only
    python benchmarks/remote.py --only nginx --files 2000 --megabytes 200

Needs nginx-light and docker-registry, and rclone and moto from `pip install '.[test]'`; a server
that is not there is left out. Run on a quiet machine: servers and client share its cores.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import pytest  # noqa: E402
from requests.adapters import HTTPAdapter  # noqa: E402
from support import cache_servers  # noqa: E402
from support.cache_hosts import Host  # noqa: E402

from repro.remote.port import Limits  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from support.cache_servers import Server

    T = TypeVar("T")
    Measured = tuple[float, float, int, tuple[float, float]]

SLOW = {"moto": 10, "registry": 10}
"""Servers that take a tenth of the files, so that the whole stays below some minutes."""
SMALL = 10_240
HEADER = "| server | files | size | push s | pull s | push MB/s | pull MB/s | requests a file |"
RULE = "|---|---|---|---|---|---|---|---|"
REQUESTS = [0]


def counted(send: Callable[..., Any]) -> Callable[..., Any]:
    """Count every request that leaves this process."""

    def counting(*args: Any, **options: Any) -> Any:
        REQUESTS[0] += 1
        return send(*args, **options)

    return counting


def timed(action: Callable[[], T]) -> tuple[float, T]:
    """Give the seconds that an action takes, and what it gives."""
    began = time.perf_counter()
    given = action()
    return time.perf_counter() - began, given


def measured(server: Server, folder: pathlib.Path, files: dict[str, bytes]) -> Measured:
    """Push a result with `files` from one machine, and pull it on another."""
    one, other = (Host(folder / name, server.environ) for name in ("one", "other"))
    key = one.make(os.urandom(8).hex(), files)
    url = server.apart()
    limits = Limits()
    REQUESTS[0] = 0
    sender = one.share(url, limits=limits)
    push, sent = timed(lambda: sender.push([key]))
    sender.close()
    pushed, REQUESTS[0] = REQUESTS[0], 0
    receiver = other.share(url, limits=limits)
    pull, brought = timed(lambda: receiver.pull([key]))
    receiver.close()
    if (sent.results, brought.results) != (1, 1):
        raise SystemExit(f"{url}: {one.warnings} {other.warnings}")
    for host in (one, other):
        host.close()
    return push, pull, sent.bytes, (pushed / sent.blobs, REQUESTS[0] / sent.blobs)


def row(name: str, count: int, results: list[Measured]) -> str:
    """Write the medians of some rounds as a row of the table."""
    push, pull = (statistics.median(r[i] for r in results) for i in (0, 1))
    size = results[0][2] / 1e6
    requests = "-" if name == "folder" else "{:.2f} + {:.2f}".format(*results[0][3])
    return (
        f"| {name} | {count:,} | {size:,.0f} MB | {push:.2f} | {pull:.2f} "
        f"| {size / push:,.0f} | {size / pull:,.0f} | {requests} |"
    )


def rows(name: str, chosen: argparse.Namespace) -> Iterator[str]:
    """Measure one server: with one large file, and with many small ones."""
    cases = {1: [chosen.megabytes << 20], chosen.files // SLOW.get(name, 1): []}
    for count, sizes in cases.items():
        results = []
        for _ in range(chosen.rounds):
            folder = pathlib.Path(tempfile.mkdtemp(prefix="repro-remote-", dir=chosen.folder))
            for place in ("server", "one", "other"):
                (folder / place).mkdir()
            with cache_servers.KINDS[name](folder / "server") as server:
                files = {f"f{i}": os.urandom(size) for i, size in enumerate(sizes)}
                files = files or {f"d{i % 100}/f{i}": os.urandom(SMALL) for i in range(count)}
                results.append(measured(server, folder, files))
            shutil.rmtree(folder)
        yield row(name, count, results)


def main() -> None:
    """Measure what is asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=sorted(cache_servers.KINDS))
    parser.add_argument("--quick", action="store_true", help="little data, one round")
    parser.add_argument("--files", type=int, help="10,000, or 300")
    parser.add_argument("--megabytes", type=int, help="1024, or 40")
    parser.add_argument("--rounds", type=int, help="3, or 1")
    parser.add_argument("--folder", help="where the stores and the servers' files are kept")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "remote.md")
    chosen = parser.parse_args()
    files, megabytes, rounds = (300, 40, 1) if chosen.quick else (10_000, 1024, 3)
    chosen.files = chosen.files or files
    chosen.megabytes = chosen.megabytes or megabytes
    chosen.rounds = chosen.rounds or rounds
    HTTPAdapter.send = counted(HTTPAdapter.send)
    lines = [HEADER, RULE]
    print("\n".join(lines), flush=True)
    for name in chosen.only or sorted(cache_servers.KINDS):
        try:
            for line in rows(name, chosen):
                lines.append(line)
                print(line, flush=True)
        except pytest.skip.Exception as missing:
            print(f"{name}: {missing}", file=sys.stderr)
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    about = f"# Remote caches on loopback\n\n{os.cpu_count()} cores, load afterwards {load}. "
    about += "Medians. Requests a file: of push and pull.\n\n"
    if not chosen.only and not chosen.quick:
        chosen.output.write_text(about + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
