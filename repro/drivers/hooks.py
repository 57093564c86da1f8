"""The files beside a step that lead calls of MLflow in its code to us, and the variables for it."""

from __future__ import annotations

import os
from functools import cache

from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = {"hook.py": "sitecustomize.py", "client.py": os.path.join("late", "repro.py")}
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside")
OFF = ("0", "false", "no")


def install(folder: str, given: Mapping[str, str], environ: Mapping[str, str]) -> Mapping[str, str]:
    """Write the files below the private `folder` of a step; give the step's variables.

    Python finds them by `PYTHONPATH`, whatever environment it runs in. With the caller's variable
    `REPRO_MLFLOW_CALLS=0` nothing is done.
    """
    if environ.get("REPRO_MLFLOW_CALLS", "").lower() in OFF or "REPRO_CALLS" not in given:
        return given
    place = os.path.join(folder, "calls")
    os.makedirs(os.path.join(place, "late"), mode=0o700, exist_ok=True)
    for name, target in FILES.items():
        files.replace(os.path.join(place, target), _text(name), durable=False)
    others = given.get("PYTHONPATH", "")
    return {**given, "PYTHONPATH": f"{place}:{others}" if others else place}


@cache
def _text(name: str) -> bytes:
    text = files.read(os.path.join(HERE, name))
    assert text is not None  # noqa: S101  (it is installed with us)
    return text
