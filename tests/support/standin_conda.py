"""A stand-in for the `conda` command, with rattler behind it: the few things conda-lock asks for.

python standin_conda.py create --dry-run --json --channel URL … SPEC …
python standin_conda.py create --file EXPLICIT --prefix PREFIX

What was fetched is kept in the folder that `STANDIN_CONDA_CACHE` names, if it names one.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import sys
import tempfile
import urllib.parse
import urllib.request

import rattler

WITH_VALUE = {
    "-c": "channel",
    "--channel": "channel",
    "-p": "prefix",
    "--prefix": "prefix",
    "--file": "file",
}


def tell(text):
    sys.stdout.write(f"{text}\n")


def parsed(arguments):
    """Give the options, the flags and the rest of a command line."""
    options, flags, rest = {"channel": []}, set(), []
    words = iter(arguments)
    for word in words:
        name = WITH_VALUE.get(word)
        if name == "channel":
            options["channel"].append(next(words))
        elif name:
            options[name] = next(words)
        elif word.startswith("-"):
            flags.add(word)
        else:
            rest.append(word)
    return options, flags, rest


def declared(url, platform):
    """Give the virtual packages that a channel on disk declares: conda-lock makes such a one."""
    if not url.startswith("file://"):
        return []
    folder = pathlib.Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
    index = folder / platform / "repodata.json"
    packages = json.loads(index.read_text())["packages"].values() if index.exists() else ()
    return [
        rattler.GenericVirtualPackage(
            rattler.PackageName(p["name"]),
            rattler.Version(p["version"]),
            rattler.BuildString(str(p.get("build_string") or p.get("build") or "0")),
        )
        for p in packages
        if p["name"].startswith("__")
    ]


@contextlib.contextmanager
def cache(name):
    kept = os.environ.get("STANDIN_CONDA_CACHE")
    if kept:
        yield pathlib.Path(kept, name)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


async def dry_run(options, specs):
    platform = os.environ["CONDA_SUBDIR"]
    virtual = {url: declared(url, platform) for url in options["channel"]}
    with cache("repodata") as folder:
        records = await rattler.solve(
            [rattler.Channel(url) for url, found in virtual.items() if not found],
            [rattler.MatchSpec(spec, strict=False) for spec in specs],
            gateway=rattler.Gateway(cache_dir=folder),
            platforms=[platform, "noarch"],
            virtual_packages=[package for found in virtual.values() for package in found],
        )
    told = [
        {
            "name": r.name.normalized,
            "version": str(r.version),
            "build": str(r.build),
            "build_string": str(r.build),
            "build_number": r.build_number,
            "channel": r.channel,
            "base_url": r.channel,
            "platform": r.subdir,
            "subdir": r.subdir,
            "url": r.url,
            "fn": r.file_name,
            "md5": r.md5.hex(),
            "sha256": r.sha256.hex(),
            "depends": r.depends,
            "constrains": r.constrains,
            "size": r.size,
            "timestamp": 0,
            "dist_name": f"{r.name.normalized}-{r.version}-{r.build}",
        }
        for r in records
    ]
    return {"success": True, "actions": {"FETCH": told, "LINK": told}}


async def opened(url):
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        path = urllib.request.url2pathname(parts.path)
        return await rattler.package_streaming.PackageArchive.from_path(path)
    client = rattler.Client.default_client()
    return await rattler.package_streaming.PackageArchive.from_url(client, url)


async def explicit(lines, prefix):
    """Install what some lines name, URLs with their hashes."""
    records = []
    for line in lines:
        url, _, md5 = line.partition("#")
        if not url.strip() or url.startswith("@"):
            continue
        channel, subdir, name = url.rsplit("/", 2)
        archive = await opened(url)
        with tempfile.NamedTemporaryFile() as index:
            index.write(await archive.read_file("info/index.json"))
            index.flush()
            record = rattler.PackageRecord.from_index_json(index.name)
        record.md5, record.subdir = bytes.fromhex(md5), subdir
        records.append(rattler.RepoDataRecord(record, name, url, channel))
    with cache("pkgs") as folder:
        await rattler.install(records, prefix, cache_dir=folder, show_progress=False)


def main():
    if "--version" in sys.argv:
        tell("conda 24.1.0")
        return 0
    command, *arguments = sys.argv[1:]
    options, flags, rest = parsed(arguments)
    if command == "info":
        tell(json.dumps({"pkgs_dirs": [], "platform": os.environ.get("CONDA_SUBDIR", "")}))
    elif command == "create" and "file" in options:
        lines = pathlib.Path(options["file"]).read_text().splitlines()
        asyncio.run(explicit(lines, options["prefix"]))
    elif command == "create" and "--dry-run" in flags:
        try:
            tell(json.dumps(asyncio.run(dry_run(options, rest))))
        except rattler.exceptions.SolverError as error:
            tell(json.dumps({"success": False, "error": str(error), "message": str(error)}))
            return 1
    else:
        sys.stderr.write(f"not known here: {sys.argv[1:]}\n")
        return 2
    return 0


if __name__ == "__main__":
    import rattler.exceptions
    import rattler.package_streaming

    code = main()
    sys.stdout.flush()
    os._exit(code)
