"""The process that solves and installs with rattler: a job as JSON comes in, lines of JSON go out.

It is a program of its own, started by `calls`, and imports nothing of repro. Three reasons: an
interpreter that has used rattler crashes now and then when it ends (so this one ends at once, by
`os._exit`), its library of 80 MB stays out of the caller, and it can be ended at any instant.
Standard input stays open for as long as the caller lives; when it closes, this process ends.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import os
import posixpath
import re
import sys
import threading
import time
from urllib.parse import unquote, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rattler import Gateway, PackageRecord, RepoDataRecord

    Job = dict[str, Any]

PARALLEL = 16
RETRIES = 3
TOLD_EVERY_S = 0.5
LINKS = "allow-hard-links = true\n"
"""To the package cache: `cached` tells why that is safe."""

LINK_SCRIPTS = ("-post-link.sh", "-pre-link.sh", "-pre-unlink.sh", "-post-unlink.sh")
UNUSUAL = ("\n/", "//", "/\n", "\n\n", "/.", "\n.", "\nconda-meta")
"""What is in lines of paths of which one may lead out of the environment."""

PYTHON_BUILD = re.compile(r".*_cp(3\d+)t$")
DIST = re.compile(
    r"(?:.*/)?site-packages/([^/-]+)-([^/-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info(?:/.*)?"
)


class Refused(Exception):
    """A package that must not be installed: which and why, and what can be done about it."""

    def __init__(self, text: str, hint: str = "") -> None:
        """Keep the parts apart."""
        super().__init__(text)
        self.text = text
        self.hint = hint


# -- talking to the caller


class Channel:
    """The way to the caller: what anybody prints goes to the log instead."""

    def __init__(self) -> None:
        """Take standard output for answers alone."""
        self._fd = os.dup(1)
        os.dup2(2, 1)
        self._mutex = threading.Lock()

    def tell(self, **message: Any) -> None:
        """Send one line."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        with self._mutex:
            while data:
                data = data[os.write(self._fd, data) :]


def _end_with_caller() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _client(job: Job) -> Any:
    """Give what talks HTTP: as rattler does, and to mirrors."""
    from rattler.networking import middleware as layers
    from rattler.networking.client import Client

    return Client(
        [
            layers.RetryMiddleware(RETRIES),
            layers.MirrorMiddleware(job["mirrors"]),
            layers.AuthenticationMiddleware(),
            layers.OciMiddleware(),
            layers.GCSMiddleware(),
            layers.S3Middleware(),
        ]
    )


# -- solving


async def solve(job: Job, out: Channel) -> Any:
    """Solve for every platform at once; give the packages of each, and what conda ones contain."""
    import rattler

    client = _client(job)
    gateway = rattler.Gateway(cache_dir=job["repodata"], client=client)
    names = list(job["platforms"])
    out.tell(progress=f"solving for {', '.join(names)}")
    found = await asyncio.gather(*(_solved(name, job, gateway) for name in names))
    solved = dict(zip(names, found, strict=True))
    dists = await _dists(solved, client) if job["look_inside"] else {}
    return {
        "platforms": {name: [_plain(r) for r in records] for name, records in solved.items()},
        "dists": dists,
        "version": rattler.__version__,
    }


async def _solved(platform: str, job: Job, gateway: Gateway) -> list[RepoDataRecord]:
    import rattler
    from rattler.exceptions import SolverError

    wanted = job["platforms"][platform]
    before = dt.datetime.fromisoformat(job["before"]) if job["before"] else None
    try:
        return await rattler.solve(
            [rattler.Channel(url) for url in job["channels"]],
            [rattler.MatchSpec(spec, strict=False) for spec in job["specs"]],
            gateway=gateway,
            platforms=[rattler.Subdir(platform), rattler.Subdir("noarch")],
            locked_packages=await _known(platform, job, gateway, before),
            virtual_packages=[_virtual(*parts) for parts in wanted["virtual"]],
            exclude_newer=before,
            channel_relations="disabled",
        )
    except SolverError as error:
        raise Refused(f"for {platform}: {error}") from None


