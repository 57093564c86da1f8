"""A conda channel made on the spot: no network, no compiler, no conda.

Its packages are written byte for byte the same each time. Two kinds of Python are in it: a shim
of a few kilobytes, which leads to an interpreter of this machine, and a full one that can be moved.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import fnmatch
import functools
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile

import zstandard

SECONDS = 1577836800  # 2020-01-01, for all that has no date of its own
PLACEHOLDER = ("/opt/placeholder" + "_placeholder" * 30)[:255]
VERSION = ".".join(map(str, sys.version_info[:2]))
PLATFORMS = ("linux-64", "linux-aarch64", "osx-arm64")
PYTHON_ABI = f"python_abi {VERSION}.* *_cp{VERSION.replace('.', '')}"


def here():
    """Name the platform of this machine, as conda does."""
    machine = os.uname().machine
    if sys.platform == "darwin":
        return "osx-arm64" if machine == "arm64" else "osx-64"
    return "linux-aarch64" if machine == "aarch64" else "linux-64"


def milliseconds(date):
    """Give a date such as 2024-01-31 as a time stamp of a package."""
    import datetime as dt

    moment = dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC)
    return int(moment.timestamp() * 1000)


class Package:
    """One conda package in the making; `files` are (kind, data, mode, how a prefix stands in it)."""

    def __init__(
        self, name, version, build="0", *, depends=(), subdir="", date="2020-01-01", **more
    ):
        self.name, self.version, self.build = name, version, build
        self.noarch = more.pop("noarch", "")
        self.subdir = "noarch" if self.noarch else subdir or here()
        self.index = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": more.pop("build_number", 0),
            "depends": list(depends),
            "constrains": list(more.pop("constrains", ())),
            "subdir": self.subdir,
            "license": more.pop("license", "MIT"),
            "timestamp": milliseconds(date),
            **({"noarch": self.noarch} if self.noarch else {}),
            **more,
        }
        self.files = {}
        self.entry_points = []
        self.renamed = {}  # what the package says a file is called
        self.lies = {}  # the digests that it says files have

    def add(self, path, data, mode=0o644, *, prefix=""):
        data = data.encode() if isinstance(data, str) else data
        self.files[path] = ("file", data, mode, prefix)
        return self

    def link(self, path, target):
        self.files[path] = ("link", target, 0o777, "")
        return self

    @property
    def stem(self):
        return f"{self.name}-{self.version}-{self.build}"

    def described(self):
        """Give the files below `info/`."""
        told = {
            "index.json": self.index,
            "paths.json": {
                "paths": [self._path(p) for p in sorted(self.files)],
                "paths_version": 1,
            },
            "about.json": {"license": self.index["license"]},
        }
        if self.noarch == "python":
            noarch = {"type": "python", "entry_points": self.entry_points}
            told["link.json"] = {"noarch": noarch, "package_metadata_version": 1}
        found = {f"info/{name}": _json(data) for name, data in told.items()}
        found["info/files"] = "".join(f"{path}\n" for path in sorted(self.files)).encode()
        return {path: ("file", data, 0o644, "") for path, data in found.items()}

    def _path(self, path):
        kind, data, _mode, prefix = self.files[path]
        named = self.renamed.get(path, path)
        if kind == "link":
            digest, size, how = hashlib.sha256(b"").hexdigest(), 0, "softlink"
        else:
            digest, size, how = hashlib.sha256(data).hexdigest(), len(data), "hardlink"
        entry = {
            "_path": named,
            "path_type": how,
            "sha256": self.lies.get(path, digest),
            "size_in_bytes": size,
        }
        return entry | ({"prefix_placeholder": PLACEHOLDER, "file_mode": prefix} if prefix else {})

    def archive(self, form="conda"):
        """Give the package as the bytes of a file."""
        if form == "tar.bz2":
            return bz2.compress(_tar({**self.described(), **self.files}))
        squeeze = zstandard.ZstdCompressor(level=1).compress
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in (
                ("metadata.json", b'{"conda_pkg_format_version": 2}'),
                (f"pkg-{self.stem}.tar.zst", squeeze(_tar(self.files))),
                (f"info-{self.stem}.tar.zst", squeeze(_tar(self.described()))),
            ):
                archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
        return buffer.getvalue()


class Channel:
    """A channel in a folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.records = {}
        (self.folder / "noarch").mkdir(parents=True, exist_ok=True)

    @property
    def url(self):
        return self.folder.as_uri()

    def add(self, *packages, form="conda"):
        """Write packages; `index` publishes them."""
        for package in packages:
            data = package.archive(form)
            path = self.folder / package.subdir / f"{package.stem}.{form}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            self.records.setdefault(package.subdir, {})[path.name] = {
                **package.index,
                "md5": hashlib.md5(data).hexdigest(),
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
            }
        return self.index()

    def remove(self, *stems):
        """Take packages out of the index."""
        for records in self.records.values():
            for name in [n for n in records if n.rpartition(".")[0] in stems]:
                del records[name]
        return self.index()

    def index(self):
        for subdir in {"noarch", *PLATFORMS, *self.records}:
            found = self.records.get(subdir, {})
            form = {n: r for n, r in found.items() if n.endswith(".conda")}
            old = {n: r for n, r in found.items() if not n.endswith(".conda")}
            (self.folder / subdir).mkdir(exist_ok=True)
            (self.folder / subdir / "repodata.json").write_bytes(
                _json(
                    {
                        "info": {"subdir": subdir},
                        "packages": old,
                        "packages.conda": form,
                        "removed": [],
                        "repodata_version": 1,
                    }
                )
            )
        return self

    def path(self, stem):
        """Give the path of a package's file."""
        return next(p for p in self.folder.glob(f"*/{stem}.*"))


