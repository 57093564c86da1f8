from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from support import docker_engine as engines
from support import images as little

from repro import digest
from repro.environments import baking
from repro.environments.interpreters import PROBE
from repro.errors import EnvironmentFailed, Unsupported
from repro.images import archive, daemon
from repro.images.archive import Base
from repro.lock import Artifact, EnvironmentLock, Interpreter
from repro.manifest import Entry
from repro.value import replace

docker_engine = engines.docker_engine
images = little.images

HERE = "linux-64" if engines.WORD == "linux/amd64" else "linux-aarch64"
BASE = Base(id="sha256:base", platform=engines.WORD, layers=("sha256:" + "1" * 64,))
FAR = "a place with a much longer name/of/somebody/else" + "/and/more" * 12


def told():
    """What the Python of these tests is, without its virtual environment."""
    done = subprocess.run(
        [os.path.realpath(sys.executable), "-c", PROBE], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


TOLD = told()
PYTHON = Interpreter(**{field: TOLD[field] for field in Interpreter.__fields__})
SHORT = ".".join(PYTHON.version.split(".")[:2])
LOCK = EnvironmentLock(
    kind="python",
    platform=HERE,
    interpreter=PYTHON,
    artifacts=(Artifact(name="alpha", version="2.0", kind="wheel", digest="a" * 64),),
)


def stands_alone():
    source = pathlib.Path(TOLD["base"]).parents[1]
    return str(source) not in baking.SHARED and (source / "lib" / f"python{SHORT}").is_dir()


needs_own_python = pytest.mark.skipif(
    not stands_alone(), reason="this Python is part of the system: run with one of pyenv or uv"
)


@pytest.fixture
def made(wheels, settings):
    """Make a virtual environment with two packages, byte-code and all."""
    from uv import find_uv_bin

    def make(home):
        prefix = os.path.join(home, "envs", "0" * 32)
        uv = [find_uv_bin(), "--quiet", "--no-config"]
        subprocess.run([*uv, "venv", "--python", TOLD["base"], prefix], env=settings, check=True)
        install = ["pip", "install", "--python", f"{prefix}/bin/python", "--link-mode=copy"]
        install += ["--no-index", "--find-links", str(wheels.folder), "--compile-bytecode"]
        subprocess.run([*uv, *install, "alpha"], env=settings, check=True)
        return prefix

    return make


@pytest.fixture
def written(tmp_path, settings):
    """Write an image without an engine; give its id and the files of its layers by name."""

    def write(prefix, lock=LOCK, base=BASE, **options):
        home = str(tmp_path / "store")
        with baking.baked(prefix, lock, base, home=home, environ=settings, **options) as (image, _):
            assert json.loads(image.config)["rootfs"]["diff_ids"][0] == base.layers[0]
            return image.id, {part.about: _names(part.path) for part in image.parts}

    return write


def _names(path):
    import tarfile

    with tarfile.open(path) as tar:
        return {
            m.name: tar.extractfile(m).read() if m.isreg() else m.linkname.encode() for m in tar
        }


# -- the same everywhere


@needs_own_python
def test_two_homes_give_the_same_image(made, written, tmp_path):
    results = []
    for home in (tmp_path / "a", tmp_path / FAR):
        prefix = made(str(home))
        results.append(written(prefix))
        places = [str(tmp_path).encode(), os.fsencode(TOLD["base"].rpartition("/bin/")[0])]
        for about, files in results[-1][1].items():
            for name, content in files.items():
                assert not [p for p in places if p in content], f"{about}: {name}"
    (one, files), (two, others) = results
    for about, content in files.items():
        changed = [n for n in content | others[about] if content.get(n) != others[about].get(n)]
        assert changed == [], about
    assert one == two


def test_on_the_python_of_a_base_nothing_of_this_machine_is_in_it(made, written, tmp_path):
    homes = (tmp_path / "a", tmp_path / FAR)
    results = [written(made(str(home)), python="/usr/bin/python3.11") for home in homes]
    assert results[0] == results[1]
    _image, files = results[0]
    assert set(files) == {"environment", "byte-code"}
    inside = files["environment"]
    assert inside["opt/repro/env/bin/python"] == b"/usr/bin/python3.11"
    assert inside["opt/repro/env/pyvenv.cfg"].startswith(b"home = /usr/bin\n")
    assert inside["opt/repro/env/bin/alpha"].startswith(b"#!/opt/repro/env/bin/python\n")
    assert not any(name.endswith(".pyc") for name in inside)
    cached = f"opt/repro/env/lib/python{SHORT}/site-packages/__pycache__"
    compiled = files["byte-code"]
    assert f"{cached}/alpha.cpython-{SHORT.replace('.', '')}.pyc" in compiled
    assert all("opt/repro/env/lib" in name for name in compiled if name.endswith(".pyc"))


def test_byte_code_is_one_layer_more_and_leaves_the_others_alone(made, written, tmp_path):
    prefix = made(str(tmp_path / "a"))
    _with, files = written(prefix, python="/usr/bin/python3")
    _without, fewer = written(prefix, python="/usr/bin/python3", byte_code=False)
    assert fewer == {"environment": files["environment"]}
    assert _with != _without


def test_an_environment_is_read_and_never_written(made, written, tmp_path):
    prefix = made(str(tmp_path / "a"))
    before = {p: p.lstat().st_ctime_ns for p in pathlib.Path(prefix).rglob("*")}
    written(prefix, python="/usr/bin/python3")
    assert {p: p.lstat().st_ctime_ns for p in pathlib.Path(prefix).rglob("*")} == before
    leftover = [*(tmp_path / "store" / "tmp").iterdir(), *(tmp_path / "store" / "leases").iterdir()]
    assert leftover == []


def test_records_name_what_is_there(made, written, tmp_path):
    _image, files = written(made(str(tmp_path / "a")), python="/usr/bin/python3")
    site = f"opt/repro/env/lib/python{SHORT}/site-packages"
    rows = files["environment"][f"{site}/alpha-2.0.dist-info/RECORD"].decode().splitlines()
    named = [row.split(",")[0] for row in rows]
    assert named == sorted(named)
    assert "../../../bin/alpha,," in rows
    assert not any("INSTALLER" in name or "__pycache__" in name for name in named)
    for name in named:
        assert os.path.normpath(f"{site}/{name}") in files["environment"]


# -- conda


def conda(folder, padding=255):
    """A prefix as an installer of conda packages leaves it."""
    files = {
        "bin/tool": f"#!{folder}/bin/python\n".encode(),
        "bin/long": f"#!/bin/sh\n'''exec' \"{folder}/bin/python\" \"$0\" \"$@\"\n' '''\nmain()\n".encode(),
        "lib/libx.so": b"\x7fELF" + f"{folder}/etc".encode().ljust(padding, b"\0") + b"end",
        "conda-meta/x-1-0.json": json.dumps({"link": {"source": f"{folder}/pkgs"}}).encode(),
        "conda-meta/history": b"==> now <==",
        "CACHEDIR.TAG": b"x",
    }
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        place.chmod(0o755 if path.startswith("bin") else 0o644)
    return str(folder)


CONDA = EnvironmentLock(
    kind="conda",
    platform=HERE,
    artifacts=(
        Artifact(name="x", version="1", kind="conda", digest="b" * 64, build="0", depends=("y",)),
        Artifact(name="wheel", version="1", kind="wheel", digest="c" * 64),
    ),
)


def test_a_conda_prefix_of_two_homes_gives_the_same_image(written, tmp_path):
    results = [written(conda(tmp_path / name / "env"), CONDA) for name in ("a", FAR)]
    assert results[0] == results[1]
    files = results[0][1]["environment"]
    assert set(results[0][1]) == {"environment"}
    assert files["opt/repro/env/bin/long"] == b"#!/opt/repro/env/bin/python\nmain()\n"
    records = sorted(name for name in files if "conda-meta/" in name)
    assert records == ["opt/repro/env/conda-meta/history", "opt/repro/env/conda-meta/x-1-0.json"]
    record = json.loads(files["opt/repro/env/conda-meta/x-1-0.json"])
    assert (record["name"], record["depends"]) == ("x", ["y"])


# -- what cannot be


def test_a_python_of_the_system_is_not_taken_along(tmp_path):
    prefix = tmp_path / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").symlink_to("/usr/bin/env")
    with pytest.raises(EnvironmentFailed, match="part of the system") as caught:
        baking._prefixes(str(prefix), LOCK, "")
    assert any(str(PYTHON) in hint for hint in caught.value.hints)


def test_another_platform_or_kind_is_refused(written, tmp_path):
    other = "linux-aarch64" if HERE == "linux-64" else "linux-64"
    with pytest.raises(EnvironmentFailed, match="cannot go onto a base"):
        written(str(tmp_path), replace(LOCK, platform=other))
    with pytest.raises(Unsupported, match="docker"):
        written(str(tmp_path), replace(LOCK, kind="docker"))


def test_a_failure_half_way_leaves_nothing(written, tmp_path):
    folder = conda(tmp_path / "env")
    lock = replace(CONDA, artifacts=(*CONDA.artifacts, CONDA.artifacts[0]))
    with pytest.raises(EnvironmentFailed, match="twice"):
        written(folder, lock)
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_settings_of_a_base_stay_and_paths_come_first():
    base = replace(BASE, settings={"Env": ["A=1=2", "PATH=/x"], "User": "me", "Hostname": "h"})
    image = json.loads(archive.image(base, [], baking._settings(base, LOCK, "k")).config)
    assert image["config"]["User"] == "me"
    assert "Hostname" not in image["config"]
    assert image["config"]["Env"] == [
        *("A=1=2", "PATH=/opt/repro/env/bin:/x", "VIRTUAL_ENV=/opt/repro/env"),
    ]
    assert image["config"]["Labels"]["repro.environment"] == LOCK.digest


# -- in an engine


@needs_own_python
def test_a_baked_environment_runs_and_is_baked_once(images, made, tmp_path):
    prefix = made(str(tmp_path / "a"))
    options = {"home": str(tmp_path / "store"), "environ": images.environ}
    lock = replace(
        LOCK, artifacts=(replace(LOCK.artifacts[0], digest=digest.of_bytes(os.urandom(9))),)
    )
    with daemon.connected(images.environ) as engine:
        image = baking.bake(prefix, lock, images.engine.tag, engine=engine, **options)
        images.made.update((image, *engine.inspect(image)["RepoTags"]))
        code = "import sys, alpha; print(alpha.VERSION, sys.prefix, alpha.__cached__)"
        version, where, cached = engine.run(image, ["python", "-c", code]).split()
        assert (version, where) == ("2.0", "/opt/repro/env")
        assert engine.run(image, ["ls", cached])
        assert engine.run(image, ["alpha"]) == "2.0\n"
        shutil.rmtree(prefix)  # it is not even looked at
        assert baking.bake(prefix, lock, images.engine.image, engine=engine, **options) == image


@needs_own_python
def test_a_python_that_does_not_start_is_no_image(images, made, tmp_path):
    bare = images.load("no C library here", engines.WORD)
    options = {"home": str(tmp_path / "store"), "environ": images.environ}
    prefix = made(str(tmp_path / "a"))
    with daemon.connected(images.environ) as engine:
        with pytest.raises(EnvironmentFailed, match="does not start"):
            baking.bake(prefix, LOCK, bare, engine=engine, byte_code=False, **options)
        with pytest.raises(EnvironmentFailed, match="not in the engine"):
            baking.bake(prefix, LOCK, "127.0.0.1:1/none:1", engine=engine, **options)


def test_a_project_goes_on_top(images, tmp_path):
    text = b"echo trained\n"
    (tmp_path / "train.sh").write_bytes(text)
    entries = (
        Entry(path="train.sh", kind="exec", content=digest.of_bytes(text), size=len(text)),
        Entry(path="models", kind="dir"),
        Entry(path="latest", kind="link", content="train.sh"),
    )
    options = {"home": str(tmp_path / "store"), "environ": images.environ}
    with daemon.connected(images.environ) as engine:
        base = images.engine.image
        image = baking.project_layer(base, str(tmp_path), entries, engine=engine, **options)
        images.made.add(image)
        assert engine.run(image, ["sh", "latest"]) == "trained\n"
        assert engine.run(image, ["pwd"]) == "/mlflow/projects/code\n"
        again = baking.project_layer(base, str(tmp_path), entries[::-1], engine=engine, **options)
        assert again == image
        (tmp_path / "train.sh").write_bytes(b"echo changed\n")
        with pytest.raises(EnvironmentFailed, match="changed while"):
            baking.project_layer(base, str(tmp_path), entries, engine=engine, **options)