async def _known(
    platform: str, job: Job, gateway: Gateway, before: dt.datetime | None
) -> list[RepoDataRecord]:
    """Give what the channels say of the packages to keep; one that is gone cannot be kept."""
    import rattler

    keep = {(p["name"], p["sha256"]) for p in job["platforms"][platform]["keep"]}
    if not keep:
        return []
    names = sorted({name for name, _ in keep})
    results = await gateway.query(
        job["channels"],
        [rattler.Subdir(platform), rattler.Subdir("noarch")],
        names,
        recursive=False,
        channel_relations="disabled",
    )
    return [
        record
        for records in results
        for record in records
        if (record.name.normalized, record.sha256.hex() if record.sha256 else "") in keep
        and (before is None or (record.timestamp is not None and record.timestamp <= before))
    ]


async def look(job: Job, _out: Channel) -> Any:
    """Say what channels list now of some packages: when each was published, by its URL."""
    import rattler

    client = rattler.Client.default_client()
    results = await rattler.Gateway(cache_dir=job["repodata"], client=client).query(
        job["channels"],
        [rattler.Subdir(name) for name in job["subdirs"]],
        job["names"],
        recursive=False,
        channel_relations="disabled",
    )
    listed = (record for records in results for record in records)
    return {r.url: r.timestamp.isoformat() if r.timestamp else "" for r in listed}


def _virtual(name: str, version: str, build: str) -> Any:
    from rattler import BuildString, GenericVirtualPackage, PackageName, Version

    return GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))


def _plain(record: RepoDataRecord) -> dict[str, Any]:
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "url": record.url,
        "md5": record.md5.hex() if record.md5 else "",
        "sha256": record.sha256.hex() if record.sha256 else "",
        "depends": list(record.depends),
    }


async def _dists(solved: dict[str, list[RepoDataRecord]], client: Any) -> dict[str, list[str]]:
    """Say which Python distributions are in the packages, by the URLs of the packages."""
    urls = {
        record.url
        for records in solved.values()
        for record in records
        if any(need.startswith(("python", "pypy")) for need in record.depends)
    }
    limit = asyncio.Semaphore(PARALLEL)

    async def look(url: str) -> tuple[str, list[str]]:
        async with limit:
            return url, await _inside(url, client)

    return dict(await asyncio.gather(*(look(url) for url in sorted(urls))))


async def _inside(url: str, client: Any) -> list[str]:
    from rattler.package_streaming import PackageArchive

    parts = urlsplit(url)
    if parts.scheme == "file":
        archive = await PackageArchive.from_path(unquote(parts.path))
    else:
        archive = await PackageArchive.from_url(client, url)
    read = await archive.read_files(["info/paths.json", "info/files"])
    listed = json.loads(read["info/paths.json"] or b"{}").get("paths", ())
    paths = [p["_path"] for p in listed] or (read["info/files"] or b"").decode().splitlines()
    found = (DIST.fullmatch(path) for path in paths)
    return sorted({f"{one[1]}=={one[2]}" for one in found if one})


# -- installing


async def install(job: Job, out: Channel) -> Any:
    """Fetch what is not cached, each file checked by its SHA-256, and link it into the prefix."""
    import rattler

    packages = {package["name"]: package for package in job["packages"]}
    mode = rattler.ValidationMode.fast()  # the caller has compared the states of all files
    _check_machine(packages)
    for package in packages.values():
        _check_file(package, job["cache"])
    await rattler.install(
        [_record(package) for package in packages.values()],
        job["prefix"],
        package_cache=rattler.PackageCache.new_layered([job["cache"]], validation_mode=mode),
        platform=rattler.Subdir(job["platform"]),
        client=_client(job),
        config=rattler.Config.from_toml(LINKS),
        execute_link_scripts=job["link_scripts"],
        reporter=Reporter(packages, job, out),
    )
    return {"version": rattler.__version__}


