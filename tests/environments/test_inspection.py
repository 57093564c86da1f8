"""Whatever is done to an environment after it was built is found, and named."""

from __future__ import annotations

import base64
import os
import pathlib
import py_compile
import shutil
import sys

import pytest
from environments.realized import (
    SITE,
    Maker,
    artifact,
    conda_package,
    conda_prefix,
    distribution,
    house,
)

from repro.environments import cache, inspection, packages, treehash
from repro.lock import EnvironmentLock
from repro.value import replace


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two wheels. Not to be changed."""
    wheels = house(tmp_path_factory.mktemp("wheels"))
    return wheels.wheel("alpha", "1.0"), wheels.wheel("beta", "1.5")


@pytest.fixture(scope="module")
def make(tmp_path_factory, uv_cache):
    environ = {"HOME": "/", "PATH": os.environ["PATH"], "UV_CACHE_DIR": str(uv_cache)}
    return Maker(tmp_path_factory.mktemp("store"), environ)


@pytest.fixture(scope="module")
def lock(make, files):
    return make.lock(*files)


@pytest.fixture(scope="module")
def built(make, lock, tmp_path_factory):
    """One environment for all tests, with a copy of how it was built."""
    prefix = make(lock)
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(prefix, copy, symlinks=True, dirs_exist_ok=True)
    return pathlib.Path(prefix), copy, pathlib.Path(treehash.list_of(prefix)).read_bytes()


@pytest.fixture
def prefix(built):
    """The environment, as it was built; it may be changed."""
    prefix, copy, listed = built
    shutil.rmtree(prefix)
    shutil.copytree(copy, prefix, symlinks=True)
    pathlib.Path(treehash.list_of(str(prefix))).write_bytes(listed)
    return prefix


def found(prefix, lock):
    """What an inspection tells, as (kind, path or package)."""
    seen = inspection.inspect(str(prefix), lock)
    return [(f.kind, f.path or f.package) for f in seen.findings]


def forget(prefix):
    """Lose the list of files, as when a store's memos are removed."""
    os.unlink(treehash.list_of(str(prefix)))


def test_nothing_is_found_in_what_was_just_built(prefix, lock):
    seen = inspection.inspect(str(prefix), lock)
    assert seen.findings == ()
    assert seen.listed
    assert seen.tree == seen.recorded == cache.marker(str(prefix))["tree"]
    assert {p.name for p in packages.read(str(prefix)).packages} == {"alpha", "beta"}
    assert seen.files > 8
    assert seen.bytes > 1000
    forget(prefix)
    again = inspection.inspect(str(prefix), lock)
    assert (again.findings, again.listed) == ((), False)


def rewrite(prefix):
    """Change a module and its RECORD, so that the package agrees with itself."""
    module, record = prefix / SITE / "beta.py", prefix / SITE / "beta-1.5.dist-info/RECORD"
    before = packages.read(str(prefix)).claims[f"{SITE}/beta.py"].digest
    module.write_text("EVIL = 1\n")
    after = treehash.scan(str(prefix))[f"{SITE}/beta.py"][1]
    record.write_text(record.read_text().replace(coded(before), coded(after)))
    assert packages.read(str(prefix)).claims[f"{SITE}/beta.py"].digest == after


def coded(digest):
    return base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode()


TAMPERING = [
    ("changed", f"{SITE}/alpha.py", lambda p: (p / SITE / "alpha.py").write_text("A = 2\n")),
    ("missing", f"{SITE}/alpha.py", lambda p: (p / SITE / "alpha.py").unlink()),
    ("changed", "bin/beta", lambda p: (p / "bin/beta").write_text("#!/bin/sh\n")),
    ("changed", "bin/beta", lambda p: (p / "bin/beta").chmod(0o644)),
    ("extra", f"{SITE}/new.py", lambda p: (p / SITE / "new.py").write_text("")),
    ("extra", "bin/new", lambda p: (p / "bin/new").write_text("")),
]


