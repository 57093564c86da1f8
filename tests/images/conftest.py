from support.docker_engine import docker_engine
from support.fake_registry import fake, other, reference, registry
from support.images import images

__all__ = ["docker_engine", "fake", "images", "other", "reference", "registry"]
