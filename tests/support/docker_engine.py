"""A Docker daemon, a registry and a base image for tests, made from this machine alone.

A daemon that answers (`DOCKER_HOST`, or the usual socket) is used as it is. Else one is started,
where root may do so. It, and the registry, stay when the tests end, so that the next begin at
once; `python tests/support/docker_engine.py down` ends them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from typing import NamedTuple

import docker
import pytest
import requests
from docker.errors import DockerException, NotFound

HOME = pathlib.Path(tempfile.gettempdir()) / f"repro-docker-{os.getuid()}"
USUAL = "unix:///var/run/docker.sock"
COMMAND = f"sudo dockerd --data-root {HOME}/data"
BUSYBOX = "/bin/busybox"
DETACH = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""
EPOCH = 1577836800
WORD = "linux/amd64" if platform.machine() == "x86_64" else f"linux/{platform.machine()}"
# what wheels expect of any Linux (manylinux), beside what the files at hand ask for
LIBRARIES = ["libc", "libm", "libstdc++", "libgcc_s", "libpthread", "libdl", "librt", "libutil"]
LIBRARIES += ["libresolv", "libnss_dns", "libnss_files"]


class Engine(NamedTuple):
    """What a test needs to know. `tag` and `digest` name the base image in the registry."""

    host: str
    registry: str
    image: str
    tag: str
    digest: str

    def client(self):
        """Give a client of the docker SDK; close it."""
        return docker.DockerClient(base_url=self.host)

    @property
    def environ(self):
        """Give what makes the SDK and the command line use this daemon."""
        return {"DOCKER_HOST": self.host}


@pytest.fixture(scope="session")
def docker_engine():
    """A daemon with the base image in it and in a registry on loopback.

    The image has bash, busybox as everything else, and the libraries that this Python needs: with
    `python_binds()` it runs in it.
    """
    try:
        return started()
    except Missing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


class Missing(Exception):
    """What is needed is not on this machine."""


def python_binds():
    """Give the folders to bind, read-only at their own paths, for this Python to run inside."""
    return sorted({sys.prefix, sys.base_prefix})


def started(home=HOME):
    """Give an engine, started now if there is none. Raises Missing."""
    home.mkdir(mode=0o755, exist_ok=True)
    with (home / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        host = _host(home)
        registry = _registry(home)
        with contextlib.closing(docker.DockerClient(base_url=host)) as client:
            return Engine(host, registry, *_base(client, registry, home))


# --- the daemon ----------------------------------------------------------------------------


def answers(host):
    """Say whether a daemon is there."""
    try:
        if host.startswith("unix://"):  # the SDK would leave its socket open
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(host.removeprefix("unix://"))
        with contextlib.closing(docker.DockerClient(base_url=host, timeout=10)) as client:
            return client.ping()
    except (DockerException, OSError, requests.RequestException):
        return False


def _host(home):
    given = os.environ.get("DOCKER_HOST")
    private = f"unix://{home}/docker.sock"
    for host in [given] if given else [USUAL, private]:
        if answers(host):
            return host
    if given or os.getuid() != 0 or not shutil.which("dockerd"):
        msg = f"no docker daemon answers; start one with: {COMMAND}"
        raise Missing(msg)
    start_daemon(home)
    return private


def start_daemon(home, *options):
    """Start a daemon that keeps all it has below `home`; give its process id."""
    for driver in ("overlay2", "vfs"):
        argv = ["dockerd", "--data-root", f"{home}/data-{driver}", "--exec-root", f"{home}/exec"]
        argv += ["--pidfile", f"{home}/docker.pid", "--host", f"unix://{home}/docker.sock"]
        argv += ["--storage-driver", driver, *options]
        if _detached(argv, home / "dockerd.log", lambda: answers(f"unix://{home}/docker.sock")):
            return int((home / "docker.pid").read_text())
    last = (home / "dockerd.log").read_text(errors="replace")[-2000:]
    msg = f"dockerd cannot be started here; start one with: {COMMAND}\n{last}"
    raise Missing(msg)


def _detached(argv, log, ready):
    """Start what outlives the tests; say whether it came up."""
    with log.open("wb") as file:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", DETACH, str(log.with_suffix(".pid")), *argv],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=True,
        )
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if ready():
            return True
        if "failed to start daemon" in log.read_text(errors="replace"):
            return False
        time.sleep(0.1)
    return False


class Line:
    """A way to the daemon that can be cut, as if the daemon had died."""

    def __init__(self, folder, host):
        self.path, self._target = f"{folder}/docker.sock", host.removeprefix("unix://")
        self._open = []
        self._listener = socket.create_server(self.path, family=socket.AF_UNIX)
        self._open.append(self._listener)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        for line in self._open:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


# --- the registry --------------------------------------------------------------------------


def _registry(home):
    place = home / "registry.address"
    if place.exists() and _serves(place.read_text()):
        return place.read_text()
    if not shutil.which("docker-registry"):
        msg = "there is no registry; install one with: sudo apt-get install docker-registry"
        raise Missing(msg)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {
            "filesystem": {"rootdirectory": f"{home}/registry"},
            "delete": {"enabled": True},
        },
        "http": {"addr": address},
    }
    (home / "registry.yml").write_text(json.dumps(config))
    argv = ["docker-registry", "serve", str(home / "registry.yml")]
    if not _detached(argv, home / "registry.log", lambda: _serves(address)):
        msg = f"docker-registry does not start: see {home}/registry.log"
        raise Missing(msg)
    place.write_text(address)
    return address


def _serves(address):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/v2/", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


# --- the base image ------------------------------------------------------------------------


def _base(client, registry, home):
    """Load the base image and push it; give its id, tag and digest."""
    tag = f"{registry}/repro/base:1"
    archive = home / "base.tar"
    mark = f"{sys.base_prefix} {_digest(pathlib.Path(__file__).read_bytes())}"
    known = home / "base.mark"
    if not (archive.exists() and known.exists() and known.read_text() == mark):
        archive.write_bytes(base_archive())
        known.write_text(mark)
    image = _identity(archive)
    try:
        loaded = client.images.get(image)
    except NotFound:
        client.images.load(archive.read_bytes())
        loaded = client.images.get(image)
    found = [d for d in loaded.attrs["RepoDigests"] if d.startswith(f"{registry}/repro/base@")]
    if not (found and tag in loaded.tags and _holds(registry, found[0])):
        loaded.tag(tag)
        for line in client.images.push(tag, stream=True, decode=True):
            if "error" in line:
                raise Missing(line["error"])
        attributes = client.images.get(image).attrs
        found = [d for d in attributes["RepoDigests"] if d.startswith(f"{registry}/repro/base@")]
    return image, tag, found[0]


def _holds(registry, reference):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    digest = reference.partition("@")[2]
    asked = urllib.request.Request(f"http://{registry}/v2/repro/base/manifests/{digest}")
    asked.add_header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
    try:
        with opener.open(asked, timeout=5):
            return True
    except OSError:
        return False


def _digest(data):
    return hashlib.sha256(data).hexdigest()


def _identity(archive):
    with tarfile.open(archive) as tar:
        name = json.load(tar.extractfile("manifest.json"))[0]["Config"]
    return f"sha256:{name.removesuffix('.json')}"


def base_archive():
    """Give an image as `docker load` takes it; the same files give the same bytes."""
    if not os.path.exists(BUSYBOX):
        msg = "there is no busybox; install it with: sudo apt-get install busybox-static"
        raise Missing(msg)
    layer = _layer()
    config = {
        "architecture": WORD.partition("/")[2],
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["/bin/bash"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
    }
    return image_archive(config, [layer])


def image_archive(config, layers):
    """Pack an image from its configuration and its layers, the lowest first."""
    text = json.dumps(config, sort_keys=True).encode()
    name = f"{_digest(text)}.json"
    places = [f"{_digest(layer)}/layer.tar" for layer in layers]
    manifest = json.dumps([{"Config": name, "RepoTags": None, "Layers": places}]).encode()
    files = {name: text, **dict(zip(places, layers, strict=True)), "manifest.json": manifest}
    return tarred({path: (data, 0o644) for path, data in files.items()}, {})


def tarred(files, links, folders=None):
    """Give a tar of files (content, mode), links and folders (mode), always the same bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted({*files, *links, *(folders or {})}):
            info = tarfile.TarInfo(path)
            info.mtime = EPOCH
            data = b""
            if path in files:
                data, info.mode = files[path]
                info.size = len(data)
            elif path in links:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, links[path], 0o777
            else:
                info.type, info.mode = tarfile.DIRTYPE, folders[path]
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _layer():
    files = {path.lstrip("/"): (_content(path), 0o755) for path in _libraries()}
    files["bin/busybox"] = (_content(BUSYBOX), 0o755)
    files["bin/bash"] = (_content(shutil.which("bash")), 0o755)
    for path in pathlib.Path("/usr/lib/locale/C.utf8").rglob("*"):
        if path.is_file():
            files[str(path).lstrip("/")] = (path.read_bytes(), 0o644)
    files["etc/passwd"] = (b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
    files["etc/group"] = (b"root:x:0:\n", 0o644)
    files["etc/nsswitch.conf"] = (b"hosts: files dns\n", 0o644)
    files["etc/os-release"] = (b"ID=base\nNAME=base\nVERSION_ID=1\n", 0o644)
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    links = {f"bin/{n}": "busybox" for n in listed.stdout.split() if n not in ("busybox", "bash")}
    links["usr/bin/env"] = "/bin/busybox"
    folders = {"dev": 0o755, "proc": 0o755, "sys": 0o755, "usr/local/bin": 0o755}
    for path in (*files, *links, *folders.copy()):
        for parent in list(pathlib.PurePosixPath(path).parents)[:-1]:
            folders.setdefault(str(parent), 0o755)
    folders |= {"tmp": 0o1777, "root": 0o700}
    return tarred(files, links, folders)


def _content(path):
    return pathlib.Path(os.path.realpath(path)).read_bytes()


def _libraries():
    """Find what bash and this Python's own modules are linked with, outside of their prefix."""
    prefix = pathlib.Path(sys.base_prefix)
    asking = [shutil.which("bash"), os.path.realpath(sys.executable)]
    if prefix != pathlib.Path("/usr"):
        asking += [str(path) for path in prefix.glob("lib/python3*/lib-dynload/*.so")]
    done = subprocess.run(["ldd", *asking], capture_output=True, text=True, check=False)
    lines = [line.partition("=>")[2] or line for line in done.stdout.splitlines()]
    words = [line.split("(")[0].strip() for line in lines]
    found = {w for w in words if w.startswith("/") and not w.endswith(":")}
    folder = next(os.path.dirname(w) for w in sorted(found) if "libc.so" in w)
    known = {os.path.basename(w) for w in found}
    for name in LIBRARIES:
        for path in pathlib.Path(folder).glob(f"{name}.so.[0-9]*"):
            if path.name.count(".") == 2 and path.name not in known:
                found.add(str(path))
    return sorted(w for w in found if not w.startswith(f"{prefix}/") or str(prefix) == "/usr")


def down(home=HOME):
    """End what `started` has started; everything below `home` stays."""
    for name in ("registry.pid", "dockerd.pid"):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((home / name).read_text()), signal.SIGTERM)


if __name__ == "__main__":
    sys.stdout.write(f"{started() if sys.argv[1:] != ['down'] else down()}\n")
