"""Hostile inputs of every kind, given to the whole command line: refused in words, and never run.

Most of them are those of the tests of each reader; here all of them meet the command that reads them.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess

from core import test_mlproject, test_params
from faults import errors, scene
from faults.fuzz import cases
from fetch import test_archive, test_location

SECONDS = 1.0
KIB = 200 << 10
LOCAL = ("--env-manager", "local")
CANARY = "canary"
OWN = ("project", "store", "data")
MAIN = "entry_points: {main: {command: 'true'}}\n"
PLACES = ("{v}", '"{v}"', "'{v}'")
SHAPES = (
    *("name: [a]", "name: {a: b}", "entry_points: 5", "entry_points: [a]", "entry_points: main"),
    *("entry_points: {main: 5}", "entry_points: {main: [x]}", "entry_points: {main: {}}"),
    *("entry_points: {main: {command: [x]}}", "entry_points: {main: {comand: x}}"),
    *("entry_points: {main: {command: {a: b}}}", "entry_points: {main: {command: 'x {'}}"),
    *("entry_points: {main: {command: 'x {a.b}'}}", "entry_points: {main: {command: 'x {0}'}}"),
    "entry_points: {main: {command: 'x {a:>3000000000}', parameters: {a: str}}}",
    "entry_points: {main: {command: 'x {a.__class__}', parameters: {a: str}}}",
    "entry_points: {main: {command: x, parameters: {a: {type: {b: c}}}}}",
    *("python_env: [a]", "python_env: ../../etc/gone", "python_env: /etc/gone"),
    *("python_env: gone.yaml", "python_env: {a: b}", "conda_env: {a: b}", "conda_env: gone.yaml"),
    *("docker_env: word", "docker_env: {volumes: []}", "docker_env: {image: [a]}"),
    "docker_env: {image: a, volumes: /etc}",
    "docker_env: {image: a, environment: {A: b}}",
    "{python_env: a.yaml, docker_env: {image: b}}",
    "- a list",
    "just a text",
    "5",
    "entry_points: {main: {command: x, needs: [main]}}",
    "entry_points: {main: {command: x, needs: [gone]}}",
    "entry_points: {main: {command: x, inputs: [../x]}}",
)
SETTINGS = (
    *({"options": {name: "x"}} for name in ("array", "output", "export", "wrap", "partition")),
    {"options": {"mem": "1"}},
    {"options": {"comment\n#SBATCH --wrap": "x"}},
    {"options": {"comment": "a\n#SBATCH --wrap=touch canary"}},
    {"partition": "gpu\n#SBATCH --wrap=touch canary"},
    {"partition": ["a"]},
    {"account": "$(touch canary)\n"},
    {"time": "1:00\ntouch canary"},
    {"cpus": "2; touch canary"},
    {"memory": "1G\ntouch canary"},
    {"setup": 5},
    {"unknown": "x"},
)


class Case:
    """One input: the command that is given it, and what has to stand in the refusal.

    `names` are texts, one of which it must say. With `runs`, the input is no fault, and may run.
    """

    def __init__(self, kind, words, names=(), *, text=MAIN, runs=False):
        self.kind, self.words, self.names = kind, words, names
        self.text, self.runs = text, runs


def all_cases(root):
    """Give all inputs; archives and settings are written below `root`."""
    yield from _projects()
    for uri in cases(test_location.test_refused):
        yield Case(
            "URI", ("run", *LOCAL, "--", uri), re.findall(r"[a-z]+|[.]{2}|-", uri) or ["URI"]
        )
    for version in filter(None, cases(test_location.test_versions_that_are_refused)):
        yield Case("version", ("run", ".", *LOCAL, f"--version={version}"), ["version"])
    for value in test_params.HOSTILE:
        for place in PLACES:
            text = json.dumps({"entry_points": {"main": {"command": f"printf %s {place} > o"}}})
            words = ("run", ".", *LOCAL, "-P", f"v={value.replace('CANARY', CANARY)}")
            yield Case("parameter", words, ["`v`"], text=text, runs=True)
    yield from _archives(root)
    for number, given in enumerate(SETTINGS):
        path = os.path.join(root, f"settings{number}.json")
        _write(path, json.dumps(given).encode())
        words = ("run", ".", *LOCAL, "--backend", "slurm", "--backend-config", path)
        yield Case("template", words, [path, *(f"`{name}`" for name in given.get("options", ()))])


def _projects():
    texts = [
        text for text, _code in cases(test_mlproject.test_text_that_cannot_be_read_is_explained)
    ]
    wrong = cases(test_mlproject.test_an_extension_of_the_wrong_kind_is_named_with_its_place)
    head = "entry_points:\n  main:\n"
    for line in wrong:
        command = "" if line.startswith("command") else "    command: run\n"
        texts.append(f"{head}{command}    {line}\n")
    for text in (*texts, *(shape + "\n" for shape in SHAPES)):
        yield Case("MLproject", ("run", ".", *LOCAL), ["MLproject", "`main`"], text=text)


def _archives(root):
    found = [
        test_archive.pack(
            ("MLproject", MAIN),
            *((w.format(root) if isinstance(w, str) else w, text) for w, text in members),
        )
        for members in test_archive.HOSTILE.values()
    ]
    found += cases(test_archive.test_what_is_no_archive)
    whole = test_archive.pack(*test_archive.FILES.items())
    found += [whole[: len(whole) * part // 12] for part in range(1, 12)]
    for number, data in enumerate(found):
        path = os.path.join(root, f"p{number}.zip")
        _write(path, data)
        yield Case(
            "archive", ("run", path, *LOCAL), [f"p{number}.zip", "archive", "tree", ".git", "twice"]
        )


def _write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def run(count):
    """Give the inputs, at most `count` of each six; each is an argument or a file of a command."""
    tally = scene.Tally("F6", "hostile inputs to the command line", count)
    root = scene.folder()
    told = {}
    try:
        command = errors.Command(root)
        subprocess.run(["git", "init", "-q"], cwd=command.project, check=True)
        _write(os.path.join(root, "MLproject"), MAIN.encode())
        given = list(all_cases(root))
        before = _state(root)
        for number, case in enumerate(given):
            if number * count >= tally.done * len(given) and tally.done < count:
                _give(command, case, tally)
                told[case.kind] = told.get(case.kind, 0) + 1
        if _state(root) != before:
            tally.fault(f"there is something else now: {sorted(_state(root) ^ before)[:5]}")
    finally:
        shutil.rmtree(root)
    return tally.end(more=", ".join(f"{number} {kind}" for kind, number in told.items()))


def _state(root):
    """Give what is around the project, Git's own files in it, and what no archive may make."""
    git = os.path.join(root, "project", ".git")
    found = {f".git/{name}" for name in os.listdir(git)}
    strays = {place for place in ("/tmp/escaped", "/escaped") if os.path.exists(place)}
    return found | strays | {name for name in os.listdir(root) if name not in OWN}


