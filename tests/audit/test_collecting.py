"""The facts as they are collected: from a project in a folder, on this machine."""

from __future__ import annotations

import json
import pathlib
from datetime import date

import pytest
from audit.asking import asked
from audit.examples import Tree, World, collect

from repro import auditing, locking
from repro.audit import verdict
from repro.auditing import advisories
from repro.environments.cache import Place
from repro.errors import ProjectInvalid, UsageError
from repro.lock import Artifact, EnvironmentLock, Image, Interpreter
from repro.lockfiles import dockerlock, pylock
from repro.value import dump

SHA = "a" * 64
ENVIRONMENT = "python: '3.11'\ndependencies:\n  - tinymath>=1\n  - -r more.txt\n"
PYLOCK = f"""\
lock-version = "1.0"
created-by = "uv"

[[packages]]
name = "tinymath"
version = "1.1.0"
wheels = [{{ url = "https://files.pythonhosted.org/tinymath-1.1.0-py3-none-any.whl", hashes = {{ sha256 = "{SHA}" }} }}]

[[packages]]
name = "other"
version = "2.0"
wheels = [{{ url = "https://files.pythonhosted.org/other-2.0-py3-none-any.whl", hashes = {{ sha256 = "{SHA}" }} }}]
"""
MLPROJECT = "python_env: python_env.yaml\nentry_points:\n  main: {command: python main.py}\n"
FILES = {"MLproject": MLPROJECT, "python_env.yaml": ENVIRONMENT, "more.txt": "other\n"}
LOCKED = {**FILES, f"lockfiles/pylock.{locking.here()}.toml": PYLOCK}


# -- of the files


def test_texts_are_those_that_say_what_the_project_is():
    facts = collect({**LOCKED, "README.md": "# x", "main.py": "print()", "docs/README.md": "no"})
    assert set(facts.texts) == {"MLproject", "python_env.yaml", "more.txt", "README.md"}


def test_a_requirement_is_found_in_the_file_that_it_stands_in():
    report = verdict.judge(collect(FILES))
    places = {f.subject: str(f.where) for f in report.findings if f.code == "P01"}
    assert places == {"tinymath": "python_env.yaml:3", "other": "more.txt:1"}


def test_packages_are_found_in_their_lock_file():
    path = "lockfiles/pylock.linux-64.toml"
    facts = collect({**FILES, path: PYLOCK})
    assert facts.lock_texts[path].lines == {"tinymath": 5, "other": 10}


def test_locks_of_all_platforms_are_read_each_once():
    names = [f"lockfiles/pylock.{p}.toml" for p in ("linux-64", "osx-arm64")]
    facts = collect({**FILES, **dict.fromkeys(names, PYLOCK)})
    assert [file.path for file in facts.environments[0].locks] == names
    universal = collect({**FILES, "pylock.toml": PYLOCK})
    assert [file.path for file in universal.environments[0].locks] == ["pylock.toml"]


def test_a_lock_file_that_cannot_be_read_is_a_fact_and_no_failure():
    facts = collect({**FILES, "lockfiles/pylock.linux-64.toml": "lock-version = 1"})
    (broken,) = facts.environments[0].broken
    assert broken.path == "lockfiles/pylock.linux-64.toml"
    assert facts.environments[0].locks == ()


def test_each_docker_environment_gets_its_own_images_from_the_one_file():
    locks = tuple(
        EnvironmentLock(
            kind="docker", platform="linux-64", image=Image(reference=name, id=f"sha256:{SHA}")
        )
        for name in ("one:1", "two:2")
    )
    text = (
        "docker_env: {image: 'one:1'}\nentry_points:\n  main: {command: 'true'}\n"
        "  other: {docker_env: {image: 'two:2'}, command: 'true'}\n"
        "  third: {docker_env: {image: 'three:3'}, command: 'true'}\n"
    )
    path = "lockfiles/docker-lock.json"
    facts = collect({"MLproject": text, path: dockerlock.encode(locks, {}).decode()})
    assert [[lock.image.reference for _f, lock in e.locked] for e in facts.environments] == [
        ["one:1"],
        ["two:2"],
        [],
    ]


