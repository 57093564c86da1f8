"""Parameter values on their way into a command: bound, checked, and quoted where they land."""

from __future__ import annotations

from repro.errors import ParameterInvalid
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from repro.spec import EntryPoint, Parameter

PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-")
TRUE = frozenset(("true", "yes", "on", "1", "t", "y"))
FALSE = frozenset(("false", "no", "off", "0", "f", "n", "none", ""))
LONGEST = 131_071  # bytes of one argument of execve on Linux (MAX_ARG_STRLEN, without the NUL)

NUMBERS = {"float": float, "double": float, "number": float, "int": int, "integer": int}
BOOLEANS = ("bool", "boolean")


class Argument(Value):
    """One value on its way to the command.

    `text` is what the user gave, None where an optional parameter has no value. `origin` is
    `given`, `default` or `extra` (given, but not declared). `kind` is `text`, `path`, `secret`
    or `flag`. `landed` is what stands in the command, where that differs from `text`: the local
    file of a `path`. `identity` is what stands for the value in the step key.
    """

    name: str
    text: str | None
    origin: str = "given"
    kind: str = "text"
    type: str = "string"
    landed: str | None = None
    identity: str | None = None

    @property
    def value(self) -> str | None:
        """Give the text that reaches the command."""
        return self.text if self.landed is None else self.landed

    @property
    def shown(self) -> str:
        """Give the text for people; a secret never shows."""
        return "***" if self.kind == "secret" else (self.text or "")


