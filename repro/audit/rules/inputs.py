"""N: whether a step says what it reads and makes."""

from __future__ import annotations

import re

from repro.audit.rules import places
from repro.audit.rules.demands import literal
from repro.audit.rules.rule import Hit, limited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import Facts
    from repro.audit.rules.rule import Check

REMOTE = ("http://", "https://", "ftp://", "s3://", "gs://", "abfss://", "hdfs://", "dbfs:/")
FETCH = re.compile(
    r"(?:^|[\s;&|(`\"'/])(curl|wget|gdown|aws s3 (?:cp|sync)|gsutil|gcloud storage|rclone|"
    r"kaggle (?:datasets|competitions)|huggingface-cli download|dvc pull|git clone)\b"
)
SERVICE = re.compile(r"track|server|registry|endpoint|api|host", re.IGNORECASE)
CHECKED = re.compile(r"[0-9a-f]{40}|sha(?:256|512)(?:sum)?\b|md5sum\b")


def traced(field: str, said: str, key: str) -> Check:
    """Make the rule that reports files that the last run of a step touched undeclared."""

    def check(facts: Facts) -> Iterator[Hit]:
        for step in facts.history or ():
            entry = facts.project.entry_point(step.step)
            paths: tuple[str, ...] = getattr(step, field) or ()
            hits = (
                Hit(
                    message=f"`{step.step}` {said} `{path}`, which is not among its `{key}:`",
                    where=places.step(facts, entry) if entry else None,
                    subject=path,
                    fix=f"add it to `{key}:`",
                    extra={"step": step.step, "run": step.last_good},
                )
                for path in paths
            )
            yield from limited(hits, "files")

    return check


def inputs(facts: Facts) -> Iterator[Hit]:
    """N02: a step declares no inputs."""
    for entry in facts.project.entry_points:
        if entry.inputs is None:
            yield Hit(
                message=f"`{entry.name}` declares no `inputs:`: every change of any file runs it "
                "again",
                where=places.step(facts, entry),
                subject=entry.name,
                fix="name what it reads, for example `inputs: [train.py, data/]`",
            )


def outputs(facts: Facts) -> Iterator[Hit]:
    """N03: a step declares no outputs."""
    for entry in facts.project.entry_points:
        if entry.outputs is None:
            yield Hit(
                message=f"`{entry.name}` declares no `outputs:`: a missing one goes unnoticed",
                where=places.step(facts, entry),
                subject=entry.name,
                fix="name what it makes, for example `outputs: [model/]`",
            )


def remote(facts: Facts) -> Iterator[Hit]:
    """N04: remote data is not checked."""
    for entry in facts.project.entry_points:
        for one in entry.parameters:
            text = one.default or ""
            is_data = text.startswith(REMOTE) and not SERVICE.search(one.name)
            if is_data and one.type != "path" and not CHECKED.search(text):
                yield Hit(
                    message=f"`{one.name}` of `{entry.name}` names remote data, "
                    "whose content is in no key",
                    where=places.parameter(facts, one),
                    subject=f"{entry.name}.{one.name}",
                    fix="make its type `path`: then the file is fetched and named by its content",
                )
        command = literal(entry.command)
        found = FETCH.search(command)
        if found and not CHECKED.search(command):
            yield Hit(
                message=f"`{entry.name}` fetches with `{found[1]}`, and nothing checks what comes",
                where=places.command(facts, entry),
                subject=entry.name,
                fix="take the data as a parameter of type `path`, or check it with `sha256sum -c`",
            )