def test_a_project_that_is_wrong_is_refused():
    with pytest.raises(ProjectInvalid):
        collect({"MLproject": "entry_points: 1\n"})


# -- names on the index


def test_conda_packages_are_looked_up_by_what_is_inside_of_them():
    def conda(name, *provides):
        return Artifact(name=name, version="1", kind="conda", digest=SHA, provides=provides)

    lock = EnvironmentLock(
        kind="conda",
        artifacts=(
            conda("pytorch", "torch==2.1"),
            conda("zlib"),
            conda("opencv"),
            Artifact(name="six", version="1.16", kind="wheel", digest=SHA),
            Artifact(name="own", version="0", kind="directory", digest=SHA),
        ),
    )
    named = advisories.on_index((lock,), {("opencv", "1"): (("opencv-python", "4.9"),)})
    assert named == {
        ("pytorch", "1"): (("torch", "2.1"),),
        ("zlib", "1"): (),
        ("opencv", "1"): (("opencv-python", "4.9"),),
        ("six", "1.16"): (("six", "1.16"),),
        ("own", "0"): (),
    }


# -- of this machine


def test_a_project_in_a_folder(machine, project):
    facts = asked(machine, project(LOCKED))
    assert facts.platform == locking.here()
    assert isinstance(facts.today, date)
    assert [len(lock.artifacts) for _f, lock in facts.environments[0].locked] == [2]
    assert facts.git.commit == ""
    assert [step.last_good for step in facts.history] == [""]
    assert (facts.installed, facts.advisories, facts.licences, facts.cache) == (None,) * 4


def test_what_ran_is_known(machine, project, run):
    folder = project({"MLproject": "entry_points: {main: {command: 'true'}}\n"})
    run_id = run(folder).run_id
    (step,) = asked(machine, folder).history
    assert step.last_good == run_id
    assert "R06" not in {f.code for f in verdict.judge(asked(machine, folder)).findings}


def test_with_installed_nothing_is_claimed_of_environments_that_are_not_there(machine, project):
    facts = asked(machine, project(LOCKED), installed=True)
    assert facts.installed is None
    assert facts.licences is None
    assert facts.cache is not None
    skipped = {code for one in verdict.judge(facts).skipped for code in one.codes}
    assert {"I01", "T01", "C01"} <= skipped
    assert "G01" not in skipped


def test_an_environment_that_is_there_is_inspected(machine, project):
    lock = EnvironmentLock(
        kind="python",
        platform=locking.here(),
        interpreter=Interpreter(
            implementation="cpython", version="3.11.7", abi="cpython-311", platform="linux-x86_64"
        ),
        artifacts=(
            Artifact(
                name="tinymath",
                version="1.1.0",
                kind="wheel",
                digest=SHA,
                filename="tinymath-1.1.0-py3-none-any.whl",
                url="https://files.pythonhosted.org/tinymath-1.1.0-py3-none-any.whl",
            ),
        ),
    )
    place = Place(machine.home.root, lock.digest)
    site = pathlib.Path(place.prefix) / "lib" / "python3.11" / "site-packages"
    info = site / "left_over-0.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: left-over\nVersion: 0.9\nLicense-Expression: MIT\n")
    (info / "RECORD").write_text("gone.py,,\nleft_over-0.9.dist-info/METADATA,,\n")
    (site / "start.pth").write_text("import this\n")
    place.commit({"digest": lock.digest, "lock": dump(lock), "bytes": 100, "built_ns": 1})
    path = f"lockfiles/pylock.{locking.here()}.toml"
    files = {
        "MLproject": MLPROJECT,
        "python_env.yaml": "python: '3.11'\ndependencies: [tinymath]\n",
        path: pylock.encode((lock,), {}).decode(),
    }
    facts = asked(machine, project(files), installed=True)
    found = {(f.code, f.subject) for f in verdict.judge(facts).findings if f.code[0] in "ITX"}
    assert {
        ("I01", "tinymath"),
        ("I02", "left-over"),
        ("T02", "lib/python3.11/site-packages/gone.py"),
        ("T03", "lib/python3.11/site-packages/start.pth"),
        ("X01", "lib/python3.11/site-packages/start.pth"),
    } <= found
    assert [(one.name, one.text) for one in facts.licences] == [("left-over", "MIT")]
    assert asked(machine, project(files)).installed is None


