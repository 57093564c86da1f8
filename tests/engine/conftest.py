"""What tests of the engine share: a registry in the place of Docker Hub."""

import docker
import pytest
from support.docker_engine import docker_engine  # noqa: F401
from support.slurm_engine import slurm_engine  # noqa: F401


@pytest.fixture
def hub(docker_engine, run):  # noqa: F811
    """A registry in the place of Docker Hub, with an image of the name that projects ask for."""
    engine = docker_engine
    client = docker.DockerClient(base_url=engine.host)
    name = f"{engine.registry}/library/debian"
    client.images.get(engine.tag).tag(name, "12-slim")
    list(client.api.push(name, "12-slim", stream=True, decode=True))
    client.close()
    run.environ = {
        **run.environ,
        **engine.environ,
        "REPRO_MIRRORS": f"docker.io/={engine.registry}/",
    }
    return engine