class Template(Value):
    """A command in pieces: literal texts and placeholders, each with the context it stands in.

    `pieces` are (literal, None) or (name, context). `problems` are (offset, message, hint).
    """

    pieces: tuple[tuple[str, str | None], ...]
    problems: tuple[tuple[int, str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Give the placeholders in order of appearance."""
        return tuple(text for text, context in self.pieces if context is not None)


def bind(entry: EntryPoint, given: Mapping[str, Any]) -> tuple[Argument, ...]:
    """Give the arguments of a call: declared parameters in their order, then what was added.

    Values become text as MLflow makes it, with `str`. Raises ParameterInvalid that names every
    missing parameter, or the first value that its declaration refuses.
    """
    texts = {str(name): None if v is None else str(v) for name, v in given.items()}
    missing = [
        p
        for p in entry.parameters
        if texts.get(p.name) is None and p.default is None and not p.optional and not p.flag
    ]
    if missing:
        raise _missing(entry, missing)
    declared = [_declared(parameter, texts) for parameter in entry.parameters]
    names = {parameter.name for parameter in entry.parameters}
    extras = [
        Argument(name=name, text=text, origin="extra")
        for name, text in texts.items()
        if name not in names and text is not None
    ]
    for argument in (*declared, *extras):
        _refuse_impossible(argument)
    return (*declared, *extras)


def expand(template: Template, arguments: tuple[Argument, ...]) -> str:
    """Write the values into the command, each quoted for the place where it lands.

    Equal to what MLflow makes, but where the author put a placeholder into quotes: there the
    value stays inside them. Arguments without a placeholder are dropped if declared, and
    appended as ` --name value` if they were added by the caller.

    Raises ParameterInvalid where a value cannot be quoted safely.
    """
    by_name = {argument.name: argument for argument in arguments}
    variables = {name: variable for variable, name, _text in secret_variables(arguments)}
    used = set(template.names)
    parts = [
        text if context is None else _landed(by_name[text], context, variables)
        for text, context in template.pieces
    ]
    for argument in arguments:
        if argument.origin == "extra":
            parts.append(f" --{quote(argument.name)} {quote(argument.value or '')}")
        elif argument.name not in used and argument.kind == "flag":
            flag = _landed(argument, "bare", variables)
            parts.append(f" {flag}" if flag else "")
    command = "".join(parts)
    size = len(command.encode("utf-8", "surrogateescape"))
    if size > LONGEST:
        longest = max(arguments, key=lambda a: len(a.value or ""), default=None)
        name = f", of which `{longest.name}` is the largest part" if longest else ""
        raise ParameterInvalid(
            f"the command has {size:,} bytes{name}; the system takes at most {LONGEST:,}",
            hints=["write the value to a file and pass its path in a parameter of type `path`"],
        )
    return command


def secret_variables(arguments: tuple[Argument, ...]) -> list[tuple[str, str, str]]:
    """Give (variable, parameter, value) for every secret among the arguments.

    The command names the variable, so that the value is on no command line of ours, where every
    user of the machine could read it.
    """
    secrets = [a for a in arguments if a.kind == "secret" and a.text is not None]
    return [(f"REPRO_SECRET_{i}", a.name, a.text or "") for i, a in enumerate(secrets)]


def quote(text: str) -> str:
    """Quote `text` for a shell exactly as `shlex.quote` does, without its import."""
    if text and PLAIN.issuperset(text):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def parse(command: str) -> Template:
    """Split a command at its placeholders; `{{` and `}}` are literal braces, as in MLflow."""
    shell = Shell()
    pieces: list[tuple[str, str | None]] = []
    problems: list[tuple[int, str, str]] = []
    for offset, text, is_name in _split(command):
        if is_name and (fault := _fault(text)):
            problems.append((offset, *fault))
        elif is_name:
            pieces.append((text, shell.context()))
            shell.placed()
        else:
            pieces.append((text, None))
            shell.feed(text)
    return Template(pieces=tuple(pieces), problems=tuple(problems))


def _split(command: str) -> Iterator[tuple[int, str, bool]]:
    literal: list[str] = []
    at = 0
    while at < len(command):
        char = command[at]
        if char in "{}" and command[at : at + 2] == char * 2:
            literal.append(char)
            at += 2
        elif char in "{}":
            if literal:
                yield at, "".join(literal), False
                literal = []
            end = command.find("}", at)
            whole = char == "{" and end > 0
            yield at, command[at + 1 : end] if whole else "\0" + char, True
            at = end + 1 if whole else at + 1
        else:
            literal.append(char)
            at += 1
    if literal:
        yield at, "".join(literal), False


def _fault(name: str) -> tuple[str, str] | None:
    """Say what is wrong with the inside of a pair of braces, and what to do."""
    if name.startswith("\0"):
        brace = name[1]
        return f"a single `{brace}` in the command", f"double it: `{brace * 2}`"
    if not name or name.isdigit():
        shown = "{" + name + "}"
        return f"`{shown}` names no parameter", f"for literal braces write `{{{shown}}}`"
    if any(char in name for char in "{[.:!]\n"):
        shown = "{" + name[:40] + "}"
        hint = f"only `{{name}}` is a placeholder; for literal braces write `{{{shown}}}`"
        return f"`{shown}` is no plain placeholder", hint
    return None


class Shell:
    """Follows the quoting of a shell text, to know what surrounds the next character."""

    def __init__(self) -> None:
        """Begin outside of all quotes."""
        self.frames = ["bare"]
        self.word = ""
        self.words: list[str] = []
        self.escaped = False
        self.heredoc = ""
        self.line = ""

    def context(self) -> str:
        """Say how a value must be quoted here: bare, single, double, or why it cannot be."""
        frame = self.frames[-1]
        if self.escaped:
            return "after a backslash"
        if self.heredoc and "\n" in self.line:
            return "in a here-document"
        for kind, name in (
            ("backtick", "in backticks"),
            ("ansi", "in $'…'"),
            ("arith", "in $((…))"),
        ):
            if kind in self.frames:
                return name
        if frame in ("brace", "comment"):
            return "in ${…}" if frame == "brace" else "in a comment"
        if frame in ("single", "double") and self._is_code():
            return "in code for another interpreter"
        return "bare" if frame == "sub" else frame

    def placed(self) -> None:
        """Note that a value stands here, as a part of the current word."""
        self.word += "x"
        self.escaped = False

    def feed(self, text: str) -> None:
        """Follow literal text."""
        at = 0
        while at < len(text):
            at += self._step(text, at)

    def _is_code(self) -> bool:
        before = self.words[-1] if self.words else ""
        flag = before.startswith("-") and not before.startswith("--") and before.endswith("c")
        return flag or before == "eval"

    def _step(self, text: str, at: int) -> int:
        char, frame = text[at], self.frames[-1]
        if self.escaped:
            self.escaped = False
            self.word += char
            return 1
        if self.heredoc:
            return self._in_heredoc(char)
        if char == "\\" and frame not in ("single", "comment"):
            self.escaped = True
            return 1
        if frame == "comment":
            if char == "\n":
                self.frames.pop()
            return 1
        if frame in ("single", "ansi"):
            return self._until("'", char)
        return self._open(text, at, char, frame)

    def _until(self, end: str, char: str) -> int:
        if char == end:
            self.frames.pop()
        self.word += char
        return 1

    def _open(self, text: str, at: int, char: str, frame: str) -> int:
        for opening, kind in (("$((", "arith"), ("$(", "sub"), ("${", "brace")):
            if text.startswith(opening, at):
                self.frames.append(kind)
                self._end_word()
                return len(opening)
        if char == "`":
            if frame == "backtick":
                self.frames.pop()
            else:
                self.frames.append("backtick")
            return 1
        if char == '"':
            if frame == "double":
                self.frames.pop()
            else:
                self.frames.append("double")
            return 1
        if frame == "double":
            self.word += char
            return 1
        return self._bare(text, at, char, frame)

    def _bare(self, text: str, at: int, char: str, frame: str) -> int:
        if text.startswith("$'", at):
            self.frames.append("ansi")
            return 2
        if char == "'":
            self.frames.append("single")
        elif frame == "arith" and text.startswith("))", at):
            self.frames.pop()
            return 2
        elif (frame == "sub" and char == ")") or (frame == "brace" and char == "}"):
            self.frames.pop()
        elif char == "#" and not self.word and frame != "arith":
            self.frames.append("comment")
        elif text.startswith("<<<", at):
            return 3
        elif text.startswith("<<", at) and frame != "arith":
            return self._begin_heredoc(text, at)
        elif char in " \t\n;|&()<>":
            self._end_word()
        else:
            self.word += char
        return 1

    def _end_word(self) -> None:
        if self.word:
            self.words.append(self.word)
        self.word = ""

    def _begin_heredoc(self, text: str, at: int) -> int:
        rest = text[at + 2 :].lstrip("-").lstrip(" ")
        word = rest.split("\n", 1)[0].split(" ", 1)[0]
        self.heredoc = word.strip("'\"\\") or "\0"
        self.line = ""
        return len(text[at:]) - len(rest) + len(word)

    def _in_heredoc(self, char: str) -> int:
        self.line += char
        if char == "\n" and self.line.count("\n") > 1:
            last = self.line.rstrip("\n").rpartition("\n")[2]
            if last.strip() == self.heredoc:
                self.heredoc, self.line = "", ""
        return 1


def _landed(argument: Argument, context: str, variables: Mapping[str, str]) -> str:
    """Write one value for one context; a secret as the variable that holds it."""
    value = argument.value
    reference = "${" + variables.get(argument.name, "") + "}"
    forms = {"bare": f'"{reference}"', "double": reference, "single": f"'\"{reference}\"'"}
    if argument.name in variables and context in forms:
        return forms[context]
    if argument.kind == "flag":
        return f"--{quote(argument.name)}" if (value or "").lower() in TRUE else ""
    if value is None:
        return ""
    if value and PLAIN.issuperset(value) and argument.name not in variables:
        return value
    if context == "bare":
        return quote(value)
    if context == "single":
        return value.replace("'", "'\"'\"'")
    if context == "double":
        return "".join("\\" + c if c in '\\"$`' else c for c in value)
    shown = "its value" if argument.kind == "secret" else f"`{value[:60]}`"
    raise ParameterInvalid(
        f"parameter `{argument.name}`: {shown} cannot be written safely {context}",
        hints=[f"in the command, put `{{{argument.name}}}` outside of quotes: it gets its own"],
    )


def _declared(parameter: Parameter, texts: Mapping[str, str | None]) -> Argument:
    text = texts.get(parameter.name)
    origin = "given"
    if text is None:
        text, origin = parameter.default, "default"
    kind = "text"
    if parameter.secret:
        kind = "secret"
    elif parameter.flag:
        kind = "flag"
    elif parameter.type == "path":
        kind = "path"
    argument = Argument(
        name=parameter.name, text=text, origin=origin, kind=kind, type=parameter.type
    )
    if text is not None and origin == "given":
        _check(parameter, argument)
    return argument


def _check(parameter: Parameter, argument: Argument) -> None:
    text = argument.text or ""
    if parameter.choices and text not in parameter.choices:
        raise _refused(
            argument, "is not among the choices", f"choices: {', '.join(parameter.choices)}"
        )
    if parameter.flag or parameter.type in BOOLEANS:
        if text.lower() not in TRUE | FALSE:
            raise _refused(argument, f"is not a {parameter.type}", "write `true` or `false`")
    elif parameter.type in NUMBERS or parameter.minimum or parameter.maximum:
        _check_number(parameter, argument)
    elif parameter.type == "uri" and not _scheme(text):
        hint = "a URI begins with a scheme, for example `https://` or `file:///`"
        raise _refused(argument, "is not a URI", hint)


def _check_number(parameter: Parameter, argument: Argument) -> None:
    text = argument.text or ""
    try:
        number = NUMBERS.get(parameter.type, float)(text)
    except ValueError:
        kind = parameter.type if parameter.type in NUMBERS else "number"
        article = "an" if kind[0] in "aeiou" else "a"
        raise _refused(argument, f"is not {article} {kind}", "") from None
    for limit, sign in ((parameter.minimum, -1), (parameter.maximum, 1)):
        if limit and sign * number > sign * float(limit):
            word = "below the minimum" if sign < 0 else "above the maximum"
            raise _refused(argument, f"is {word} {limit}", "")


def _scheme(text: str) -> str:
    """Give the scheme of a URI as `urllib.parse.urlparse` sees it."""
    head, colon, _ = text.partition(":")
    letters = head.replace("+", "").replace("-", "").replace(".", "")
    return head if colon and head[:1].isalpha() and letters.isalnum() and head.isascii() else ""


def _refused(argument: Argument, why: str, hint: str) -> ParameterInvalid:
    shown = "the value" if argument.kind == "secret" else f"`{(argument.text or '')[:60]}`"
    return ParameterInvalid(
        f"parameter `{argument.name}`: {shown} {why}", hints=[hint] if hint else []
    )


def _missing(entry: EntryPoint, missing: list[Parameter]) -> ParameterInvalid:
    names = ", ".join(f"`{p.name}`" for p in missing)
    word = "parameter" if len(missing) == 1 else "parameters"
    line = " ".join(f"-P {p.name}={p.type.upper()}" for p in missing)
    return ParameterInvalid(
        f"entry point `{entry.name}`: no value given for {word} {names}",
        hints=[f"add: {line}"],
    )


def _refuse_impossible(argument: Argument) -> None:
    for text in (argument.name, argument.text or ""):
        if "\0" in text:
            raise ParameterInvalid(
                f"parameter `{argument.name[:60]!r}` contains a NUL byte, which no command can take"
            )


def with_identity(argument: Argument, identity: str, landed: str | None = None) -> Argument:
    """Give `argument` with what stands for it in the key, and in the command if that differs."""
    return replace(argument, identity=identity, landed=landed)
