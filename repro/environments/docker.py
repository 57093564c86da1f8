"""Images to run in: a name resolved to one exact image for each platform, and that one fetched.

Nothing is ever run by a tag. An image of a registry is locked by the digest of its manifest and by
its id, one that only this machine's engine has by its id alone, and one that the project builds by
the id of what came out.
"""

from __future__ import annotations

from repro import platforms
from repro.errors import EnvironmentFailed, Unreachable, Unsupported
from repro.images import daemon
from repro.lock import EnvironmentLock, Image
from repro.lockfiles import references
from repro.ports import Unmet
from repro.spec import DockerEnvironment
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from repro.environments.building import Built, Recipe
    from repro.images import logins
    from repro.images.daemon import Daemon
    from repro.manifest import Entry
    from repro.ports import LockRequest, Progress
    from repro.spec import Environment

RELOCK = "`repro lock --upgrade` takes what the name means today"


class Container:
    """An image that the engine has. Nothing holds it there: an engine is told to remove images."""

    def __init__(self, image: str) -> None:
        """Take the name that the engine runs it by."""
        self.image = image
        self.prefix = ""
        self.path: tuple[str, ...] = ()
        self.variables: Mapping[str, str] = {}

    def release(self) -> None:
        """Say that nothing runs in it any more."""


