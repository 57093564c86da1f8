"""Conda environments, with rattler or an installed conda-lock."""

from repro.environments.conda.adapter import Conda, CondaPrefix
from repro.environments.conda.command import CondaLock
from repro.environments.conda.provider import python_from_channel

__all__ = ["Conda", "CondaLock", "CondaPrefix", "python_from_channel"]
