"""U: whether what is fetched comes from where the project says, unseen and unchanged."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from repro.audit.rules import places
from repro.audit.rules.demands import demands, options
from repro.audit.rules.rule import Hit
from repro.errors import Where
from repro.spec import CondaEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from repro.audit.facts import EnvironmentFacts, Facts
    from repro.lock import Artifact

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>,\]]+")
TOKEN = re.compile(r"/t/[A-Za-z0-9_-]{8,}(/|$)")
QUERY = re.compile(
    r"[?&](?:access_token|token|api_key|key|sig|X-Amz-Signature)=[^&]{8,}", re.IGNORECASE
)
LONG = 20
HERE = ("localhost", "127.", "[::1]", "::1")
PYPI = ("pypi.org", "files.pythonhosted.org")
INDEXES = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")


def credential(facts: Facts) -> Iterator[Hit]:
    """U01: a URL holds a credential."""
    seen = set()
    texts = {**facts.texts, **{path: lock.text for path, lock in facts.lock_texts.items()}}
    for file, text in texts.items():
        for found in URL.finditer(text):
            if not has_credential(found[0]):
                continue
            line = text.count("\n", 0, found.start()) + 1
            host = _host(found[0])
            if (file, line) not in seen:
                seen.add((file, line))
                yield Hit(
                    message=f"a URL at `{host}` holds a credential (not shown)",
                    where=Where(file=file, line=line),
                    subject=host,
                    fix="revoke it, and give it by netrc, a keyring or a variable",
                )


def has_credential(url: str) -> bool:
    """Say whether a URL holds a password or a token, and not only the name of a variable."""
    authority, _, path = url.partition("://")[2].partition("/")
    user, at, _host_part = authority.rpartition("@")
    name, colon, password = user.partition(":")
    if at and (password if colon else name)[:1] not in ("", "$", "{", "%", "<"):
        return bool(colon) or len(name) >= LONG
    return bool(TOKEN.search("/" + path) or QUERY.search(path))


def plain(facts: Facts) -> Iterator[Hit]:
    """U02: packages come over plain http."""
    for env in facts.environments:
        said = set()
        for text in _sources(env):
            for url in re.findall(r"http://[^\s\"';]+", text):
                host = _host(url)
                if host not in said and not host.startswith(HERE):
                    said.add(host)
                    yield _plain(host, places.requested(facts, env, url))
        for file, lock in env.locked:
            for one in lock.artifacts:
                host = _host(one.url) if one.url.startswith("http://") else ""
                if host and host not in said and not host.startswith(HERE):
                    said.add(host)
                    yield _plain(host, places.locked(facts, file.path, one.name))


def _plain(host: str, where: Where) -> Hit:
    return Hit(
        message=f"packages come from `{host}` over plain http: anyone between can change them",
        where=where,
        subject=host,
        fix="use `https://`",
    )


def undeclared(facts: Facts) -> Iterator[Hit]:
    """U03: a package comes from a place not named."""
    for env in facts.environments:
        said = set()
        hosts = _declared(env)
        for file, lock in env.locked:
            for one in lock.artifacts:
                host = _host(one.url)
                if host and (one.kind, host) not in said and not _is_declared(env, one, hosts):
                    said.add((one.kind, host))
                    if one.kind == "conda" and any(g.unmet.code == "D05" for g in env.gaps):
                        continue  # said already
                    yield Hit(
                        message=f"`{one.name}` comes from `{host}`, "
                        "which the project names nowhere",
                        where=places.locked(facts, file.path, one.name),
                        subject=host,
                        fix="name the index or channel in the environment file, or lock again",
                    )


def _is_declared(env: EnvironmentFacts, one: Artifact, hosts: set[str]) -> bool:
    host = _host(one.url)
    if one.kind not in ("conda", "wheel", "sdist") or host in hosts:
        return True
    if one.kind != "conda" or not isinstance(env.request, CondaEnvironment):
        return False
    return any(f"/{c}/" in one.url for c in env.request.channels if "://" not in c)


def _declared(env: EnvironmentFacts) -> set[str]:
    hosts = {_host(url) for text in _sources(env) for url in URL.findall(text)}
    named = [re.split(r"[\s=]", option, maxsplit=1)[0] for option in options(env.request)]
    if not {"-i", "--index-url"} & set(named):
        hosts.update(PYPI)
    if "pypi.org" in hosts:
        hosts.update(PYPI)
    return hosts


def _sources(env: EnvironmentFacts) -> Iterable[str]:
    """Give the texts of a request that name places to fetch from."""
    channels = env.request.channels if isinstance(env.request, CondaEnvironment) else ()
    return (*options(env.request), *channels, *(d.text for d in demands(env.request)))


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.scheme else ""