class Docker:
    """The images of a project.

    `root` is the folder of the project and `entries` gives its files: both are asked for only when
    something is built. `builder` is `buildah`, `docker`, or `auto`: buildah where it is installed.
    `told` is a login for one registry, used for it instead of docker's own.
    """

    kind = "docker"

    def __init__(
        self,
        home: str,
        environ: Mapping[str, str],
        *,
        root: str = "",
        entries: Callable[[], Iterable[Entry]] = lambda: (),
        builder: str = "auto",
        told: logins.Given | None = None,
    ) -> None:
        """Connect to nothing yet."""
        self._home = home
        self._environ = environ
        self._root = root
        self._entries = entries
        self._builder = builder
        self._told = told

    # -- locking

    def lock(self, request: LockRequest, progress: Progress) -> tuple[EnvironmentLock, ...]:
        """Find the image of a request for each platform; what is locked stays, if it serves.

        Raises EnvironmentFailed, with what there is instead, or Unreachable.
        """
        wanted = _docker(request.environment)
        names = request.platforms or (_machine(),)
        return tuple(self._locked(wanted, name, request, progress) for name in names)

    def _locked(
        self, wanted: DockerEnvironment, name: str, request: LockRequest, progress: Progress
    ) -> EnvironmentLock:
        upgraded = {"*", _reference(wanted)}.intersection(request.upgrade)
        for lock in request.keep:
            if lock.platform == name and not upgraded and not self.unmet(wanted, lock):
                return lock
        platform = platforms.named(name)
        if platform is None:
            raise Unsupported(
                f"no image can be for `{name}`", hints=[f"known: {', '.join(platforms.NAMES)}"]
            )
        if wanted.dockerfile:
            image, tool = self._build(wanted, platform.docker, progress)
        else:
            image, tool = self._found(wanted.image, platform.docker, progress), ""
        return EnvironmentLock(kind=self.kind, platform=name, image=image, tool=tool)

    def _found(self, asked: str, platform: str, progress: Progress) -> Image:
        """Ask the registry, and for what it does not have this machine's engine."""
        from repro.images.registry import Absent, Registry
        from repro.images.resolution import resolve

        reference = self._place(asked)
        progress(f"asking {reference.registry} for `{asked}` on {platform}")
        try:
            with Registry(reference.registry, self._environ, told=self._told) as registry:
                return resolve(registry, reference, asked, platform).image
        except (Absent, Unreachable) as error:
            local = None if reference.digest else self._local(asked, reference.name, platform)
            if local is None:
                raise
            progress(f"`{asked}` is in no registry ({error.message}): locked by its id")
            return local

    def _place(self, asked: str) -> references.Reference:
        """Give where to get an image: by its name, or from the mirror of its registry."""
        from repro.mirrors import Mirrors

        reference = _parsed(asked)
        mirrored = Mirrors(self._environ).of(reference.name)
        if mirrored == reference.name:
            return reference
        name = _parsed(mirrored)
        return replace(reference, registry=name.registry, repository=name.repository)

    def _local(self, asked: str, name: str, platform: str) -> Image | None:
        """Give an image that this machine's engine alone has, by its id."""
        try:
            with daemon.connected(self._environ) as engine:
                found = engine.inspect(asked)
        except Unreachable:
            return None
        if found is None or _origins(found, name):
            return None  # it came from the registry, which must be asked what it is
        if daemon.platform_of(found) != platform:
            raise EnvironmentFailed(
                f"the image `{asked}` is for {daemon.platform_of(found)}, not for {platform}",
                hints=["push it to a registry for all platforms, or lock for this one alone"],
            )
        return Image(reference=asked, id=str(found["Id"]), layers=daemon.layers_of(found))

    # -- building

    def _build(
        self, wanted: DockerEnvironment, platform: str, progress: Progress
    ) -> tuple[Image, str]:
        recipe = self._recipe(wanted.dockerfile, platform)
        if wanted.context and wanted.context != recipe.context:
            raise EnvironmentFailed("the files of the project changed meanwhile", hints=["again"])
        with daemon.connected(self._environ) as engine:
            built = self._built(recipe, engine, progress)
            found = engine.inspect(built.id)
        if found is None or daemon.platform_of(found) != platform:
            raise EnvironmentFailed(f"`{wanted.dockerfile}` gives no image for {platform}")
        image = Image(
            reference=_reference(wanted),
            id=built.id,
            layers=daemon.layers_of(found),
            dockerfile=wanted.dockerfile,
            context=recipe.context,
        )
        return image, built.tool

    def _recipe(self, dockerfile: str, platform: str) -> Recipe:
        from repro.environments.building import Recipe, visible

        if not self._root:
            raise EnvironmentFailed(f"`{dockerfile}` cannot be built without the project's files")
        return Recipe(
            root=self._root,
            dockerfile=dockerfile,
            entries=visible(self._entries()),
            platform=platform,
        )

    def _built(self, recipe: Recipe, engine: Daemon, progress: Progress) -> Built:
        from repro.environments.building import build, builder
        from repro.environments.tools import session

        tool = builder(self._builder, self._environ)
        progress(f"building `{recipe.dockerfile}` with {'buildah' if tool else engine.name}")
        message = f"`{recipe.dockerfile}` cannot be built"
        try:
            with session(self._home, self._environ, message) as work:
                return build(recipe, work, engine, tool, self._environ)
        except OSError as error:
            raise files.explained(error, f"building `{recipe.dockerfile}`") from None

    # -- comparing

    def unmet(self, wanted: Environment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
        """Say what of a request its lock does not give; neither registry nor engine is asked."""
        asked = _docker(wanted)
        name, image = _reference(asked), lock.image
        if image is None or lock.kind != self.kind or platforms.named(lock.platform) is None:
            why = f"no image is locked for {lock.platform or 'this platform'}"
            return (Unmet(code="D01", entry=name, why=why),)
        pairs = (
            ("", name, image.reference),
            ("the dockerfile", asked.dockerfile, image.dockerfile),
            ("the files of the build", asked.context, image.context),
        )
        return tuple(
            Unmet(code="D02", entry=name, why=_differs(what, now, then))
            for what, now, then in pairs
            if now != then
        )

    # -- fetching

    def realize(self, lock: EnvironmentLock, progress: Progress) -> Container:
        """See that the engine has the locked image, fetching or building it if it has not.

        Raises EnvironmentFailed when the image is gone, is another one, or is for another
        platform, and Unreachable when the registry or the engine does not answer.
        """
        image, platform = lock.image, platforms.named(lock.platform)
        if image is None or platform is None:
            raise Unsupported("this lock names no image")
        with daemon.connected(self._environ) as engine:
            if engine.platform != platform.docker:
                raise EnvironmentFailed(
                    f"the image is locked for {platform.docker}, and {engine.name} runs"
                    f" {engine.platform}",
                    hints=["lock it for this platform too: `repro lock --platform`"],
                )
            found = _present(engine, image)
            if found is None:
                self._fetch(image, platform.docker, engine, progress)
                found = _present(engine, image)
            return Container(_checked(image, found, platform.docker))

    def _fetch(self, image: Image, platform: str, engine: Daemon, progress: Progress) -> None:
        if image.dockerfile:
            self._rebuild(image, platform, engine, progress)
            return
        if not image.manifest:
            raise EnvironmentFailed(
                f"the image `{image.reference}` is locked by its id alone, and is not here",
                hints=[
                    f"`docker load` it: {image.id}",
                    "or push it to a registry, and lock it by its name there",
                ],
            )
        from repro.images import logins

        reference = self._place(image.reference)
        progress(f"fetching `{image.reference}` at {image.manifest}")
        login = logins.of(reference.registry, self._environ, self._told)
        try:
            engine.pull(reference.name, image.manifest, platform, login, progress)
        except daemon.Gone as gone:
            raise EnvironmentFailed(
                f"the locked image of `{image.reference}` is no longer in its registry",
                hints=[
                    *gone.hints,
                    RELOCK,
                    f"`docker login {reference.registry}` if it is private",
                ],
            ) from None

    def _rebuild(self, image: Image, platform: str, engine: Daemon, progress: Progress) -> None:
        recipe = self._recipe(image.dockerfile, platform)
        if recipe.context != image.context:
            raise EnvironmentFailed(
                f"the files that `{image.dockerfile}` was built of are not those of the project",
                hints=["`repro lock` brings the lock up to date"],
            )
        built = self._built(recipe, engine, progress)
        if built.id != image.id:
            raise EnvironmentFailed(
                f"`{image.dockerfile}` gives another image than the locked one",
                hints=[
                    f"locked {image.id}",
                    f"built  {built.id} with {built.tool}",
                    "buildah builds the same image again, docker does not",
                    "name bases by digest, and let nothing in it depend on the time or the network",
                    "or push the image, and name it as `image:`",
                ],
            )


def _docker(environment: Environment) -> DockerEnvironment:
    if not isinstance(environment, DockerEnvironment):
        raise Unsupported("this environment is no docker environment")
    return environment


def _reference(wanted: DockerEnvironment) -> str:
    return wanted.image or wanted.dockerfile


def _machine() -> str:
    import os
    import sys

    return platforms.of_machine(sys.platform, os.uname().machine)


def _parsed(asked: str) -> references.Reference:
    try:
        return references.parse(asked)
    except references.NotAReference as error:
        raise EnvironmentFailed(f"`{asked}` names no image: {error}") from None


def _differs(what: str, now: str, then: str) -> str:
    if not what:
        return f"the lock is of `{then}`"
    if what.endswith("build"):
        return f"{what} differ from those that were locked"
    return f"{what} is `{now}`, and `{then}` in the lock"


def _origins(found: Mapping[str, Any], name: str) -> list[str]:
    """Give the digests by which an image of the engine is known in the registry of `name`."""
    known = [str(pin) for pin in found.get("RepoDigests") or ()]
    return [pin for pin in known if "<" not in pin and _parsed(pin).name == name]


def _present(engine: Daemon, image: Image) -> dict[str, Any] | None:
    """Look for an image by its id, and as engines know it that keep manifests instead."""
    found = engine.inspect(image.id)
    if found is None and image.manifest:
        found = engine.inspect(f"{_parsed(image.reference).name}@{image.manifest}")
    return found


def _checked(image: Image, found: Mapping[str, Any] | None, platform: str) -> str:
    """Give the name to run an image by, if it is the locked one."""
    known = {image.id, image.manifest} - {""}
    if found is None or found["Id"] not in known or daemon.layers_of(found) != image.layers:
        raise EnvironmentFailed(
            f"the image of `{image.reference}` in the engine is not the locked one",
            hints=[f"locked {image.id}", f"found  {found['Id'] if found else 'nothing'}", RELOCK],
        )
    if daemon.platform_of(found) != platform:
        raise EnvironmentFailed(
            f"the image of `{image.reference}` is for {daemon.platform_of(found)}, and locked for"
            f" {platform}",
            hints=["`repro lock` writes the lock anew"],
        )
    return str(found["Id"])