def advisory(name, fixed):
    return json.dumps(
        {
            "id": f"PYSEC-1-{name}",
            "modified": "2026-01-01T00:00:00Z",
            "affected": [
                {
                    "package": {"ecosystem": "PyPI", "name": name},
                    "ranges": [
                        {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}
                    ],
                }
            ],
        }
    )


def test_a_folder_of_advisories_is_asked(machine, project, tmp_path):
    osv = tmp_path / "osv"
    osv.mkdir()
    (osv / "1.json").write_text(advisory("tinymath", "1.2"))
    (osv / "2.json").write_text(advisory("other", "1.9"))
    facts = asked(machine, project(LOCKED), osv=str(osv), offline=True)
    (match,) = facts.advisories.matches
    assert (match.id, match.name, match.version, match.fixed) == (
        "PYSEC-1-tinymath",
        "tinymath",
        "1.1.0",
        ("1.2",),
    )
    (finding,) = [f for f in verdict.judge(facts).findings if f.code == "V01"]
    assert str(finding.where) == f"lockfiles/pylock.{locking.here()}.toml:5"


def test_advisories_that_are_not_there_are_an_error(machine, project, tmp_path):
    with pytest.raises(UsageError, match="no advisories"):
        asked(machine, project(LOCKED), osv=str(tmp_path / "nothing"))


def test_collecting_runs_nothing_of_the_project(machine, project):
    """A hostile project: whatever could be run would leave a mark."""
    trap = "import pathlib; pathlib.Path('ran').touch()\n"
    folder = project(
        {
            **LOCKED,
            "setup.py": trap,
            "sitecustomize.py": trap,
            "conftest.py": trap,
            "MLproject": MLPROJECT.replace("python main.py", "touch ran"),
            "python_env.yaml": ENVIRONMENT + "  - .\n",
        }
    )
    verdict.judge(asked(machine, folder, installed=True))
    assert not list(folder.rglob("ran"))


# -- size


def test_two_hundred_packages_in_a_lock_are_judged_once_each():
    blocks = [
        f'[[packages]]\nname = "p{n}"\nversion = "1.0"\nwheels = [{{ url = "https://files.'
        f'pythonhosted.org/p{n}-1.0-py3-none-any.whl", hashes = {{ sha256 = "{SHA}" }} }}]\n'
        for n in range(200)
    ]
    text = 'lock-version = "1.0"\ncreated-by = "uv"\n' + "\n".join(blocks)
    asked_for = "python: '3.11'\ndependencies:\n" + "".join(f"  - p{n}\n" for n in range(200))
    files = {"python_env.yaml": asked_for, "lockfiles/pylock.linux-64.toml": text}
    facts = collect(files, advisories={"source": "osv", "matches": [
        {"id": f"X-{n}", "name": f"p{n}", "version": "1.0"} for n in range(200)
    ]})  # fmt: skip
    report = verdict.judge(facts)
    assert report.packages == 200
    hits = [f for f in report.findings if f.code == "V01"]
    assert len({f.where.line for f in hits}) == len(hits) == 200


def test_the_fakes_of_these_tests_have_all_that_the_real_ones_have():
    named = {name for name in vars(auditing.Here) if not name.startswith("_")}
    assert named == {name for name in vars(World) if not name.startswith("_")} | {"platform"}
    assert {"source", "entries", "read"} <= {*dir(Tree({}))}
