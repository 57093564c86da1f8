"""Collects the facts that an audit judges: of the project's files, and of this machine."""

from repro.auditing.collecting import collect
from repro.auditing.here import Here, Scope
from repro.auditing.pages import page

__all__ = ["Here", "Scope", "collect", "page"]
