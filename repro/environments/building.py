"""Images that a project builds from a Dockerfile, of nothing but its own files.

buildah is taken where it is installed: given a date it builds the same image again. Docker does
not: its images can be kept and pushed, but not made anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil

from repro import digest, manifest
from repro.errors import EnvironmentFailed, UsageError
from repro.images import layers
from repro.images.archive import rewrite
from repro.lockfiles.names import is_lock
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.environments.tools import Session
    from repro.images.daemon import Daemon
    from repro.manifest import Entry

BUILDERS = ("auto", "buildah", "docker")
LOCAL_REGISTRY = re.compile(r"\b(?:localhost|127\.\d+\.\d+\.\d+)(?::\d+)?(?=/)")
"""What docker trusts without TLS, and buildah must be told to."""


class Built(Value):
    """An image that was built, and what built it."""

    id: str
    tool: str


class Recipe(Value):
    """What to build: a Dockerfile and the files that it may copy, all below the folder `root`."""

    root: str
    dockerfile: str
    entries: tuple[Entry, ...]
    platform: str

    @property
    def context(self) -> str:
        """Give the tree digest of the files that the build can see."""
        return manifest.of(self.entries)


def visible(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Give the files that a build can see: all but lock files, which name what it makes."""
    return tuple(entry for entry in entries if not is_lock(entry.path))


def builder(wanted: str, environ: Mapping[str, str]) -> str:
    """Give the path of buildah, or nothing where docker is to build. Raises UsageError."""
    if wanted not in BUILDERS:
        raise UsageError(
            f"no builder is called `{wanted}`", hints=[f"known: {', '.join(BUILDERS)}"]
        )
    found = shutil.which("buildah", path=environ.get("PATH", "")) if wanted != "docker" else None
    if wanted == "buildah" and not found:
        raise EnvironmentFailed("buildah is not here", hints=["install the package `buildah`"])
    return found or ""


def build(
    recipe: Recipe, work: Session, daemon: Daemon, buildah: str, environ: Mapping[str, str]
) -> Built:
    """Build an image and put it into the engine; its files are copied into the folder of `work`.

    Raises EnvironmentFailed with the last words of the builder.
    """
    folder = os.path.join(work.folder, "context")
    _copy(recipe, folder)
    if not os.path.isfile(os.path.join(folder, recipe.dockerfile)):
        raise EnvironmentFailed(
            f"`{recipe.dockerfile}` is not among the files of the project",
            hints=["the builder sees the files that Git tracks, or does not ignore"],
        )
    if buildah:
        return _with_buildah(recipe, folder, work, daemon, (buildah, environ))
    tar = os.path.join(work.folder, "context.tar")
    with open(tar, "wb") as out:
        members = (
            layers.of_file(path, os.path.join(folder, path)) for path in layers.below(folder)
        )
        layers.write(out, members)
    with open(tar, "rb") as context:
        return Built(id=daemon.build(context, recipe.dockerfile, recipe.platform), tool=daemon.name)


def _with_buildah(
    recipe: Recipe,
    folder: str,
    work: Session,
    daemon: Daemon,
    tool: tuple[str, Mapping[str, str]],
) -> Built:
    buildah, environ = tool
    name = f"localhost/repro-build-{os.urandom(8).hex()}"
    archive = os.path.join(work.folder, "image.tar")
    ignore = work.write_lines("ignore", ())  # Git's rules have been applied, no others are
    run = ("env", *_settings(recipe, folder, work, environ), buildah)
    version = " ".join(work.run(buildah, "--version").split()[0:3:2])
    try:
        work.run(
            *(*run, "build", "--format=docker", "--isolation=chroot"),
            *(f"--timestamp={layers.EPOCH}", f"--platform={recipe.platform}"),
            *(f"--ignorefile={ignore}", f"--tag={name}"),
            *("--file", os.path.join(folder, recipe.dockerfile), folder),
        )
        work.run(*run, "push", name, f"docker-archive:{archive}")
    finally:
        with contextlib.suppress(EnvironmentFailed):  # where nothing was built
            work.run(*run, "rmi", "--force", name)
    fixed = os.path.join(work.folder, "rewritten.tar")
    with open(fixed, "wb") as out:
        image = rewrite(archive, out)
    with open(fixed, "rb") as file:
        daemon.load(file)
    return Built(id=image, tool=version)


def _settings(
    recipe: Recipe, folder: str, work: Session, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Make buildah understand the names of images as docker does, unless the caller tells it."""
    if "CONTAINERS_REGISTRIES_CONF" in environ:
        return ()
    text = (files.read(os.path.join(folder, recipe.dockerfile)) or b"").decode("utf-8", "replace")
    lines = ['unqualified-search-registries = ["docker.io"]', 'short-name-mode = "disabled"']
    for host in sorted(set(LOCAL_REGISTRY.findall(text))):
        lines += ["[[registry]]", f'location = "{host}"', "insecure = true"]
    return (f"CONTAINERS_REGISTRIES_CONF={work.write_lines('registries.conf', lines)}",)


def _copy(recipe: Recipe, folder: str) -> None:
    """Copy the files of the project, with one date and two modes, each checked."""
    os.mkdir(folder)
    for entry in recipe.entries:
        source, place = os.path.join(recipe.root, entry.path), os.path.join(folder, entry.path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if entry.kind == "link":
            os.symlink(entry.content, place)
        elif entry.kind == "dir":
            os.makedirs(place, exist_ok=True)
        else:
            _copy_file(source, place, entry)
    for path, _folders, _files in os.walk(folder, topdown=False):
        os.chmod(path, layers.MODES["dir"])
        os.utime(path, (layers.EPOCH, layers.EPOCH))


def _copy_file(source: str, place: str, entry: Entry) -> None:
    hasher = digest.stream()
    with open(place, "xb") as out:
        for piece in layers.content(source):
            hasher.update(piece)
            out.write(piece)
    if hasher.hexdigest() != entry.content:
        raise EnvironmentFailed(f"`{entry.path}` changed while it was read", hints=["run again"])
    os.chmod(place, layers.MODES[entry.kind])
    os.utime(place, (layers.EPOCH, layers.EPOCH))