@pytest.mark.parametrize(("kind", "path", "change"), TAMPERING)
def test_a_change_is_found_once_and_named(prefix, lock, kind, path, change):
    change(prefix)
    assert found(prefix, lock) == [(kind, path)]


@pytest.mark.parametrize(("kind", "path", "change"), [t for t in TAMPERING if t[1] != "bin/beta"])
def test_without_a_list_the_records_tell(prefix, lock, kind, path, change):
    forget(prefix)
    change(prefix)
    assert set(found(prefix, lock)) == {(kind, path), ("other-tree", "")}


def test_a_record_that_was_changed_too_hides_nothing(prefix, lock):
    rewrite(prefix)
    expected = [("changed", f"{SITE}/beta-1.5.dist-info/RECORD"), ("changed", f"{SITE}/beta.py")]
    assert sorted(found(prefix, lock)) == expected
    forget(prefix)
    assert found(prefix, lock) == [("other-tree", "")]


def test_changed_bytecode_is_found_and_new_bytecode_is_not(make, lock):
    def build(prefix, lock):
        make.install(prefix, lock)
        for source in pathlib.Path(prefix, SITE).glob("*.py"):
            # named, since a variable may send byte-code elsewhere
            name = f"{source.stem}.{sys.implementation.cache_tag}.pyc"
            py_compile.compile(str(source), cfile=str(source.parent / "__pycache__" / name))

    lock = replace(lock, platform="compiled")
    prefix = pathlib.Path(make(lock, build))
    cached = next((prefix / SITE / "__pycache__").glob("alpha.*.pyc"))
    (cached.parent / "other.cpython-311.pyc").write_bytes(b"x")
    assert found(prefix, lock) == []
    cached.unlink()
    assert found(prefix, lock) == []
    cached.write_bytes(b"evil")
    assert found(prefix, lock) == [("changed", str(cached.relative_to(prefix)))]


def test_what_a_venv_has_of_its_own_is_held_to_the_list(prefix, lock):
    (prefix / "bin/activate").write_text("evil\n")
    (prefix / "pyvenv.cfg").write_text("include-system-site-packages = true\n")
    assert found(prefix, lock) == [("changed", "bin/activate"), ("changed", "pyvenv.cfg")]


def test_a_file_replaced_by_a_link_to_its_like_is_found(prefix, lock):
    place = prefix / SITE / "alpha.py"
    shutil.copy(place, prefix / "copy")
    place.unlink()
    place.symlink_to(prefix / "copy")
    assert ("changed", f"{SITE}/alpha.py") in found(prefix, lock)


def test_packages_are_held_to_the_lock(prefix, lock, make, files, tmp_path):
    wheels = house(tmp_path / "other")
    other = artifact(wheels.wheel("alpha", "3.0"))
    gamma = artifact(wheels.wheel("gamma", "1.0"))
    wanted = replace(lock, artifacts=(other, gamma))
    assert found(prefix, wanted) == [
        ("not-installed", "gamma"),
        ("not-locked", "beta"),
        ("other-version", "alpha"),
    ]
    texts = [str(f) for f in inspection.inspect(str(prefix), wanted).findings]
    assert texts == [
        "gamma is locked and not installed",
        "beta is installed and not locked",
        "alpha has another version: 1.0, not 3.0",
    ]
    same = replace(lock.artifacts[0], version="1.0.0")
    assert found(prefix, replace(lock, artifacts=(same, lock.artifacts[1]))) == []


def test_code_that_runs_at_start_is_a_notice(prefix, lock):
    site = prefix / SITE
    (site / "folders.pth").write_text("/somewhere\n# import os\n")
    (site / "code.pth").write_text("import os; os.environ['X'] = '1'\n")
    (site / "sitecustomize.py").write_text("")
    (prefix / "lib" / site.parent.name / "usercustomize.py").write_text("")
    seen = inspection.inspect(str(prefix), lock)
    assert {os.path.basename(f.path) for f in seen.notices} == {
        "code.pth",
        "sitecustomize.py",
        "usercustomize.py",
    }
    assert {f.kind for f in seen.notices} == {"runs-at-start"}
    assert len(seen.differences) == 4


