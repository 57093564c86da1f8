"""Histories of a project that changes and is run again and again: no run gives an old answer.

A pure model says what every output has to be. Commands read what is there, so a result that is
reused where it must not be is an output that differs from the model.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

import hypothesis
from faults import scene, shim
from hypothesis import strategies as st

from repro import api, standing, step
from repro.errors import ReproError, SourceUnusable
from repro.machine import Machine
from repro.plan import Course, Request
from repro.store import placement, pruning
from repro.system import files

SOURCES = ("src0", "src1", "src2")
CONTENTS = "aabb!"  # few: what was is to be again. A step that minds `!` fails where it reads one
BAD = "!"
TEXTS = "12"
HOSTS = 2
TOOLS = ("sh", "bash", "cat", "ls", "grep", "mkdir", "sort")
PYTHONS = (None, "1", "2")
EXECUTED, REUSED, AGAIN = "executed", "reused", "asked to be run again"


class Wrong(AssertionError):
    """A run did not do what the model says."""


# -- what is generated


rarely = st.integers(0, 9).map(lambda number: number == 9)
now_and_then = st.sampled_from((False, False, False, True))


@st.composite
def steps(draw, number, *, chained):
    """One step: what it reads, how much of that it declares, and what else decides its output."""
    return {
        "needs": sorted(draw(st.sets(st.integers(0, number - 1), max_size=2))) if number else [],
        "sources": sorted(draw(st.sets(st.sampled_from(SOURCES), max_size=2))),
        "folder": draw(st.booleans()),
        "declares_inputs": not draw(now_and_then),
        "declares_outputs": not draw(now_and_then),
        "says_needs": chained or draw(st.booleans()),
        "parameter": chained or draw(st.booleans()),
        "default": draw(st.sampled_from(TEXTS)),
        "variable": draw(st.booleans()),
        "packages": draw(st.booleans()),
        "tag": draw(st.sampled_from(TEXTS)),
        "tag_is_variable": draw(st.booleans()),
        "minds": draw(now_and_then),
        "uncached": draw(rarely),
    }


RUNS = st.fixed_dictionaries(
    {
        "target": st.sampled_from((-1, -1, -1, -1, -1, 0, 1, 2)),
        "jobs": st.sampled_from((1, 2)),
        "keep_going": st.booleans(),
        "again": st.sampled_from((*[None] * 8, 0, 1)),
        "host": st.sampled_from((0, 0, 0, 0, 1)),
        "remote": st.booleans(),
        "value": st.sampled_from((None, None, None, *TEXTS)),
        "plain": rarely,
        "elsewhere": rarely,
    }
)
HOWS = st.sampled_from(("write", "quietly", "swap"))
EDITS = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from(SOURCES), st.sampled_from(CONTENTS), HOWS),
    st.tuples(st.just("file"), st.sampled_from("bc"), st.sampled_from(f"{CONTENTS}-"), HOWS),
    st.tuples(st.just("tag"), st.integers(0, 4), st.sampled_from(TEXTS)),
    st.tuples(st.just("default"), st.integers(0, 4), st.sampled_from(TEXTS)),
    st.tuples(st.just("variable"), st.sampled_from((None, "", *TEXTS))),
    st.tuples(st.just("python"), st.sampled_from(PYTHONS)),
    st.tuples(st.just("source"), st.integers(0, 4), st.sampled_from(SOURCES)),
    st.tuples(st.just("need"), st.integers(1, 4), st.integers(0, 3)),
    st.tuples(
        st.just("flag"), st.integers(0, 4), st.sampled_from(("minds", "variable", "uncached"))
    ),
    st.tuples(st.just("tamper"), st.integers(0, 4), st.sampled_from((*CONTENTS, None)), HOWS),
)
MOSTLY = st.one_of(*[EDITS] * 12, st.tuples(st.just("prune"), st.integers(0, HOSTS - 1)))
ROUNDS = st.tuples(st.lists(MOSTLY, max_size=3), RUNS)


@st.composite
def histories(draw):
    """A project of two to five steps, and how it is changed and run in turns."""
    chained = draw(st.integers(0, 3)) == 0
    count = draw(st.integers(2, 5))
    parts = [draw(steps(number, chained=chained)) for number in range(count)]
    rounds = draw(st.lists(ROUNDS, min_size=4, max_size=9))
    done = [action for edits, run in rounds for action in (*edits, run)]
    return {"chained": chained, "steps": parts, "done": done}


# -- the model


class Model:
    """What stands in the project, and what each step would give now."""

    def __init__(self, history):
        self.chained = history["chained"]
        self.steps = [dict(step) for step in history["steps"]]
        self.files = {**dict.fromkeys(SOURCES, "a"), "d/a": "a"}
        self.variable = None
        self.python = None

    def edges(self, number):
        return [need for need in self.steps[number]["needs"] if need < number]

    def closure(self, number):
        """Give a step with all that it needs, in an order in which they can run."""
        found = {number}
        for need in self.edges(number):
            found |= set(self.closure(need))
        return sorted(found)

    def text(self, number, value):
        """Give what a step makes, None where it fails or is not started."""
        step = self.steps[number]
        argument = step["default"] if value is None else value
        below = [self.text(need, argument if self.chained else None) for need in self.edges(number)]
        if None in below or (step["minds"] and BAD in self.read(number)):
            return None
        packages = self.python if step["packages"] else None
        return "".join(
            [
                *below,
                *(f"{content}\n" for content in self.read(number)),
                f"{number} {step['tag']} {argument if step['parameter'] else '-'} ",
                f"{'unset' if self.variable is None else self.variable} " * step["variable"],
                f"demo-{packages}.dist-info" if packages else "",
                "\n",
            ]
        )

    def read(self, number):
        step = self.steps[number]
        below = sorted(path for path in self.files if path.startswith("d/"))
        return [self.files[path] for path in (*step["sources"], *(below if step["folder"] else ()))]

    # -- as a project

    def project(self):
        """Give the text of the MLproject file."""
        points = {f"s{number}": self._entry(number) for number in range(len(self.steps))}
        return json.dumps({"name": "history", "entry_points": points})

    def _entry(self, number):
        step, edges = self.steps[number], self.edges(number)
        entry = {"command": self._command(number), "cache": not step["uncached"]}
        folder = ["d/*"] if step["folder"] else []
        if step["declares_inputs"]:
            entry["inputs"] = [*step["sources"], *folder, *(f"o{need}" for need in edges)]
        if step["declares_outputs"]:
            entry["outputs"] = [f"o{number}"]
        needs = [n for n in edges if self._is_said(step, n)]
        passed = {"parameters": {"p": "{p}"}} if self.chained else {}
        entry["needs"] = [{"step": f"s{need}", **passed} for need in needs]
        if step["parameter"]:
            entry["parameters"] = {"p": {"type": "string", "default": step["default"]}}
        if step["variable"]:
            entry["pass_env"] = ["V"]
        if step["tag_is_variable"]:
            entry["env"] = {"TAG": step["tag"]}
        return entry

    def _is_said(self, step, need):
        found_by_file = step["declares_inputs"] and self.steps[need]["declares_outputs"]
        return step["says_needs"] or not found_by_file

    def _command(self, number):
        step = self.steps[number]
        names = [*(f"o{need}" for need in self.edges(number)), *step["sources"]]
        names += ["d/*"] if step["folder"] else []
        read = [name for name in names if not name.startswith("o")]
        tag = "${{TAG}}" if step["tag_is_variable"] else step["tag"]
        lines = [f"echo junk > o{number}"]  # which nobody may ever see
        if step["minds"] and read:
            lines.append(f"if grep -q '{BAD}' {' '.join(read)}; then exit 3; fi")
        lines.append(f"cat {' '.join(names)} > o{number}" if names else f": > o{number}")
        said = f"{number} {tag} {'{p}' if step['parameter'] else '-'} "
        said += "${{V-unset}} " if step["variable"] else ""
        sites = "$(ls ${{PATH%%:*}}/../lib/python/site-packages)" if step["packages"] else ""
        lines.append(f'echo "{said}{sites}" >> o{number}')
        return "\n".join(lines)


# -- the real thing


class World:
    """The project in a folder, with two machines that share a remote, as a history goes on."""

    def __init__(self, root, history, told):
        self.root, self.told = root, told
        self.model = Model(history)
        self.outputs = {}
        self.folder = self._folder("project", "d")
        self.shared = self._folder("shared")
        self.tools = self._folder("tools")
        for path, content in self.model.files.items():
            self._write(path, content, "write")
        self._write("MLproject", self.model.project(), "write")
        for name in TOOLS:
            os.symlink(shutil.which(name, path="/usr/bin:/bin"), os.path.join(self.tools, name))
        self.sites = self._venv()

    def _folder(self, *names):
        path = os.path.join(self.root, *names)
        os.makedirs(path)
        return os.path.join(self.root, names[0])

    def _venv(self):
        """Make a virtual environment by hand: that is much faster than to ask for one."""
        venv = os.path.join(self.root, "venv")
        version = "python{}.{}".format(*sys.version_info[:2])
        sites = os.path.join(venv, "lib", version, "site-packages")
        os.makedirs(sites)
        os.symlink(version, os.path.join(venv, "lib", "python"))
        os.mkdir(os.path.join(venv, "bin"))
        base = os.path.realpath(sys.executable)
        os.symlink(base, os.path.join(venv, "bin", "python"))
        with open(os.path.join(venv, "pyvenv.cfg"), "w") as file:
            file.write(f"home = {os.path.dirname(base)}\n")
        return sites

    def do(self, action):
        """Do the next thing of a history. Raises Wrong."""
        if isinstance(action, dict):
            self._run(action)
        else:
            getattr(self, f"_{action[0]}")(*action[1:])
            self._write("MLproject", self.model.project(), "write")

    # -- changes

    def _write(self, path, content, how):
        """Change a file: as an editor does, without a trace in size and time, or by another file."""
        place = os.path.join(self.folder, path)
        data = content if path == "MLproject" else f"{content}\n"
        before = os.stat(place) if os.path.exists(place) else None
        target = f"{place}.new" if how == "swap" else place
        with open(target, "w") as file:
            file.write(data)
        if how == "quietly" and before:
            os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(target, place)

    def _edit(self, path, content, how):
        self.model.files[path] = content
        self._write(path, content, how)

    def _file(self, name, content, how):
        path = f"d/{name}"
        if content != "-":
            self._edit(path, content, how)
        elif self.model.files.pop(path, None):
            os.unlink(os.path.join(self.folder, path))

    def _step(self, number):
        return self.model.steps[number % len(self.model.steps)]

    def _tag(self, number, text):
        self._step(number)["tag"] = text

    def _default(self, number, text):
        self._step(number)["default"] = text

    def _flag(self, number, name):
        self._step(number)[name] ^= True

    def _source(self, number, name):
        step = self._step(number)
        step["sources"] = sorted({name} ^ set(step["sources"]))

    def _need(self, number, other):
        number %= len(self.model.steps)
        if other < number:
            step = self.model.steps[number]
            step["needs"] = sorted({other} ^ set(step["needs"]))

    def _variable(self, text):
        self.model.variable = text

    def _python(self, version):
        """Install another version of a package, in a moment; or let there be no Python."""
        self.model.python = version
        for name in os.listdir(self.sites):
            shutil.rmtree(os.path.join(self.sites, name))
        if version:
            package = os.path.join(self.sites, f"demo-{version}.dist-info")
            os.mkdir(package)
            with open(os.path.join(package, "RECORD"), "w") as file:
                file.write("demo.py,,\n")

    def _tamper(self, number, content, how):
        """Write over an output, or remove it."""
        path = f"o{number % len(self.model.steps)}"
        if content is not None:
            self._write(path, content, how)
            self.outputs[path] = f"{content}\n"
        elif self.outputs.pop(path, None) is not None:
            os.unlink(os.path.join(self.folder, path))

    def _prune(self, host):
        machine = Machine(self._environ(host, remote=False))
        now = machine.now_ns() + 2 * scene.HOUR_NS
        limits = pruning.Limits(before_ns=now, now_ns=now)
        pruning.prune(machine.home, machine.blobs, machine.results, limits)
        machine.close()

    # -- runs

    def _environ(self, host, *, remote):
        first = [os.path.join(self.root, "venv", "bin")] if self.model.python else []
        found = {
            "HOME": self.root,
            "PATH": os.pathsep.join([*first, self.tools]),
            "REPRO_HOME": os.path.join(self.root, f"store{host}"),
            "REPRO_DATA": os.path.join(self.root, f"data{host}"),
            "REPRO_SANDBOX": "none",
        }
        if remote:
            found["REPRO_REMOTE"] = f"file://{self.shared}"
        if self.model.variable is not None:
            found["V"] = self.model.variable
        return found

    def _run(self, how):
        model = self.model
        target = how["target"] % len(model.steps)
        nodes = model.closure(target)
        value = how["value"] if model.steps[target]["parameter"] else None
        again = how["again"]
        elsewhere = ""
        if how["elsewhere"] and all(model.steps[number]["declares_outputs"] for number in nodes):
            elsewhere = os.path.join(self.root, "elsewhere")
            shutil.rmtree(elsewhere, ignore_errors=True)
        request = Request(
            uri=self.folder,
            entry_point=f"s{target}",
            parameters={} if value is None else {"p": value},
            env_manager="local",
            use_results=not how["plain"],
            keep_result=not how["plain"],
            output=elsewhere,
            caller=self.root,
        )
        course = Course(
            jobs=how["jobs"],
            keep_going=how["keep_going"],
            again=() if again is None else (f"s{nodes[again % len(nodes)]}",),
        )
        environ = self._environ(how["host"], remote=how["remote"])
        done = self._submitted(how, lambda: api.submit(request, environ=environ, course=course))
        for run in done.records:
            self.told[REUSED if run.cached else EXECUTED] += 1
        self._compare(how, (target, nodes, value), done.get_status(), elsewhere)

    def _submitted(self, how, submit):
        """Run; and again where files changed meanwhile: a step may write over what another reads."""
        for _step in self.model.steps:
            try:
                return submit()
            except SourceUnusable as error:
                self.told[AGAIN] += 1
                if "while the step was being prepared" not in error.message:
                    raise Wrong(f"{how}: {error.message}") from None
            except ReproError as error:
                raise Wrong(f"{how}: {type(error).__name__}: {error.message}") from None
        raise Wrong(f"{how}: files never come to rest")

    def _compare(self, how, which, status, elsewhere):
        target, nodes, value = which
        model = self.model
        passed = (value or model.steps[target]["default"]) if model.chained else None
        expected = {f"o{n}": model.text(n, passed) for n in nodes}
        expected[f"o{target}"] = model.text(target, value)
        good = None not in expected.values()
        if (status == "FINISHED") != good:
            raise Wrong(f"{how}: the run is {status}, and should {'' if good else 'not '}succeed")
        if elsewhere:
            path, wanted = os.path.join(elsewhere, f"o{target}"), expected[f"o{target}"]
            if self._found(path) != wanted:
                raise Wrong(f"{how}: {path} is {self._found(path)!r}, and should be {wanted!r}")
            expected = {}
        for number in range(len(self.model.steps)):
            path = f"o{number}"
            before, found = self.outputs.get(path), self._found(path)
            wanted = expected.get(path)
            may = {before} if wanted is None else {wanted}
            if not good and not how["keep_going"]:
                may.add(before)  # it may not have been started
            if found not in may:
                raise Wrong(
                    f"{how}: {path} is {found!r}, and should be {' or '.join(map(repr, may))}"
                )
            if found is not None:
                self.outputs[path] = found

    def _found(self, path):
        place = os.path.join(self.folder, path)
        return scene.read(place).decode() if os.path.exists(place) else None


# -- as a harness


def play(history, told):
    """Go through a history. Raises Wrong as soon as a run is."""
    root = scene.folder()
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.path.join(root, "tools")  # no Git: it says nothing here, and takes time
    try:
        world = World(root, history, told)
        for action in history["done"]:
            world.do(action)
    finally:
        os.environ["PATH"] = path
        shutil.rmtree(root)


def run(count, *, seed=1, first_fault=False):
    """Play `count` histories; the first that goes wrong is made as short as can be."""
    tally = scene.Tally("F13", "histories of projects, runs against a model", count)
    told = {EXECUTED: 0, REUSED: 0, AGAIN: 0}
    phases = [hypothesis.Phase.generate, *([] if first_fault else [hypothesis.Phase.shrink])]

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(histories())
    def hunt(history):
        tally.done += 1
        play(history, told)

    try:
        hunt()
    except Exception as error:  # noqa: BLE001  (no run may raise what is no error of ours)
        tally.fault(" ".join([repr(error), *getattr(error, "__notes__", ())]))
    if not tally.faults and told[REUSED] * 20 < told[EXECUTED]:
        tally.fault("nothing is reused, so this shows nothing")
    return tally.end(more=", ".join(f"{number} {what}" for what, number in told.items()))


# -- planted faults


def _without(name):
    """The key of a step leaves one part out."""
    parts = step.parts

    def fewer(one):
        return {**parts(one), name: None}

    step.parts = fewer


def _standing_by_tree_alone():
    """A run has nothing to do where its project is the same, whatever surrounds it."""
    standing._same_surroundings = lambda _known, _machine: True


def _inputs_by_time_and_size():
    """A file is the same if its size and its time are."""
    files.state = lambda status: [0, 0, status.st_size, status.st_mtime_ns, 0, status.st_mode]
    files.is_racy = lambda _known, _seen_ns: False


def _outputs_unseen():
    """An output is in its place if it was put there."""

    def in_place(self, entries):
        known = {path: row["content"] for path, row in self.memory.items()}
        return all(known.get(entry.path) == entry.content for entry in entries)

    placement.Placement.in_place = in_place


PLANTED = {
    "no parameters in the key": lambda: _without("parameters"),
    "no variables in the key": lambda: _without("variables"),
    "no environment in the key": lambda: _without("environment"),
    "no command in the key": lambda: _without("command"),
    "outputs unseen": _outputs_unseen,
    "standing by the tree alone": _standing_by_tree_alone,
    "inputs by time and size": _inputs_by_time_and_size,
}


def planted(count):
    """Plant `count` faults of the cache, one at a time, and see whether histories find them."""
    tally = scene.Tally("F19", "planted faults of the cache that are found", count)
    for name, plant in list(PLANTED.items())[:count]:
        tally.done += 1
        if shim.forked(lambda plant=plant: _caught(plant)) != 1:
            tally.fault(f"nothing finds `{name}`")
    return tally.end()


def _caught(plant):
    plant()
    return int(bool(run(400, first_fault=True).faults))
