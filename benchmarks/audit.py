"""Measure `repro audit` beside pip-audit: the same packages and advisories, both offline."""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import http.server
import json
import os
import statistics
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import measure
import peers
import sections
import table
from subjects import Subject, Unfit
from workspace import DISTRIBUTION, Workspace, call

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

BUDGET = 1000  # ms of wall time
PEERS = ("pip-audit==2.10.1",)
PACKAGES = 200
FILES = 33  # in each package, beside its metadata: 7,000 in the environment
ADVISORIES = 2000
AFFECTED = ("package-7", "package-77")
HEAD = ("command", "calls", "CPU median", "wall median", "wall min", "vulnerabilities")
MLPROJECT = """\
name: audited
python_env: python_env.yaml
entry_points:
  main: {inputs: [main.py], outputs: [out.txt], command: "python main.py > out.txt"}
"""


def main() -> None:
    """Measure, and write the report to stdout and to a file."""
    options = _options()
    load = " ".join(f"{part:.2f}" for part in os.getloadavg())
    place = Workspace(options.workspace.resolve() / "audit", peers=PEERS)
    for tool in ("repro", "pip-audit"):
        _tell(f"installing {tool}")
        place.install(tool)
    place.clear()
    advisories = list(_advisories())
    folder = _project(place, advisories)
    with _service(advisories) as url:
        chosen = list(_subjects(place, folder, url))
        try:
            samples = measure.interleave(chosen, options.rounds, place, _tell)
        except (measure.CommandFailed, Unfit) as error:
            sys.exit(f"error: {error}")
    versions = place.versions("repro", (DISTRIBUTION,)) | place.versions("peer", ("pip-audit",))
    report = _report(chosen, samples, peers.facts(load, versions, options.rounds))
    sys.stdout.write(report)
    sections.put(options.output, "audit", report)


def _options() -> argparse.Namespace:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to measure (default: 5)")
    parser.add_argument("--workspace", type=Path, default=Path(cache, "repro-benchmarks"))
    parser.add_argument("--output", type=Path, default=peers.RESULTS, metavar="FILE")
    return parser.parse_args()


# -- what is audited


def _project(place: Workspace, advisories: list[dict[str, Any]]) -> Path:
    """Make a locked project whose environment is made, a copy of OSV, and its requirements."""
    folder, wheels, osv = (place.state / name for name in ("audited", "wheels", "osv"))
    for path in (folder, wheels, osv):
        path.mkdir()
    names = [_wheel(wheels, number) for number in range(PACKAGES)]
    lines = [f"package-{number}==1.{number}.0" for number in range(PACKAGES)]
    options = ["--no-index", f"--find-links {wheels}"]
    demands = "".join(f"  - {line}\n" for line in (*options, *lines))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (folder / "MLproject").write_text(MLPROJECT)
    (folder / "main.py").write_text("print(1)\n")
    (folder / "python_env.yaml").write_text(f"python: '{version}'\ndependencies:\n{demands}")
    hashed = (
        f"{line} --hash=sha256:{hashlib.sha256(name.read_bytes()).hexdigest()}\n"
        for line, name in zip(lines, names, strict=True)
    )
    (folder / "requirements.txt").write_text("".join(hashed))
    for one in advisories:
        (osv / f"{one['id']}.json").write_text(json.dumps(one))
    repro = str(place.venv("repro") / "bin" / "repro")
    _tell(f"making an environment of {PACKAGES} packages")
    for words in (("lock",), ("run", "-q")):
        call((repro, *words), folder, place.environ("repro"))
    return folder


