"""The forms of `deep.py` as tests run them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

DEEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "deep.py")
watches = pytest.mark.skipif(sys.platform != "linux", reason="watches calls by /proc")


def short(form):
    """Run a form in a process of its own: it is copied thousands of times, and has no threads."""
    done = subprocess.run(
        [sys.executable, DEEP, "--short", form],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " faults 0 " in done.stdout
    if "SKIPPED" in done.stdout:
        assert os.environ.get("CI") != "true", done.stdout
        pytest.skip(done.stdout.strip())