def _check_file(package: dict[str, Any], cache: str) -> None:
    """Check the SHA-256 of a package on disk: rattler does that only for what it downloads."""
    parts = urlsplit(package["url"])
    if parts.scheme != "file" or _is_cached(package, cache):
        return
    try:
        with open(unquote(parts.path), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Refused(f"`{package['filename']}` cannot be read: {error.strerror}") from None
    if found != package["sha256"]:
        wrong = f"{package['url']} to {cache}: expected {package['sha256']}, got {found}"
        raise OSError(f"hash mismatch when extracting {wrong}")


def _is_cached(package: dict[str, Any], cache: str) -> bool:
    """Say whether the cache has a package by this SHA-256: rattler notes it after a counter."""
    folder = os.path.join(cache, _stem(package))
    try:
        with open(f"{folder}.lock", "rb") as file:
            noted = file.read()
    except FileNotFoundError:
        return False
    return os.path.isdir(folder) and noted[8:].startswith(bytes.fromhex(package["sha256"]))


def _stem(package: dict[str, Any]) -> str:
    return f"{package['name']}-{package['version']}-{package['build']}"


def _record(package: dict[str, Any]) -> RepoDataRecord:
    import rattler

    subdir = package["url"].split("/")[-2]
    free = PYTHON_BUILD.match(package["build"]) if package["name"] == "python" else None
    minor = ".".join(package["version"].split(".")[:2])
    record: PackageRecord = rattler.PackageRecord(
        package["name"],
        package["version"],
        rattler.BuildString(package["build"]),
        0,
        subdir,
        depends=package["depends"],
        sha256=bytes.fromhex(package["sha256"]),
        md5=bytes.fromhex(package["md5"]) if package["md5"] else None,
        python_site_packages_path=f"lib/python{minor}t/site-packages" if free else None,
    )
    channel = package["url"].rsplit("/", 2)[0]
    return rattler.RepoDataRecord(record, package["filename"], package["url"], channel)


def _check_machine(packages: dict[str, dict[str, Any]]) -> None:
    """Refuse packages that need a newer system than this; a missing accelerator is no reason."""
    import rattler

    here = {
        generic.name.normalized: rattler.PackageRecord(
            generic.name.normalized, str(generic.version), generic.build_string, 0, "noarch"
        )
        for generic in (v.into_generic() for v in rattler.VirtualPackage.detect())
    }
    for package in packages.values():
        for need in package["depends"]:
            name = need.split()[0]
            if name not in ("__glibc", "__osx", "__linux"):
                continue
            if name in here and not rattler.MatchSpec(need, strict=False).matches(here[name]):
                version = here[name].version
                told = f"`{package['name']}` needs {need}, and this machine has {name} {version}"
                raise Refused(told)


class Reporter:
    """Follows an installation; looks at each package when it is there, before it is linked.

    What is wrong with one ends this process at once: rattler would go on.
    """

    def __init__(self, packages: dict[str, dict[str, Any]], job: Job, out: Channel) -> None:
        """Take the packages by name."""
        self._packages = packages
        self._cache = job["cache"]
        self._scripts = job["link_scripts"]
        self._out = out
        self._mutex = threading.Lock()
        self._files: set[str] = set()
        self._links: set[str] = set()
        self._bytes: dict[int, int] = {}
        self._linked = 0
        self._told = time.monotonic()

    def on_link_start(self, operation: int, package_name: str) -> int:
        """Look at a package."""
        try:
            with self._mutex:
                self._look(self._packages[package_name])
        except Refused as error:
            self._end(f"`{package_name}` is refused: {error.text}", error.hint)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._end(f"`{package_name}` is refused: its description cannot be read ({error})")
        return operation

    def on_link_complete(self, index: int) -> None:
        """Count a package."""
        self._linked += 1
        self._tell()
        del index

    def on_download_start(self, cache_entry: int) -> int:
        """Begin to count bytes."""
        return cache_entry

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:
        """Count bytes."""
        self._bytes[download_idx] = progress
        self._tell()
        del total

    def __getattr__(self, name: str) -> Any:
        """Take all other calls without doing anything."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_arguments: 0

    def _end(self, why: str, hint: str = "") -> None:
        self._out.tell(failed={"kind": "Refused", "text": why, "hint": hint})
        os._exit(0)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < TOLD_EVERY_S:
            return
        self._told = now
        fetched = sum(self._bytes.values()) / 1e6
        told = f", {fetched:.1f} MB downloaded" if self._bytes else ""
        self._out.tell(progress=f"installed {self._linked} of {len(self._packages)} packages{told}")

    def _look(self, package: dict[str, Any]) -> None:
        folder = os.path.join(self._cache, _stem(package))
        os.utime(folder)  # it is in use: the longest unused are removed first
        self._named(package, os.path.join(folder, "info", "index.json"))
        files = _listed(os.path.join(folder, "info"))
        links = files.intersection(_links(folder, ""))
        _check_paths(files)
        for path in () if self._scripts else files:
            if path.endswith(LINK_SCRIPTS) and _is_link_script(path):
                told = f"it has a script to run when it is installed, `{path}`"
                raise Refused(told, "`REPRO_LINK_SCRIPTS=1` lets packages run code of theirs")
        self._files |= files
        self._links |= links
        _check_parents(self._files if links else files, self._links)

    @staticmethod
    def _named(package: dict[str, Any], path: str) -> None:
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
        for key in ("name", "version", "build"):
            if str(index.get(key)).lower() != package[key].lower():
                raise Refused(f"it calls itself `{index.get('name')} {index.get('version')}`")
        site = index.get("python_site_packages_path")
        if site is not None:
            _check_path(str(site))


def _listed(info: str) -> set[str]:
    """Give the files that a package says it has, in the new way or the old one."""
    try:
        with open(os.path.join(info, "paths.json"), encoding="utf-8") as file:
            return {str(path["_path"]) for path in json.load(file)["paths"]}
    except FileNotFoundError:
        with open(os.path.join(info, "files"), encoding="utf-8") as file:
            return set(file.read().splitlines())


def _links(folder: str, base: str) -> Iterator[str]:
    """Give the links below a folder, which is quicker than to ask for each file."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_symlink():
                yield base + entry.name
            elif entry.is_dir():
                yield from _links(entry.path, f"{base}{entry.name}/")


def _check_paths(paths: set[str]) -> None:
    """Look at paths one by one where any of them stands out."""
    text = "\n".join(("", *paths, ""))
    if any(part in text for part in UNUSUAL) or text.count("\n") > len(paths) + 1:
        for path in paths:
            _check_path(path)


def _check_path(path: str) -> None:
    top = path.partition("/")[0]
    if path.startswith("/") or posixpath.normpath(path) != path or top == "..":
        raise Refused(f"its file `{path[:200]}` is outside of the environment")
    if top in ("conda-meta", "."):
        raise Refused(f"its file `{path[:200]}` is one of the installer's")


def _check_parents(files: set[str], links: set[str]) -> None:
    """Refuse files below links: where they would be written is for a link to say."""
    seen = {""}
    for folder in {path.rpartition("/")[0] for path in files} if links else ():
        parent = folder
        while parent not in seen:
            if parent in links:
                path = next(path for path in files if path.startswith(f"{parent}/"))
                raise Refused(f"its file `{path[:200]}` lies below a link")
            seen.add(parent)
            parent = parent.rpartition("/")[0]


def _is_link_script(path: str) -> bool:
    folder, name = posixpath.split(path)
    return folder == "bin" and name.startswith(".") and name.endswith(LINK_SCRIPTS)


# -- the program


def main() -> None:
    """Do one job and end."""
    out = Channel()
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_caller, daemon=True).start()
    task = {"solve": solve, "look": look, "install": install}[job["do"]]
    try:
        out.tell(answer=asyncio.run(task(job, out)))
    except ImportError as error:
        out.tell(failed={"kind": "ImportError", "text": str(error)})
    except Refused as error:
        out.tell(failed={"kind": "Refused", "text": error.text, "hint": error.hint})
    except Exception as error:  # noqa: BLE001  (the caller explains it; nobody sees a traceback)
        out.tell(failed={"kind": type(error).__name__, "text": str(error)})
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