def test_another_base_interpreter_is_a_notice(tmp_path, make):
    base = tmp_path / "base" / "bin" / "python3"
    base.parent.mkdir(parents=True)
    base.write_text("#!/bin/sh\n")

    def build(prefix, _lock):
        os.makedirs(f"{prefix}/bin")
        os.symlink(base, f"{prefix}/bin/python")

    lock = replace(make.lock(), platform="another base")
    prefix = make(lock, build)
    assert found(prefix, lock) == []
    base.write_text("#!/bin/sh\n# upgraded\n")
    assert found(prefix, lock) == [("other-base", str(base))]
    base.unlink()
    assert found(prefix, lock) == [("other-base", str(base))]
    assert inspection.inspect(prefix, lock).differences == ()


def test_a_hard_link_carries_a_change_into_other_environments(make, files, lock, prefix):
    """What pixi and conda users meet: one file, many environments."""

    def linked(other, _lock):
        shutil.copytree(prefix, other, copy_function=os.link, symlinks=True, dirs_exist_ok=True)
        os.unlink(os.path.join(other, treehash.MARKER))

    second = replace(lock, platform="linked")
    other = make(second, linked)
    assert os.stat(f"{other}/{SITE}/alpha.py").st_nlink == 2
    assert found(other, second) == []
    with open(prefix / SITE / "alpha.py", "a", encoding="utf-8") as file:
        file.write("EVIL = 1\n")
    assert ("changed", f"{SITE}/alpha.py") in found(other, second)
    assert ("changed", f"{SITE}/alpha.py") in found(prefix, lock)


def test_a_record_that_leads_out_claims_nothing(prefix, lock, tmp_path):
    (tmp_path / "outside").write_text("x")
    record = prefix / SITE / "beta-1.5.dist-info/RECORD"
    up = "../" * (len(prefix.parts) + 5)
    record.write_text(f'{record.read_text()}{up}etc/passwd,sha256=x,1\n/etc/hosts,,\n"odd\n')
    claims = packages.read(str(prefix)).claims
    assert [path for path in claims if path.startswith((".", "/"))] == []
    assert found(prefix, lock)[0] == ("changed", str(record.relative_to(prefix)))


def test_an_environment_of_somebody_else_can_be_inspected(tmp_path, make, lock):
    prefix = tmp_path / "theirs"
    make.install(str(prefix), lock)
    seen = inspection.inspect(str(prefix), lock)
    assert (seen.findings, seen.listed, seen.recorded) == ((), False, "")
    (prefix / SITE / "alpha.py").write_text("")
    (prefix / "stray").write_text("")
    assert found(prefix, lock) == [("changed", f"{SITE}/alpha.py"), ("extra", "stray")]


def test_a_file_without_a_digest_is_a_notice_where_nothing_else_vouches_for_it(tmp_path, lock):
    prefix = tmp_path / "env"
    described = distribution(SITE, "gamma", "1.0")
    for path, text in {**described, f"{SITE}/gamma-1.0.dist-info/RECORD": ""}.items():
        (prefix / path).parent.mkdir(parents=True, exist_ok=True)
        (prefix / path).write_text(text)
    rows = "gamma.py,,\ngamma-1.0.dist-info/METADATA,,\ngamma-1.0.dist-info/RECORD,,\n"
    (prefix / SITE / "gamma-1.0.dist-info/RECORD").write_text(rows)
    (gamma,) = (p for p in packages.read(str(prefix)).packages)
    wanted = replace(lock.artifacts[0], name=gamma.name, version="1.0")
    assert found(prefix, EnvironmentLock(kind="python", artifacts=(wanted,))) == [
        ("no-digest", f"{SITE}/gamma-1.0.dist-info/METADATA"),
        ("no-digest", f"{SITE}/gamma.py"),
    ]


