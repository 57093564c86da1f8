"""A store against a model of it: see `faults/model.py`, of which this is a short form."""

from __future__ import annotations

import hypothesis
from faults.model import Store

Store.TestCase.settings = hypothesis.settings(
    max_examples=25, stateful_step_count=25, deadline=None
)
TestStore = Store.TestCase
