"""`repro env image`: a made environment, and the project if asked for, as a container image."""

from __future__ import annotations

import os
import sys

from repro import errors, platforms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.cli.options import Options
    from repro.cli.target import Target
    from repro.images.daemon import Daemon
    from repro.lock import EnvironmentLock, Image
    from repro.machine import Machine
    from repro.ports import Progress

BASE = "debian:12-slim"


def execute(machine: Machine, options: Options) -> int:
    """Run the command."""
    from repro.cli import render, target
    from repro.images import daemon

    progress = target.progress(options)
    found = target.find(machine, options, progress)
    lock = _lock_of(found)
    if options.flag("with_project") and found.tree is None:
        hint = "name the project by its path or URI, and not its environment"
        raise errors.UsageError("`--with-project` needs a project", hints=[hint])
    base = _base(machine, options.text("base") or BASE, lock, progress)
    with daemon.connected(os.environ) as engine:
        image = _baked(machine, found, lock, base, engine, progress)
        if options.flag("with_project"):
            image = _with_project(machine, found, image, engine, progress)
        name = options.text("push")
        pushed = _pushed(engine, image, name, progress) if name else ""
    if options.flag("json"):
        print(render.json_text(_document(image, base, lock, found, options, pushed)))
    else:
        print(image)
    return errors.OK


def _lock_of(found: Target) -> EnvironmentLock:
    if found.lock is None:
        raise found.not_made()
    if found.lock.image is not None:
        hint = f"it is {found.lock.image.id}"
        raise errors.UsageError("the environment is an image already", hints=[hint])
    return found.lock


def _base(machine: Machine, name: str, lock: EnvironmentLock, progress: Progress) -> Image:
    """Find out which image the name of the base means, and see that the engine has it."""
    from repro.ports import LockRequest
    from repro.spec import DockerEnvironment

    here = platforms.of_machine(sys.platform, os.uname().machine)
    wanted = DockerEnvironment(image=name)
    request = LockRequest(environment=wanted, platforms=(lock.platform or here,))
    adapter = machine.supply.kind("docker")
    (found,) = adapter.lock(request, progress)
    adapter.realize(found, progress).release()
    if found.image is None:
        raise errors.EnvironmentFailed(f"`{name}` names no image")
    return found.image


def _baked(
    machine: Machine,
    found: Target,
    lock: EnvironmentLock,
    base: Image,
    engine: Daemon,
    progress: Progress,
) -> str:
    from repro.environments import baking

    realized = machine.supply.kind(lock.kind, found.tree).realize(lock, progress)
    try:
        progress(f"putting the environment onto `{base.reference}`")
        return baking.bake(
            realized.prefix,
            lock,
            base.id,
            engine=engine,
            home=machine.home.root,
            environ=os.environ,
        )
    finally:
        realized.release()


def _with_project(
    machine: Machine, found: Target, image: str, engine: Daemon, progress: Progress
) -> str:
    from repro.environments import baking

    if found.tree is None:
        return image
    progress("putting the files of the project on top")
    return baking.project_layer(
        image,
        machine.supply.root(found.tree),
        found.tree.entries(),
        engine=engine,
        home=machine.home.root,
        environ=os.environ,
    )


def _pushed(engine: Daemon, image: str, name: str, progress: Progress) -> str:
    """Push under a name; give it with the digest by which it can be pulled."""
    from repro.images import logins
    from repro.lockfiles import references

    try:
        reference = references.parse(name)
    except references.NotAReference as error:
        raise errors.UsageError(f"`--push {name}` names no image: {error}") from None
    if reference.digest:
        raise errors.UsageError("`--push` takes a name with a tag, not a digest")
    progress(f"pushing to {reference}")
    engine.tag(image, reference.name, reference.tag)
    login = logins.of(reference.registry, os.environ)
    return f"{reference}@{engine.push(reference.name, reference.tag, login)}"


def _document(
    image: str,
    base: Image,
    lock: EnvironmentLock,
    found: Target,
    options: Options,
    pushed: str,
) -> dict[str, object]:
    with_project = options.flag("with_project") and found.tree is not None
    return {
        "schema": "repro.environment-image/1",
        "image": image,
        "base": {
            "reference": base.reference,
            "id": base.id,
            "manifest": base.manifest or None,
        },
        "environment": lock.digest,
        "with_project": with_project,
        "pushed": pushed or None,
    }
