"""`repro completion`: static completion scripts, which never start Python for the common case."""

from __future__ import annotations

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.cli.options import Options
    from repro.cli.parser import Parser

HELP = "print a completion script for a shell"
EPILOG = """\
examples:
  repro completion bash > ~/.local/share/bash-completion/completions/repro
  repro completion zsh > ~/.zfunc/_repro
  repro completion fish > ~/.config/fish/completions/repro.fish
"""
BASH = """\
# completion of repro for bash
_repro() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case "$command" in
{cases}
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    else
        COMPREPLY=($(compgen -W "$words" -- "$word") $(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _repro repro
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import parser

    tree = _tree(parser.build())
    shell = options.text("shell")
    if shell == "fish":
        print(_fish(tree), end="")
    elif shell == "zsh":
        print("#compdef repro\nautoload -U +X bashcompinit && bashcompinit")
        print(_bash(tree), end="")
    else:
        print(_bash(tree), end="")
    return errors.OK


def _tree(parser: Parser) -> dict[str, tuple[list[tuple[str, str]], list[str]]]:
    """Give options with their help, and fixed words, of every command."""
    found = {}
    for name, sub in parser.commands.choices.items():
        actions = list(sub._actions)  # noqa: SLF001
        words = []
        for action in tuple(actions):
            if not action.option_strings:
                words += [str(word) for word in action.choices or ()]
            if isinstance(action.choices, dict):  # the actions of a command, each with its options
                actions += [a for one in action.choices.values() for a in one._actions]  # noqa: SLF001
        options = {s: a.help or "" for a in actions for s in a.option_strings}
        found[name] = (list(options.items()), words)
    return found


def _bash(tree: dict[str, tuple[list[tuple[str, str]], list[str]]]) -> str:
    cases = "\n".join(
        f'        {name}) local options="{" ".join(o for o, _ in options)}" '
        f'words="{" ".join(words)}" ;;'
        for name, (options, words) in tree.items()
    )
    return BASH.format(commands=" ".join(tree), cases=cases)


def _fish(tree: dict[str, tuple[list[tuple[str, str]], list[str]]]) -> str:
    lines = ["# completion of repro for fish"]
    lines += [f"complete -c repro -n __fish_use_subcommand -f -a {name}" for name in tree]
    for name, (options, words) in tree.items():
        seen = f"'__fish_seen_subcommand_from {name}'"
        for option, text in options:
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            shown = text.replace("'", "\\'")
            lines.append(f"complete -c repro -n {seen} {flag} -d '{shown}'")
        lines += [f"complete -c repro -n {seen} -f -a {word}" for word in words]
    return "\n".join(lines) + "\n"
