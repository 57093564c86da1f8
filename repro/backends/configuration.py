"""The configuration of a backend: a file, a text or a mapping, each mistake named at its place."""

from __future__ import annotations

import os
from collections.abc import Mapping

from repro import schemaerror, schemas
from repro.decode import Document, Node, nearest
from repro.errors import Problem, ProjectInvalid, UsageError, Where
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CODE = "backend-config"
TEXT = "--backend-config"


def read(given: Mapping[str, Any] | str | None, schema: str) -> dict[str, Any]:
    """Give the settings of a backend, checked against a schema of ours.

    `given` is a mapping, the path of a JSON or YAML file, or JSON text. Raises ProjectInvalid
    with every mistake, and UsageError where there is no such file.
    """
    if not given:
        return {}
    name, root, where = TEXT, None, {}
    if isinstance(given, Mapping):
        plain: Any = dict(given)
    else:
        name, data = _text(given)
        document = Document(name, data)
        root = document.root()
        plain = root.plain()
        where = {"document": document}
    problems = _problems(plain, schemas.load(schema), root, where.get("document"))
    if problems:
        raise ProjectInvalid(problems)
    return dict(plain)


def _text(given: object) -> tuple[str, bytes]:
    if not isinstance(given, (str, os.PathLike)):
        raise UsageError(
            f"settings of a backend are a mapping or a path, and no {type(given).__name__}"
        )
    given = os.fspath(given)
    if given.lstrip().startswith("{"):
        return TEXT, given.encode()
    path = os.path.expanduser(given)
    data = files.read(path)
    if data is None:
        raise UsageError(
            f"there is no file `{given}` with the settings of the backend",
            hints=["give the path of a JSON or YAML file, or JSON text"],
        )
    return given, data


def _problems(
    plain: Any, schema: dict[str, Any], root: Node | None, document: Document | None
) -> list[Problem]:
    import jsonschema

    found: list[Problem] = []
    for error in jsonschema.Draft202012Validator(schema).iter_errors(plain):
        path = list(error.absolute_path)
        node = root.at(path) if root else None
        if error.validator == "additionalProperties":
            known = sorted(error.schema["properties"])
            for key in sorted(error.instance.keys() - set(known), key=str):
                near = nearest(str(key), known)
                hint = f"did you mean `{near}`?" if near else f"known are: {', '.join(known)}"
                place = (node.key(key) or node) if node else None
                found.append(_problem(f"unknown setting `{key}`", place, document, hint))
            continue
        where = ".".join(str(step) for step in path)
        text = schemaerror.message(error)
        hint = error.schema.get("x-hint", "")
        found.append(_problem(f"{where}: {text}" if where else text, node, document, hint))
    return sorted(found, key=lambda p: p.where.line if p.where else 0)


def _problem(message: str, node: Node | None, document: Document | None, hint: str) -> Problem:
    where = document.where(node) if document and node else Where(file=TEXT)
    return Problem(code=CODE, message=message, where=where, hint=hint)