def _give(command, case, tally):
    text = (
        case.text if isinstance(case.text, bytes) else case.text.encode("utf-8", "surrogateescape")
    )
    _write(os.path.join(command.project, "MLproject"), text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, printed, _told, _count = command.call(case.words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    tally.done += 1
    where = f"{case.kind} {case.words[1:]!r:.200} {case.text[:200] if case.kind == 'MLproject' else ''!r}"
    if status not in ((0, 1, 2) if case.runs else (2,)) or "Traceback" in printed:
        tally.fault(f"{where}: ends with {status}: {printed[-400:]}")
    if status == 2 and not any(name in printed for name in case.names):
        tally.fault(f"{where}: names none of {case.names}: {printed[-400:]}")
    if any("\x1b" in line or "\r" in line for line in printed.splitlines()):
        tally.fault(f"{where}: control characters reach the terminal: {printed[-400:]!r}")
    if after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime > SECONDS:
        tally.fault(f"{where}: takes long")
    if after.ru_maxrss > KIB:
        tally.fault(f"{where}: takes {after.ru_maxrss >> 10} MiB")
    for folder in (command.project, command.root):
        if os.path.exists(os.path.join(folder, CANARY)):
            tally.fault(f"{where}: the canary sang")
            os.unlink(os.path.join(folder, CANARY))