class Server:
    """Serves a channel over HTTP on the loopback interface; `answer` may answer first."""

    def __init__(self, channel, answer=lambda _handler: False):
        self.asked = []
        handler = functools.partial(_Handler, server_=self, directory=str(channel.folder))
        self.answer = answer
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def host(self):
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self):
        return f"http://{self.host}"

    @property
    def packages(self):
        """Name the packages that were asked for."""
        return [p.rpartition("/")[2] for p in self.asked if p.endswith((".conda", ".tar.bz2"))]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # of the usual 5, a sixth who asks at once waits for a second


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args, server_, **kwargs):
        self.server_ = server_
        super().__init__(*args, **kwargs)

    def do_GET(self):
        self.server_.asked.append(self.path)
        with contextlib.suppress(ConnectionError):
            if not self.server_.answer(self):
                super().do_GET()

    def give(self, data, *, says=None):
        """Answer with bytes; `says` is the length that is announced."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) if says is None else says))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        """Say nothing."""


def _json(data):
    return json.dumps(data, sort_keys=True).encode()


def _tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, (kind, data, mode, _prefix) in sorted(members.items()):
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = SECONDS, mode
            if kind == "link":
                member.type, member.linkname = tarfile.SYMTYPE, data
                archive.addfile(member)
            else:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


# -- Python


def python_abi(version=VERSION):
    """What keeps packages of one Python together."""
    build = f"1_cp{version.replace('.', '')}"
    return Package(
        "python_abi", version, build, noarch="generic", constrains=[f"python {version}.*"]
    )


def shim():
    """Give a Python of a few kilobytes that leads to the interpreter which runs the tests."""
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    full = sys.version.split()[0]
    package = _python(full, "shim_0_cpython")
    settings = f"home = {os.path.dirname(executable)}\ninclude-system-site-packages = false\nversion = {full}\n"
    package.add("pyvenv.cfg", settings)
    package.link(f"bin/python{VERSION}", executable)
    return package


def stand_in(subdir):
    """Give what can be locked as the Python of another platform."""
    return _python(f"{VERSION}.99", "0_cpython", subdir)


def _python(full, build, subdir=""):
    site = f"lib/python{VERSION}/site-packages"
    package = Package(
        "python",
        full,
        build,
        subdir=subdir,
        depends=[PYTHON_ABI],
        license="PSF-2.0",
        python_site_packages_path=site,
    )
    package.add(f"{site}/README.txt", "packages go here\n")
    for name in ("python", "python3"):
        package.link(f"bin/{name}", f"python{VERSION}")
    return package


LEFT_OUT = (
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "ensurepip",
    "site-packages",
    "pydoc_data",
    "config-*",
)
UNUSED = ("*.pyc", "*.a", "*_test*.so", "*_tkinter*", "turtle.py")


def full():
    """Give a Python that needs nothing of the one it was taken from, and can be moved.

    It looks for its library relative to itself: the place that its files name for that is
    overwritten. Nothing where the interpreter of the tests is one of the system.
    """
    base, version = pathlib.Path(sys.base_prefix), VERSION
    if base == pathlib.Path("/usr"):
        return None
    package = _python(sys.version.split()[0], "full_0_cpython")
    standard = base / "lib" / f"python{version}"
    package.add(
        f"bin/python{version}",
        _relative(base / "bin" / f"python{version}", base, "$ORIGIN/../lib"),
        0o755,
    )
    for library in sorted((base / "lib").glob(f"libpython{version}*.so*")):
        inside = f"lib/{library.name}"
        if library.is_symlink():
            package.link(inside, os.readlink(library))
        else:
            package.add(inside, _relative(library, base, "$ORIGIN"), 0o755)
    for folder, folders, names in os.walk(standard):
        folders[:] = [f for f in folders if not any(fnmatch.fnmatch(f, p) for p in LEFT_OUT)]
        for name in names:
            if not any(fnmatch.fnmatch(name, p) for p in UNUSED):
                _add_standard(package, pathlib.Path(folder, name), base)
    return package


def _add_standard(package, path, base):
    inside = path.relative_to(base).as_posix()
    if path.is_symlink():
        package.link(inside, os.readlink(path))
        return
    data = path.read_bytes()
    if path.suffix == ".so":
        package.add(inside, _relative(path, base, "$ORIGIN/../.."), 0o755)
    elif str(base).encode() in data:
        package.add(inside, data.replace(str(base).encode(), PLACEHOLDER.encode()), prefix="text")
    else:
        package.add(inside, data)


def _relative(path, base, place):
    """Give a binary that looks for its libraries at `place`, without its debugging symbols."""
    with tempfile.NamedTemporaryFile() as stripped:
        command = ["strip", "--strip-unneeded", "-o", stripped.name, str(path)]
        with contextlib.suppress(OSError):
            subprocess.run(command, check=False, capture_output=True)
        data = pathlib.Path(stripped.name).read_bytes() or path.read_bytes()
    old, new = f"{base}/lib\0".encode(), f"{place}\0".encode()
    return data.replace(old, new.ljust(len(old), b"\0"))


# -- packages to play with


def pure(name, version, *, depends=(), code="", commands=(), **more):
    """Give a package for any Python."""
    package = Package(
        name, version, "pyh0_0", depends=["python >=3.8", *depends], noarch="python", **more
    )
    module = name.replace("-", "_")
    package.add(f"site-packages/{module}/__init__.py", f"__version__ = {version!r}\n{code}")
    described = f"site-packages/{module}-{version}.dist-info"
    package.add(
        f"{described}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    package.add(f"{described}/INSTALLER", "conda\n").add(f"{described}/RECORD", "")
    package.entry_points = list(commands)
    return package


ADD = "def add(a, b): return a + b\n"


def toys():
    """Give a few packages that need each other, some with dates, for all platforms."""
    yield python_abi()
    for version, date in (
        ("1.0.0", "2022-01-01"),
        ("1.1.0", "2024-01-01"),
        ("2.0.0", "2026-01-01"),
    ):
        yield pure("tinymath", version, code=ADD, date=date)
    code = "from tinymath import add\ndef main(): print('tinyml', add(40, 2))\n"
    yield pure(
        "tinyml",
        "0.3.0",
        depends=["tinymath >=1,<2"],
        code=code,
        commands=["tinyml = tinyml:main"],
        date="2022-06-01",
    )
    yield pure(
        "tinyml",
        "0.4.0",
        depends=["tinymath >=1.1"],
        code=code,
        commands=["tinyml = tinyml:main"],
        date="2025-01-01",
    )
    yield pure("pip", "24.0")
    for subdir in dict.fromkeys((*PLATFORMS, here())):
        tool = Package("cfgtool", "1.2.3", "h0_0", subdir=subdir, license="BSD-3-Clause")
        tool.add("bin/cfgtool", f"#!/bin/sh\necho prefix={PLACEHOLDER}\n", 0o755, prefix="text")
        tool.add(
            "share/cfgtool.bin", b"\0\1" + PLACEHOLDER.encode() + b"/etc\0rest\0", prefix="binary"
        )
        yield tool.link("bin/cfgtool-link", "cfgtool")


def populated(folder, *more):
    """Make a channel with a shim of Python, stand-ins for other platforms, the toys and `more`."""
    others = [stand_in(subdir) for subdir in PLATFORMS if subdir != here()]
    return Channel(folder).add(shim(), *others, *toys(), *more)


# -- wheels


def wheel(folder, name, version, *, requires=(), files=()):
    """Write a wheel into a folder for `--find-links`: a module of its name, and `files`."""
    described = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    inside = {
        f"{name}.py": f"__version__ = {version!r}\n",
        **dict(files),
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{described}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    coded = {
        path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        for path, text in inside.items()
    }
    rows = [
        f"{path},sha256={coded[path].rstrip(b'=').decode()},{len(text)}"
        for path, text in inside.items()
    ]
    inside[f"{described}/RECORD"] = "\n".join([*rows, f"{described}/RECORD,,\n"])
    with zipfile.ZipFile(
        pathlib.Path(folder) / f"{name}-{version}-py3-none-any.whl", "w"
    ) as archive:
        for path, text in inside.items():
            archive.writestr(zipfile.ZipInfo(path), text)


def of_wheel(path):
    """Give a wheel as a conda package for the Python that runs the tests, its dependencies too."""
    from packaging.requirements import Requirement

    with zipfile.ZipFile(path) as wheel:
        names = [n for n in wheel.namelist() if not n.endswith("/")]
        described = next(n for n in names if n.endswith(".dist-info/METADATA"))
        text = wheel.read(described).decode()
        name = _normal(re.search(r"^Name: (.+)$", text, re.MULTILINE)[1])
        version = re.search(r"^Version: (.+)$", text, re.MULTILINE)[1].strip()
        any_python = str(path).endswith("-none-any.whl")
        needs = [
            Requirement(line) for line in re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE)
        ]
        needs = [n for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
        own = [f"python >={VERSION}"] if any_python else [f"python {VERSION}.*", PYTHON_ABI]
        package = Package(
            name,
            version,
            "pyh_0" if any_python else f"py{VERSION.replace('.', '')}_0",
            depends=[*own, *(f"{_normal(n.name)} {n.specifier}".strip() for n in needs)],
            noarch="python" if any_python else "",
        )
        site = "site-packages/" if any_python else f"lib/python{VERSION}/site-packages/"
        places = {"purelib": site, "platlib": site, "data": "", "scripts": "bin/"}
        for inside in names:
            place = site + inside
            if ".data/" in inside:
                kind, _, rest = inside.partition(".data/")[2].partition("/")
                place = places[kind] + rest if kind in places else ""
            if place:
                executable = (
                    place.startswith("bin/") or wheel.getinfo(inside).external_attr >> 16 & 0o100
                )
                package.add(place, wheel.read(inside), 0o755 if executable else 0o644)
    return package


def _normal(name):
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
