"""`repro run`: run a project, or reuse the result of an earlier run."""

from __future__ import annotations

import os
import sys

from repro import errors
from repro.cli.options import COMMON, Option, Options, add
from repro.cli.options import scan as scan_options
from repro.plan import MANAGERS, Course, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.api import SubmittedRun
    from repro.cli.render import Narrator
    from repro.events import Event

HELP = "run a project, or reuse the result of an earlier run"
EPILOG = """\
examples:
  repro run .                                the entry point `main` of this folder
  repro run examples/diabetes -P alpha=0.5   a parameter
  repro run . -e train.py -P lr=0.1          a script; unknown parameters become `--lr 0.1`
  repro run https://host/p.git#sub -v v1.2   a subdirectory of a Git remote, at a tag
  repro run . --no-cache                     run it, whatever there is already
  repro run . -e report -j 4                 with the steps it needs, four at a time
  repro run . -b train=slurm -c slurm.yaml   one step on a cluster, the others here

stdout gets the id of the run; everything else goes to stderr.
"""
OPTIONS = (
    Option(
        names=("--entry-point", "-e"),
        metavar="NAME",
        default="main",
        help="entry point, or a script with its extension (default: main)",
    ),
    Option(
        names=("--version", "-v"),
        metavar="VERSION",
        help="branch, tag, or full or abbreviated commit of a Git project",
    ),
    Option(
        names=("--param-list", "--param", "-P"),
        kind="list",
        metavar="NAME=VALUE",
        help="a parameter; may be repeated",
    ),
    Option(
        names=("--backend", "-b"),
        kind="list",
        metavar="[STEP=]NAME",
        help="where it runs, or where one of its steps does; may be repeated (default: local)",
    ),
    Option(
        names=("--backend-config", "-c"),
        kind="list",
        metavar="[NAME=]FILE",
        help="file, or text, with the settings of the backend as JSON or YAML; may be repeated",
    ),
    Option(
        names=("--env-manager",),
        metavar="NAME",
        help=f"environment to use: {', '.join(MANAGERS)} (default: the project's own kind)",
    ),
    Option(names=("--experiment-name",), metavar="NAME", help="experiment on the tracking server"),
    Option(names=("--experiment-id",), metavar="ID", help="experiment on the tracking server"),
    Option(names=("--run-name",), metavar="NAME", help="name of the run on the tracking server"),
    Option(
        names=("--storage-dir",),
        metavar="DIR",
        help="folder for files that `path` parameters bring from elsewhere",
    ),
    Option(
        names=("--output", "-o"),
        metavar="DIR",
        help="write the outputs there instead of into the project folder",
    ),
    Option(names=("--sandbox",), metavar="LEVEL", help="isolation to insist on"),
    Option(
        names=("--timeout",), metavar="TIME", help="longest time, as `90`, `90s`, `15m` or `2h`"
    ),
    Option(
        names=("--trace",),
        kind="flag",
        help="run it without a sandbox, and name every file and host that it does not declare",
    ),
    Option(names=("--offline",), kind="flag", help="leave the remote cache alone"),
    Option(names=("--no-cache",), kind="flag", help="neither read nor write results"),
    Option(names=("--refresh",), kind="flag", help="write the result, but do not read one"),
    Option(
        names=("--jobs", "-j"),
        metavar="N",
        default="1",
        help="how many steps may run at once, `0` for one on each processor (default: 1)",
    ),
    Option(
        names=("--keep-going", "-k"),
        kind="flag",
        help="after a failure, run all steps that do not need the failed one",
    ),
    Option(
        names=("--from",),
        kind="list",
        metavar="STEP",
        help="run that step and all after it, whatever results there are; may be repeated",
    ),
    Option(
        names=("--docker-args", "-A"),
        kind="list",
        metavar="NAME[=VALUE]",
        help="an option of `docker run`, for projects with a docker_env; may be repeated",
    ),
    Option(
        names=("--build-image",),
        kind="flag",
        help="run in an image that has the files of the step in it too",
    ),
    Option(names=("--locked",), kind="flag", help="fail if a lock is missing or out of date"),
    Option(names=("--frozen",), kind="flag", help="take the lock as it is, without a look"),
    Option(names=("--relock",), kind="flag", help="resolve the environment again"),
    Option(names=("--dry-run", "-n"), kind="flag", help="say what would happen, and run nothing"),
)


def scan(argv: list[str]) -> Options | None:
    """Read a plain command line without argparse; None where that has to look."""
    return scan_options((*OPTIONS, *COMMON), "uri", argv)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "uri",
        nargs="?",
        default=".",
        metavar="URI",
        help="local folder, zip archive or Git remote, with an optional #subdirectory",
    )
    add(parser, OPTIONS)


def request_of(options: Options) -> Request:
    """Translate options into a request. Raises UsageError."""
    timeout = options.text("timeout")
    if timeout:
        from repro.quantity import milliseconds

        try:
            timeout_ms = milliseconds(timeout if timeout[-1].isalpha() else float(timeout))
        except (ValueError, KeyError):
            raise errors.UsageError(
                f"`--timeout {timeout}` is no time", hints=["write `90`, `90s`, `15m` or `2h`"]
            ) from None
    general, backends = _split(options.list("backend"), "-b")
    config, configs = _split(options.list("backend_config"), "-c")
    return Request(
        uri=options.text("uri"),
        entry_point=options.text("entry_point") or "main",
        version=options.text("version"),
        parameters=parameters(options.list("param_list")),
        env_manager=options.text("env_manager"),
        backend=general,
        backends=backends,
        use_results=not any(options.flag(f) for f in ("no_cache", "refresh", "trace")),
        keep_result=not options.flag("no_cache"),
        output=os.path.abspath(options.text("output")) if options.text("output") else "",
        storage=os.path.abspath(options.text("storage_dir")) if options.text("storage_dir") else "",
        sandbox="none" if options.flag("trace") else options.text("sandbox"),
        trace=options.flag("trace"),
        run_name=options.text("run_name"),
        experiment_name=options.text("experiment_name"),
        experiment_id=options.text("experiment_id"),
        parent_run=os.environ.get("REPRO_RUN_ID", ""),
        caller=os.getcwd(),
        timeout_ms=timeout_ms if timeout else 0,
        locking=locking(options),
        container=container(options.list("docker_args")),
        config=config or None,
        configs=configs,
        build_image=options.flag("build_image"),
    )


