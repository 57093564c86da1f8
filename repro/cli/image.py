"""`repro env image`: a made environment, and the project if asked for, as a container image."""

from __future__ import annotations

import os

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.cli.options import Options
    from repro.cli.target import Target
    from repro.images.daemon import Daemon
    from repro.lock import EnvironmentLock, Image
    from repro.machine import Machine
    from repro.ports import Progress


def execute(machine: Machine, options: Options) -> int:
    """Run the command."""
    from repro.cli import render, target
    from repro.environments import elsewhere
    from repro.images import daemon

    progress = target.progress(options)
    found = target.find(machine, options, progress)
    lock = _lock_of(found)
    if options.flag("with_project") and found.tree is None:
        hint = "name the project by its path or URI, and not its environment"
        raise errors.UsageError("`--with-project` needs a project", hints=[hint])
    name = options.text("base") or elsewhere.base_name(os.environ)
    base = elsewhere.base(name, lock.platform, machine.supply.kind("docker"), progress)
    kind = machine.supply.kind(lock.kind, found.tree)
    with daemon.connected(os.environ) as engine:
        image = elsewhere.baked(
            lock, kind, base.id, engine, machine.home.root, os.environ, progress
        )
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
