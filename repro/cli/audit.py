"""`repro audit`: what keeps a project from being reproduced."""

from __future__ import annotations

import sys

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.audit.facts import Facts
    from repro.audit.findings import Report
    from repro.cli.render import Terminal

HELP = "find what keeps a project from being reproduced, exactly and safely"
EPILOG = """\
examples:
  repro audit                            the project in this folder
  repro audit --installed                the environments that were made of its locks, too
  repro audit --osv osv/PyPI/all.zip     known vulnerabilities, from a copy of the OSV database
  repro audit --online                   ask indexes, channels and registries, too
  repro audit --profile acm              the questions of an artifact review
  repro audit --format sarif > audit.sarif
  repro audit --explain L01              what a rule means, and how to fix it

Exit 4 where a finding is at or above `--fail-on`.
"""
FORMATS = ("text", "json", "sarif", "md", "junit", "cyclonedx")
OPTIONS = (
    Option(names=("--installed",), kind="flag", help="inspect the installed environments, too"),
    Option(
        names=("--profile",),
        metavar="NAME",
        choices=("acm", "neurips"),
        help="answer a checklist: acm or neurips",
    ),
    Option(
        names=("--fail-on",),
        metavar="LEVEL",
        default="error",
        choices=("error", "warning", "info", "never"),
        help="lowest level that fails: error (default), warning, info or never",
    ),
    Option(
        names=("--format",),
        metavar="FORMAT",
        default="text",
        choices=FORMATS,
        help="text (default), json, sarif, md, junit or cyclonedx",
    ),
    Option(names=("--osv",), metavar="PLACE", help="advisories: a folder, zip or URL of OSV"),
    Option(
        names=("--online",),
        kind="flag",
        help="ask indexes, channels and registries what became of what is locked",
    ),
    Option(names=("--offline",), kind="flag", help="fetch no advisories, take those kept"),
    Option(names=("--explain",), metavar="CODE", help="print the page of a rule"),
    Option(names=("--list-rules",), kind="flag", help="list the rules"),
    Option(names=("--version", "-v"), metavar="VERSION", help="version of a Git project"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("uri", nargs="?", default=".", metavar="PROJECT", help="a project")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command: 4 where a finding reaches the threshold, else 0."""
    if options.flag("list_rules"):
        return _list(options)
    if options.text("explain"):
        from repro import auditing

        print(auditing.page(options.text("explain")), end="")
        return errors.OK
    facts = _facts(options)
    from repro.audit import verdict

    report = verdict.judge(facts, options.text("profile"), options.text("fail_on") or "error")
    _write(report, facts, options)
    return errors.FINDINGS if report.failed else errors.OK


def _facts(options: Options) -> Facts:
    from repro import auditing
    from repro.cli import session
    from repro.events import Progress

    if options.flag("online") and options.flag("offline"):
        raise errors.UsageError("`--online` and `--offline` contradict each other")
    scope = auditing.Scope(
        installed=options.flag("installed"),
        osv=options.text("osv"),
        offline=options.flag("offline"),
        online=options.flag("online"),
    )
    with session.machine(options) as machine:
        tree = machine.tree(session.request(options), lambda _text: None)
        project, paths = machine.load(tree, lambda _event: None)
        if not project.file:
            raise errors.ProjectMissing(
                f"there is no MLproject file in `{options.text('uri') or '.'}`",
                hints=["name the folder that holds the project"],
            )

        def progress(text: str) -> None:
            machine.emit(Progress(step="audit", text=text))

        here = auditing.Here(machine, tree, progress, scope)
        return auditing.collect(tree, project, paths, here, installed=scope.installed)


def _write(report: Report, facts: Facts, options: Options) -> None:
    from repro.cli import render

    form = "json" if options.flag("json") else options.text("format") or "text"
    if form == "text":
        _show(report, render.Terminal(options.text("color") or "auto", sys.stdout), options)
    elif form == "md":
        from repro.audit.formats import markdown

        render.Terminal("never", sys.stdout).line(markdown.write(report).rstrip("\n"))
    elif form == "junit":
        from repro.audit.formats import junit

        render.Terminal("never", sys.stdout).line(junit.write(report).rstrip("\n"))
    elif form == "sarif":
        from repro.audit.formats import sarif

        print(render.json_text(sarif.document(report)))
    elif form == "cyclonedx":
        from repro.audit.formats import cyclonedx

        print(render.json_text(cyclonedx.document(facts)))
    else:
        from repro.audit.formats import document

        print(render.json_text(document.document(report)))


def _show(report: Report, terminal: Terminal, options: Options) -> None:
    from repro.audit.formats import text

    for line in text.lines(report, terminal.paint, brief=bool(options.count("quiet"))):
        terminal.line(line)


def _list(options: Options) -> int:
    from repro.audit.rules.table import RULES, help_uri
    from repro.cli import render, table

    if options.flag("json"):
        rows = [
            {
                "code": rule.code,
                "level": rule.level,
                "title": rule.title,
                "needs": rule.needs or None,
                "help": help_uri(rule.code),
            }
            for rule in RULES
        ]
        print(render.json_text({"schema": "repro.rules/1", "rules": rows}))
    else:
        listed = [(rule.code, rule.level, rule.title) for rule in RULES]
        table.show(("RULE", "LEVEL", "TITLE"), listed, options.text("color"))
    return errors.OK