def _split(given: list[str], option: str) -> tuple[str, dict[str, str]]:
    """Tell what is for all from what is for one: NAME=VALUE. Raises UsageError for repetition."""
    general, special = "", {}
    for text in given:
        name, equals, value = text.partition("=")
        is_special = bool(equals) and name.replace("-", "").replace("_", "").isalnum()
        if name in special if is_special else general:
            raise errors.UsageError(f"`{option} {text[:60]}` is given twice")
        if is_special:
            special[name] = value
        else:
            general = text
    return general, special


def course(options: Options) -> Course:
    """Give how the steps of a run are gone through. Raises UsageError."""
    text = options.text("jobs") or "1"
    if not text.isdecimal():
        raise errors.UsageError(f"`--jobs {text}` is no number", hints=["write `-j 4`"])
    return Course(
        jobs=int(text) or os.cpu_count() or 1,
        keep_going=options.flag("keep_going"),
        again=tuple(options.list("from")),
    )


def locking(options: Options) -> str:
    """Give the word for what becomes of a lock that is out of date. Raises UsageError."""
    flags = {"locked": "locked", "frozen": "frozen", "relock": "anew"}
    given = [flag for flag in flags if options.flag(flag)]
    if len(given) > 1:
        raise errors.UsageError(f"`--{given[0]}` and `--{given[1]}` contradict each other")
    return flags[given[0]] if given else ""


def container(given: list[str]) -> dict[str, str | None]:
    """Split NAME=VALUE and NAME, a flag. Raises UsageError for repetition."""
    found: dict[str, str | None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or name in found:
            raise errors.UsageError(f"`-A {text[:60]}` is given twice, or names nothing")
        found[name] = value if equals else None
    return found


def parameters(given: list[str]) -> dict[str, str]:
    """Split NAME=VALUE at the first `=`. Raises UsageError for anything else, and repetition."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise errors.UsageError(
                f"`-P {text[:60]}` is not NAME=VALUE", hints=["write `-P name=value`"]
            )
        if name in found:
            raise errors.UsageError(f"the parameter `{name}` is given twice")
        found[name] = value
    return found


def execute(options: Options) -> int:
    """Run the command; give 0, or 1 where the step failed."""
    from repro.cli.render import Narrator, Terminal

    narrator = Narrator(Terminal(options.text("color") or "auto"), quiet=options.count("quiet"))
    _warn_of_unknown_variables(narrator)
    request = request_of(options)
    if options.flag("dry_run"):
        from repro.cli import plan

        return plan.tell(request, options, course(options).again)
    return _run(request, narrator, options)


def _run(request: Request, narrator: Narrator, options: Options) -> int:
    from repro import api

    watcher = Watcher(narrator)
    environ = {**os.environ, "REPRO_REMOTE": ""} if options.flag("offline") else os.environ
    submitted = api.SubmittedRun(request, environ, watcher, course(options))
    watcher.submitted = submitted
    if submitted.has_several_steps:
        watcher.arm()  # later ones may be told of by other threads
    submitted.run()
    if submitted.outputs and not submitted.placed and not narrator.quiet:
        narrator.terminal.line(f"  outputs  repro outputs {submitted.run_id[:8]} --to DIR")
    _answer(submitted, options)
    record = submitted.record
    return errors.OK if record is not None and record.status == "FINISHED" else errors.FAILED


class Watcher:
    """Passes events on, shows the recorded output on a hit, and arms the signals for a miss."""

    def __init__(self, narrator: Narrator) -> None:
        """Take who tells the story."""
        self.narrator = narrator
        self.submitted: SubmittedRun | None = None
        self.armed = False

    def arm(self) -> None:
        """Prepare for a run that takes longer than a hit."""
        import gc

        from repro.cli import interruption

        if not self.armed:
            self.armed = True
            gc.enable()
            interruption.arm()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        name = type(event).__name__
        if name == "Missed":
            self.arm()
        elif name == "Reused" and self.submitted is not None and not self.narrator.quiet:
            from repro.cli import replay

            replay.show(event, self.submitted, self.narrator)
        self.narrator(event)


def _answer(submitted: SubmittedRun, options: Options) -> None:
    if options.flag("json"):
        from repro.cli import documents, render

        assert submitted.record is not None  # noqa: S101  (it has run)
        print(render.json_text(documents.run(submitted.record)))
    elif sys.stdout is not None:
        print(submitted.run_id)
        sys.stdout.flush()


def _warn_of_unknown_variables(narrator: Narrator) -> None:
    from repro import envvars

    for name in envvars.unknown(os.environ):
        from repro.decode import nearest
        from repro.events import Warned

        near = nearest(name, list(envvars.VARIABLES))
        hint = f"a similar one exists: `{near}`" if near else "`repro help environment` lists them"
        narrator(Warned(text=f"the variable `{name}` means nothing to repro", hint=hint))
