"""Python package indexes behind mirrors: tools are told the mirror, locks the real address."""

from __future__ import annotations

import re

from repro.environments import urls
from repro.environments.demand import parted
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from repro.lock import Artifact
    from repro.mirrors import Mirrors

USUAL = "https://pypi.org/simple"
"""What uv and pip take where nobody says anything."""
DEFAULTS = {"uv": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"), "pip": ("PIP_INDEX_URL",)}
"""The variables that replace it."""
VARIABLES = (
    *DEFAULTS["uv"],
    *("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
    *DEFAULTS["pip"],
    *("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"),
)
CHOOSING = ("-i", "--index-url")
ADDRESS = re.compile(r"\w[\w+.-]*://[^\s,]+")


def place(url: str, mirrors: Mirrors) -> str:
    """Give where to fetch a page or file from; a login for the origin is none for its mirror."""
    return _swapped(url, mirrors.of)


def option(text: str, mirrors: Mirrors) -> str:
    """Give a requirement line, or an option among them, with the mirrors of what it names."""
    return ADDRESS.sub(lambda found: place(found[0], mirrors), text)


def variables(environ: Mapping[str, str], mirrors: Mirrors) -> dict[str, str]:
    """Give the caller's variables that name indexes, with their mirrors."""
    return {name: option(environ[name], mirrors) for name in VARIABLES if environ.get(name)}


def default(
    tool: str, options: Iterable[str], environ: Mapping[str, str], mirrors: Mirrors
) -> dict[str, str]:
    """Give the variable that makes a tool take the mirror of the usual index.

    Nothing where there is no mirror, and where `options` or the caller name another index: a
    variable would overrule what stands in a file of requirements.
    """
    mirror = place(USUAL, mirrors)
    named = any(parted(one)[0] in CHOOSING for one in options)
    if mirror == USUAL or named or any(environ.get(name) for name in DEFAULTS[tool]):
        return {}
    return {DEFAULTS[tool][0]: mirror}


def placed(artifact: Artifact, root: str, mirrors: Mirrors) -> Artifact:
    """Give what was locked with the addresses to fetch it from, for the project in `root`."""
    if artifact.kind == "vcs":
        return artifact
    url = place(urls.placed(artifact.url, root), mirrors)
    return replace(artifact, url=url, index=artifact.index and place(artifact.index, mirrors))


def original(artifact: Artifact, mirrors: Mirrors) -> Artifact:
    """Give what was found with its real addresses."""
    url, index = (_swapped(text, mirrors.origin) for text in (artifact.url, artifact.index))
    return replace(artifact, url=url, index=index)


def _swapped(url: str, swap: Callable[[str], str]) -> str:
    """Swap an address; that of a folder may be written with a slash at its end, or without."""
    if "://" not in url:
        return url
    public, (_url, mark, fragment) = urls.public(url), url.partition("#")
    for end in ("", "/"):
        found = swap(public + end)
        if found != public + end:
            return (found.removesuffix(end) if end else found) + mark + fragment
    return url
