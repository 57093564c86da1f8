from __future__ import annotations

import itertools

import pytest
from support import cache_servers
from support.cache_hosts import Host


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Start a server of a kind when a test first asks for it; it runs until the tests end."""
    import contextlib

    with contextlib.ExitStack() as stack:
        known = {}

        def start(kind):
            if kind not in known:
                root = tmp_path_factory.mktemp(kind)
                known[kind] = stack.enter_context(cache_servers.KINDS[kind](root))
            return known[kind]

        yield start


@pytest.fixture(params=sorted(cache_servers.KINDS))
def server(request, servers):
    return servers(request.param)


@pytest.fixture
def host(tmp_path):
    """Make machines, each with a store of its own."""
    made = []
    names = itertools.count()

    def make(environ=None):
        folder = tmp_path / f"host{next(names)}"
        folder.mkdir()
        made.append(Host(folder, environ))
        return made[-1]

    yield make
    for one in made:
        one.close()
