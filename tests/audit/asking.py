"""An audit of a project in a folder, on this machine."""

from __future__ import annotations

from repro import auditing
from repro.audit import verdict
from repro.plan import Request


def asked(machine, folder, **options):
    """The facts of a project, as this machine tells them."""
    tree = machine.tree(Request(uri=str(folder), caller="/"), lambda _text: None)
    loaded, paths = machine.load(tree, lambda _event: None)
    scope = auditing.Scope(**options)
    here = auditing.Here(machine, tree, lambda _text: None, scope)
    return auditing.collect(tree, loaded, paths, here, installed=scope.installed)


def found(facts, *codes):
    """What the rules say, as (code, subject), for codes that begin with one of `codes`."""
    report = verdict.judge(facts)
    return {(f.code, f.subject) for f in report.findings if f.code.startswith(codes)}


def skipped(facts):
    """The rules that had nothing to look at."""
    return {code for one in verdict.judge(facts).skipped for code in one.codes}
