"""The packages that an environment asks for, as written, and what each line pins."""

from __future__ import annotations

import re

from repro import params
from repro.spec import CondaEnvironment, PythonEnvironment
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.spec import Environment

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CHECKOUT = re.compile(r"(?:^|[\s@])(git|hg|svn|bzr)\+\S+")
DIRECT = re.compile(r"(?:^|@\s*)(https?://[^\s;]+)")
COMMIT = re.compile(r"@[0-9a-f]{40}(?:[0-9a-f]{24})?(?=[#\s;]|$)")
HASHED = re.compile(r"#(?:.*&)?(?:sha256|sha384|sha512)=|--hash=")
PINNED = re.compile(r"===?\s*[^\s=*,;]+\s*(?:;.*)?(?:--hash.*)?$")
EXACT = re.compile(
    r"==[^\s*,]+$|(?<![<>!~])=(?:[0-9]+(?:\.[0-9A-Za-z]+){2,}(?:=[^=\s*]+)?|[^=\s]+=[^=\s*]+)$"
)


class Demand(Value):
    """One line of a request. `manager` is `conda` or `python`; `name` may be empty for a URL."""

    text: str
    manager: str
    name: str

    @property
    def is_checkout(self) -> bool:
        """Say whether it is fetched from a version control system."""
        return self.manager == "python" and CHECKOUT.search(self.text) is not None

    @property
    def is_direct(self) -> bool:
        """Say whether it names the URL of a file."""
        return self.manager == "python" and not self.is_checkout and bool(DIRECT.search(self.text))

    @property
    def is_exact(self) -> bool:
        """Say whether only one version can satisfy it."""
        if self.is_checkout:
            return COMMIT.search(self.text) is not None
        if self.is_direct or self.text.startswith("./"):
            return True
        pattern = EXACT if self.manager == "conda" else PINNED
        return pattern.search(self.text) is not None

    @property
    def is_hashed(self) -> bool:
        """Say whether it names the content that it must have."""
        return HASHED.search(self.text) is not None


def demands(request: Environment) -> Iterator[Demand]:
    """Give every package that an environment asks for by name or URL."""
    if isinstance(request, CondaEnvironment):
        for text in request.packages:
            bare = text.rpartition("::")[2]
            yield Demand(text=text, manager="conda", name=name(bare).lower())
        if request.python is not None:
            yield from demands(request.python)
    elif isinstance(request, PythonEnvironment):
        for text in (*request.build_requirements, *request.requirements):
            plain = "" if "://" in text.partition("@")[0] else normal(name(text))
            yield Demand(text=text, manager="python", name=plain)


def python(request: Environment) -> str | None:
    """Give the Python that an environment asks for; None where it is no matter of Python."""
    if isinstance(request, PythonEnvironment):
        return request.python
    if isinstance(request, CondaEnvironment):
        found = [d for d in demands(request) if d.manager == "conda" and d.name == "python"]
        if found:
            return found[0].text.rpartition("::")[2][len("python") :].strip()
        return request.python.python if request.python else ""
    return None


def options(request: Environment) -> tuple[str, ...]:
    """Give the index options of an environment."""
    if isinstance(request, CondaEnvironment):
        return request.python.options if request.python else ()
    return request.options if isinstance(request, PythonEnvironment) else ()


def name(text: str) -> str:
    """Give the name that a requirement or MatchSpec begins with."""
    found = NAME.match(text.strip())
    return found[0] if found else ""


def normal(text: str) -> str:
    """Normalise a name as PEP 503 does."""
    return re.sub(r"[-_.]+", "-", text).lower()


def public(text: str) -> str:
    """Write a requirement or URL without what may be a credential."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def literal(command: str) -> str:
    """Give what stands in a command apart from its placeholders, with an `x` for each of them."""
    return "".join(
        text if context is None else "x" for text, context in params.parse(command).pieces
    )
