"""S: whether a secret stands where everybody can read it."""

from __future__ import annotations

import re

from repro.audit.rules import places
from repro.audit.rules.demands import literal
from repro.audit.rules.rule import Hit
from repro.spec import CondaEnvironment, DockerEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import Facts
    from repro.errors import Where
    from repro.spec import Parameter

NAME = re.compile(
    r"(?:^|[_.-])(?:api[_-]?key|access[_-]?key|secret|secret[_-]?key|private[_-]?key|token|"
    r"passwd|password|passphrase|credentials?)$",
    re.IGNORECASE,
)
VALUE = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,}|glpat-[\w-]{20}|"
    r"hf_[A-Za-z]{30,}|sk-[A-Za-z0-9_-]{20,}|xox[abprs]-[\w-]{10,}|pypi-AgE[\w-]{20,}|"
    r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.|-----BEGIN [A-Z ]*PRIVATE KEY"
)
HEXADECIMAL = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}")
CONTENT = re.compile(r"commit|sha|hash|digest|md5|checksum|revision|version|run|id$", re.IGNORECASE)
LOGIN = re.compile(r"login|auth|key|wandb|cred", re.IGNORECASE)
ASSIGNED = re.compile(r"\b([A-Za-z_]\w*)=([^\s$'\";&|]{8,}|'[^'$]{8,}'|\"[^\"$]{8,}\")")
EMPTY = ("", "none", "null", "changeme", "xxx", "todo")
KEEP = "revoke it, say `secret: true`, and pass it when the step is run"


def is_name(name: str) -> bool:
    """Say whether a name names a secret: `api_key` does, `max_tokens` and `tokenizer` do not."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return NAME.search(words) is not None


def is_secret(name: str, value: str) -> bool:
    """Say whether a value is a secret: by its form, or by what its name says it is."""
    if VALUE.search(value):
        return True
    if value.lower() in EMPTY or value.startswith(("$", "<", "{")):
        return False
    if is_name(name):
        return True
    return bool(HEXADECIMAL.fullmatch(value) and LOGIN.search(name) and not CONTENT.search(name))


def default(facts: Facts) -> Iterator[Hit]:
    """S01: a default is a secret."""
    for entry in facts.project.entry_points:
        for one in entry.parameters:
            if one.default is not None and is_secret(one.name, one.default):
                yield Hit(
                    message=f"the parameter `{one.name}` has a secret as its default (not shown)",
                    where=places.parameter(facts, one),
                    subject=f"{entry.name}.{one.name}",
                    fix=KEEP,
                )


def undeclared(facts: Facts) -> Iterator[Hit]:
    """S02: a parameter is a secret and does not say so."""
    for entry in facts.project.entry_points:
        for one in entry.parameters:
            if is_name(one.name) and not one.secret and not _has_secret(one):
                yield Hit(
                    message=f"the parameter `{one.name}` looks like a secret, and its value "
                    "gets into keys, records and logs",
                    where=places.parameter(facts, one),
                    subject=f"{entry.name}.{one.name}",
                    fix="say `secret: true`, or take it by `secrets:` from a variable",
                )


def _has_secret(one: Parameter) -> bool:
    return one.default is not None and is_secret(one.name, one.default)


def written(facts: Facts) -> Iterator[Hit]:
    """S03: a secret stands in the project."""
    for entry in facts.project.entry_points:
        for name, value in entry.env.items():
            if is_secret(name, value):
                yield _written(f"`env:` of `{entry.name}`", name, places.step(facts, entry))
        text = literal(entry.command)
        found = [m[1] for m in ASSIGNED.finditer(text) if is_secret(m[1], m[2].strip("'\""))]
        if found or VALUE.search(text):
            where = places.command(facts, entry)
            yield _written(f"the command of `{entry.name}`", (found or [""])[0], where)
    for env in facts.environments:
        for name, value in _variables(env.request):
            if is_secret(name, value):
                yield _written(env.name, name, places.requested(facts, env, name))


def _written(place: str, name: str, where: Where) -> Hit:
    what = f"the secret `{name}`" if name else "a secret"
    return Hit(
        message=f"{place} holds {what} (not shown)",
        where=where,
        subject=name,
        fix="revoke it, and take it by `secrets:` from a variable",
    )


def _variables(request: object) -> tuple[tuple[str, str], ...]:
    if isinstance(request, CondaEnvironment):
        return request.variables
    if isinstance(request, DockerEnvironment):
        return tuple((n, v) for n, v in request.environment if v is not None)
    return ()
