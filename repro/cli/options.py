"""Options declared once: scanned by hand on the hot path, by argparse for everything else."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable


class Option(Value):
    """One option of a command. `kind` is `text`, `list`, `flag` or `count`.

    The first of `names` is the long one and gives the name of the value.
    """

    names: tuple[str, ...]
    help: str
    kind: str = "text"
    metavar: str = ""
    default: str = ""
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Give the name under which the value is found."""
        return self.names[0].lstrip("-").replace("-", "_")


COMMON = (
    Option(names=("--json",), kind="flag", help="print one JSON document to stdout"),
    Option(names=("--quiet", "-q"), kind="count", help="say less; twice: errors only"),
    Option(
        names=("--color",),
        metavar="WHEN",
        default="auto",
        choices=("auto", "always", "never"),
        help="colour: auto, always or never",
    ),
)


class Options:
    """The values of one call."""

    def __init__(self, values: dict[str, object]) -> None:
        """Take the values by name."""
        self.values = values

    def text(self, name: str) -> str:
        """Give a text; empty where none was given."""
        return str(self.values.get(name) or "")

    def flag(self, name: str) -> bool:
        """Say whether a flag was given."""
        return bool(self.values.get(name))

    def count(self, name: str) -> int:
        """Give how often a flag was given."""
        value = self.values.get(name)
        return value if isinstance(value, int) else 0

    def list(self, name: str) -> list[str]:
        """Give all values of an option that may be repeated."""
        value = self.values.get(name)
        return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def scan(options: Iterable[Option], positional: str, argv: list[str]) -> Options | None:
    """Read the plain forms of a command line; None where argparse has to look.

    Plain are `--name value`, `--name=value`, `-n value`, flags by their whole names, and at most
    one positional. The values are those that argparse would give.
    """
    known = {name: option for option in options for name in option.names}
    values: dict[str, object] = {option.key: _empty(option) for option in known.values()}
    places: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, given = word.partition("=")
        option = known.get(name)
        if option is None or (equals and not word.startswith("--")):
            if word.startswith("-"):
                return None
            places.append(word)
        elif option.kind in ("flag", "count"):
            if equals:
                return None
            before = values[option.key]
            values[option.key] = (
                before + 1 if isinstance(before, int) and option.kind == "count" else True
            )
        else:
            text = given if equals else next(words, None)
            if text is None or (not equals and text.startswith("-")):
                return None
            if option.choices and text not in option.choices:
                return None
            _store(values, option, text)
    if len(places) > 1:
        return None
    values[positional] = places[0] if places else "."
    return Options(values)


def _empty(option: Option) -> object:
    return {"list": [], "flag": False, "count": 0}.get(option.kind, option.default)


def _store(values: dict[str, object], option: Option, text: str) -> None:
    before = values[option.key]
    if option.kind == "list" and isinstance(before, list):
        values[option.key] = [*before, text]
    else:
        values[option.key] = text


def add(parser: ArgumentParser, options: Iterable[Option]) -> None:
    """Declare options to argparse."""
    for option in options:
        names = sorted(option.names, key=len)
        if option.kind == "flag":
            parser.add_argument(*names, dest=option.key, action="store_true", help=option.help)
        elif option.kind == "count":
            parser.add_argument(
                *names, dest=option.key, action="count", default=0, help=option.help
            )
        else:
            parser.add_argument(
                *names,
                dest=option.key,
                action="append" if option.kind == "list" else "store",
                default=[] if option.kind == "list" else option.default,
                metavar=option.metavar or option.key.upper(),
                choices=option.choices or None,
                help=option.help,
            )