# -- conda


@pytest.fixture
def conda(tmp_path):
    prefix = tmp_path / "conda"
    return prefix, conda_prefix(str(prefix))


CONDA_SITE = "lib/python3.11/site-packages"
SCRIPT = ("link-script", "bin/.py-tiny-post-link.sh")


def test_a_conda_prefix_as_it_was_installed(conda):
    assert found(*conda) == [SCRIPT]


@pytest.mark.parametrize(
    ("kind", "path", "change"),
    [
        ("changed", "lib/libsmall.so", lambda p: (p / "lib/libsmall.so").write_bytes(b"x")),
        ("missing", "lib/libsmall.so", lambda p: (p / "lib/libsmall.so").unlink()),
        ("extra", "lib/new.so", lambda p: (p / "lib/new.so").write_bytes(b"")),
        ("changed", "bin/python", lambda p: relink(p / "bin/python", "/usr/bin/python3")),
        ("changed", "bin/python", lambda p: relink(p / "bin/python", "../lib/libsmall.so")),
        ("missing", "bin/python", lambda p: (p / "bin/python").unlink()),
    ],
)
def test_a_changed_conda_prefix(conda, kind, path, change):
    prefix, lock = conda
    change(prefix)
    assert found(prefix, lock) == [(kind, path), SCRIPT]


def relink(path, target):
    path.unlink()
    path.symlink_to(target)


def test_conda_packages_are_held_to_the_lock(conda):
    prefix, lock = conda
    python, tiny, small = lock.artifacts
    wanted = replace(
        lock,
        artifacts=(
            replace(python, version="3.11.8"),
            replace(tiny, build="h1_0"),
            replace(small, digest="1" * 64),
        ),
    )
    assert found(prefix, wanted) == [
        ("other-version", "python"),
        ("other-build", "libsmall"),
        ("other-build", "py-tiny"),
        SCRIPT,
    ]
    conda_package(str(prefix), "surplus", "1", {"share/x": "x"})
    assert ("not-locked", "surplus") in found(prefix, lock)


def test_pip_over_conda_is_found_and_a_locked_pip_part_is_not(conda):
    prefix, lock = conda
    for path, text in distribution(CONDA_SITE, "gamma", "1.0").items():
        (prefix / path).parent.mkdir(exist_ok=True)
        (prefix / path).write_text(text)
    kinds = {name: kind for kind, name in found(prefix, lock)}
    assert kinds["gamma"] == "pip-installed"
    pip = replace(lock.artifacts[0], name="gamma", version="1.0", kind="wheel", build="")
    kinds = [kind for kind, _name in found(prefix, replace(lock, artifacts=(*lock.artifacts, pip)))]
    assert "pip-installed" not in kinds
    assert "not-installed" not in kinds


def test_a_record_that_is_no_json_is_that_of_a_package_without_files(conda):
    prefix, lock = conda
    next((prefix / "conda-meta").glob("libsmall*")).write_text("{")
    assert ("extra", "lib/libsmall.so") in found(prefix, lock)


def test_what_a_conda_package_is_called_on_the_index_is_read_from_it(conda, tmp_path):
    prefix, lock = conda
    known = {s.package: s.names for s in packages.subjects(lock, str(prefix), "")}
    assert known == {"python": (), "py-tiny": (("tiny", "1.0"),), "libsmall": ()}
    cache_folder = tmp_path / "pkgs"
    for path, text in distribution("site-packages", "Tiny_Two", "1.0").items():
        place = cache_folder / "py-tiny-1.0-h0_0" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    unmade = packages.subjects(lock, str(tmp_path / "nothing"), str(cache_folder))
    assert {s.package: s.names for s in unmade}["py-tiny"] == (("tiny-two", "1.0"),)