def _wheel(folder: Path, number: int) -> Path:
    name, version = f"package_{number}", f"1.{number}.0"
    described = f"{name}-{version}.dist-info"
    files = {f"{name}/part{part}.py": f"NUMBER = {part}\n" * 20 for part in range(FILES)}
    files |= {
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{described}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_coded(text)},{len(text)}\n" for path, text in files.items()]
    files[f"{described}/RECORD"] = "".join([*rows, f"{described}/RECORD,,\n"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, text in files.items():
            wheel.writestr(zipfile.ZipInfo(inside), text)
    return path


def _coded(text: str) -> str:
    found = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode()


def _advisories() -> Iterator[dict[str, Any]]:
    """Give advisories of which two are about packages of the project."""
    names = [*AFFECTED, *(f"elsewhere-{number}" for number in range(ADVISORIES - len(AFFECTED)))]
    for number, name in enumerate(names):
        events = [{"introduced": "0"}, {"fixed": "99"}]
        affected = {
            "package": {"ecosystem": "PyPI", "name": name},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        yield {
            "id": f"PYSEC-2026-{number}",
            "modified": "2026-01-01T00:00:00Z",
            "summary": "an example",
            "affected": [affected],
        }


@contextlib.contextmanager
def _service(advisories: list[dict[str, Any]]) -> Iterator[str]:
    """Serve advisories as OSV does, on the loopback interface."""
    known: dict[str, list[dict[str, Any]]] = {}
    for one in advisories:
        known.setdefault(one["affected"][0]["package"]["name"], []).append(one)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two packets

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = known.get(query["package"]["name"], [])
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


# -- what is measured


def _subjects(place: Workspace, folder: Path, url: str) -> Iterator[Subject]:
    osv = ("--osv", str(place.state / "osv"), "--offline")
    for name, words in (
        ("plain", ()),
        ("osv", osv),
        ("installed", (*osv, "--installed")),
    ):
        argv = ("audit", *words, "--fail-on", "never")
        label = " ".join(("repro", "audit", *words)).replace(osv[1], "osv/")
        yield _subject(place, "repro", f"audit-repro-{name}", argv, f"`{label}`", folder)
    peer = ("-r", "requirements.txt", "--no-deps", "--disable-pip", "--progress-spinner", "off")
    peer = (*peer, "-s", "osv", "--osv-url", url)
    label = "`pip-audit -r requirements.txt`, an OSV service on loopback"
    yield _subject(place, "pip-audit", "audit-pip-audit", peer, label, folder)


def _subject(
    place: Workspace, tool: str, name: str, words: Sequence[str], label: str, folder: Path
) -> Subject:
    program = str(place.venv(tool) / "bin" / tool)
    quoted = 'test "$0" && "$0" "$@"; test $? -le 1'  # 1 is what pip-audit ends with: it found some
    return Subject(
        name=name,
        label=label,
        tool=tool,
        argv=("/bin/sh", "-c", quoted, program, *words),
        folder=folder,
        passes=1,
        around=lambda: _found(place, name),
    )


@contextlib.contextmanager
def _found(place: Workspace, name: str) -> Iterator[None]:
    """See that a command found what there is to be found."""
    yield
    said = place.log.read_text()
    if name != "audit-repro-plain" and not all(f"PYSEC-2026-{n}" in said for n in (0, 1)):
        raise Unfit(f"{name} did not find the two vulnerabilities:\n{said[-1000:]}")


def _report(
    chosen: Sequence[Subject], samples: dict[str, list[measure.Sample]], facts: dict[str, str]
) -> str:
    rows, budgets = [], []
    for subject in chosen:
        wall = statistics.median(sample.wall for sample in samples[subject.name])
        cpu = statistics.median(sample.cpu for sample in samples[subject.name])
        least = min(sample.wall for sample in samples[subject.name])
        seen = "-" if subject.name == "audit-repro-plain" else "2 of 2"
        times = (f"{cpu:.0f}", f"{wall:.0f}", f"{least:.0f}")
        rows.append((subject.label, str(len(samples[subject.name])), *times, seen))
        if "repro" in subject.name:
            verdict = "pass" if wall <= BUDGET else "FAIL"
            budgets.append((subject.label, f"at most {BUDGET} ms", f"{wall:.0f} ms", verdict))
    about = {**facts, "subject": f"{PACKAGES} packages, {ADVISORIES} advisories, offline"}
    parts = ["# Audit", "\n".join(f"- {name}: {text}" for name, text in about.items())]
    parts.append(table.table(("budget", "limit", "measured", "verdict"), iter(budgets)))
    parts.append(table.table(HEAD, iter(rows)))
    return "\n\n".join(parts) + "\n"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
