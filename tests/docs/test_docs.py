"""The pages against the code: what there is, is described; what is described, is there."""

from __future__ import annotations

import ast
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY, interpreter_variables

from repro import (
    condafile,
    decode,
    environmentfiles,
    envvars,
    errors,
    mlproject,
    requirements,
    schemas,
    shelllint,
)
from repro.cli import COMMANDS, parser
from repro.cli.options import COMMON
from repro.errors import ProjectInvalid, ReproError

DOCS = REPOSITORY / "docs"
REFERENCE = DOCS / "reference"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
IDS = [str(page.relative_to(REPOSITORY)) for page in PAGES]
SCHEMA = schemas.load("mlproject")
ENTRY_POINT = SCHEMA["$defs"]["entryPoint"]["properties"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")


def read(page):
    return page.read_text(encoding="utf-8")


def prose(text):
    """A page without what stands in fences."""
    return FENCE.sub("", text)


def fences(text, *languages):
    return [body for language, body in FENCE.findall(text) if language in languages]


def words(text):
    """Everything that stands in backticks, outside of fences."""
    return set(CODE.findall(prose(text)))


def section(text, title):
    """What stands below a heading, up to the next one that is not below it."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"there is no heading `{title}`"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", FENCE.sub(blanked, rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def blanked(fence):
    return re.sub(r"[^\n]", " ", fence[0])


def rows(text):
    """The rows of all tables, as lists of cells."""
    lines = [line for line in prose(text).splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if not set(row[0]) <= {"-", ":"}]


def anchors(text):
    """The names under which a page's headings can be linked to, as code forges make them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub(blanked, text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# -- every page


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    for target in LINK.findall(prose(read(page))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page.name}: nothing at {target}"
        if anchor:
            assert anchor in anchors(read(place)), f"{page.name}: no heading for {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_are_those_that_there_are(page):
    lines = [line for body in fences(read(page), "console", "sh") for line in body.splitlines()]
    for line in lines:
        for command in re.split(r"&&|\|\||[|;]", line.removeprefix("$ ")):
            argv = shlex.split(command, comments=True) if "repro" in command else []
            if argv[:1] == ["repro"]:
                arguments = argv[1 : argv.index(">") if ">" in argv else None]
                assert parser.build().parse_args(arguments).command in (None, *COMMANDS), line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_is_python(page):
    for body in fences(read(page), "python"):
        ast.parse(body)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_tests_that_are_named_exist(page):
    for path, name in re.findall(r"`([a-z]+/test_\w+\.py)(?:::(test_\w+))?`", read(page)):
        file = REPOSITORY / "tests" / path
        assert file.exists(), path
        assert not name or f"def {name}(" in read(file), f"{path} has no {name}"


def test_every_page_is_on_the_map():
    maps = (DOCS / "index.md", REFERENCE / "rules/index.md")
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in maps
        for target in LINK.findall(read(page))
        if "://" not in target
    }
    assert set(DOCS.rglob("*.md")) - linked == {DOCS / "index.md"}


def test_the_readme_is_short_and_has_the_two_commands():
    text = read(REPOSITORY / "README.md")
    assert len(text.splitlines()) < 150
    assert "pip install . && repro run examples/diabetes\n" in text
    assert "pip install '.[test]' && pytest\n" in text


# -- the reference


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_the_reference(command):
    described = words(section(read(REFERENCE / "cli.md"), f"`repro {command}`"))
    common = {name for option in COMMON for name in option.names} | {"-h", "--help"}
    for action in parser.build().commands.choices[command]._actions:
        missing = set(action.option_strings) - described - common
        assert not missing
        if not action.option_strings:
            assert described.issuperset(action.choices or [action.metavar])


def test_common_options_are_in_the_reference():
    described = words(section(read(REFERENCE / "cli.md"), "Options of every command"))
    assert described.issuperset(name for option in COMMON for name in option.names)
    assert described.issuperset({"-h", "--help"})


def test_every_exit_status_is_in_the_reference():
    table = rows(section(read(REFERENCE / "cli.md"), "Exit status"))[1:]
    assert [row[0] for row in table] == [str(code) for code, _meaning in errors.EXIT_MEANINGS]


def test_every_variable_is_in_the_reference():
    described = words(section(read(REFERENCE / "cli.md"), "Environment variables"))
    assert described.issuperset(envvars.VARIABLES)
    pages = " ".join(read(page) for page in PAGES)
    named = set(re.findall(r"\bREPRO_[A-Z_]+[A-Z]\b", pages))
    assert [name for name in envvars.unknown(named) if not name.startswith("REPRO_SECRET")] == []


def test_every_schema_is_in_the_reference():
    described = words(section(read(REFERENCE / "cli.md"), "JSON documents"))
    assert described.issuperset(schemas.names())


def origins(properties):
    """Each key with who understands it; a reference may carry the word in its definition."""
    found = {}
    for name, about in properties.items():
        inner = SCHEMA["$defs"].get(about.get("$ref", "").rpartition("/")[2], {})
        found[name] = about.get("x-origin") or inner.get("x-origin")
    return found


@pytest.mark.parametrize(
    ("title", "properties"),
    [
        ("Project", SCHEMA["properties"]),
        ("Entry point", ENTRY_POINT),
        ("Parameter", SCHEMA["$defs"]["parameter"]["anyOf"][1]["properties"]),
        ("`docker_env`", SCHEMA["$defs"]["dockerEnv"]["properties"]),
        ("`databricks_spark_job`", SCHEMA["properties"]["databricks_spark_job"]["properties"]),
    ],
)
def test_every_key_is_in_the_reference_with_its_origin(title, properties):
    table = rows(section(read(REFERENCE / "mlproject.md"), title))
    described = {row[0].strip("`"): row[1] for row in table if row[0].startswith("`")}
    assert {name: described.get(name) for name in properties} == origins(properties)
    assert described.keys() - properties.keys() <= {"x-…"}


def test_keys_inside_of_values_are_in_the_reference():
    described = words(read(REFERENCE / "mlproject.md"))
    for key in ("resources", "compare", "needs", "mounts"):
        about = ENTRY_POINT[key]
        for part in (about, about.get("items", {}), about.get("additionalProperties", {})):
            for choice in (part, *part.get("anyOf", ())) if isinstance(part, dict) else ():
                assert described.issuperset(choice.get("properties", ())), key
    assert described.issuperset(requirements.PYTHON_KEYS)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_examples_of_mlprojects_are_valid(page):
    environments = dict.fromkeys(("python_env.yaml", "gpu.yaml"), "python: '3.11'")
    named = dict(NAMED.findall(read(page)))
    others = {body for name, body in named.items() if name != "MLproject"}
    for body in fences(read(page), "yaml") if page.name != "errors.md" else ():
        if "dependencies:" not in body and body not in others:
            files = {**environments, **named, "MLproject": body}
            assert mlproject.decode("MLproject", reader(files), SCHEMA).problems == (), body


def test_every_row_of_the_compatibility_page_has_its_test():
    table = [r for r in rows(read(REFERENCE / "mlflow-compatibility.md")) if r[0] != "MLflow"]
    assert {row[2] for row in table} == {"equal", "stricter", "different", "missing"}
    assert [
        row for row in table if not re.fullmatch(r"`[a-z]+/test_\w+\.py::test_\w+`", row[3])
    ] == []


# -- errors


def error_classes(root=ReproError):
    for module in ("capture", "store.blobs", "tracking.server"):
        __import__(f"repro.{module}")
    for child in (root, *root.__subclasses__()):
        if child is root:
            yield root
        else:
            yield from error_classes(child)


def own_codes():
    return {kind.code: kind for kind in error_classes() if "code" in vars(kind)}


def test_every_error_is_in_the_reference_with_its_exit_status():
    text = read(REFERENCE / "errors.md")
    described = dict(re.findall(r"^### `([\w-]+)` \(exit ([^)]+)\)$", text, re.MULTILINE))
    expected = {code: str(kind.exit) for code, kind in own_codes().items()}
    expected["interrupted"] = "128 + the signal"
    assert described == expected


def problem_codes():
    """The codes of problems, as they stand in the modules that find them."""
    found = {condafile.CODE}
    for module in (decode, environmentfiles, mlproject, requirements):
        for node in ast.walk(ast.parse(read(pathlib.Path(module.__file__)))):
            if isinstance(node, ast.Call):
                named = [k.value for k in node.keywords if k.arg == "code"]
                first = getattr(node.func, "attr", "") in ("fail", "add") and node.args[:1]
                found |= {
                    v.value
                    for v in (*named, *(first or ()))
                    if isinstance(v, ast.Constant) and isinstance(v.value, str)
                }
    for node in ast.walk(ast.parse(read(pathlib.Path(shelllint.__file__)))):
        if isinstance(node, ast.Tuple) and isinstance(node.elts[0], ast.Constant):
            found |= {node.elts[0].value} if len(node.elts) == 3 else set()
    return found


def problem_sections():
    text = read(REFERENCE / "errors.md")
    titles = re.findall(r"^### `([\w-]+)` \(((?:error|warning|info)[^)]*)\)$", text, re.MULTILINE)
    return {code: (levels, section(text, f"`{code}` ({levels})")) for code, levels in titles}


def test_every_problem_is_in_the_reference():
    assert set(problem_sections()) == problem_codes()


def reader(files):
    return lambda path: files[path].encode() if path in files else None


@pytest.mark.parametrize("code", sorted(problem_codes()))
def test_an_example_of_a_problem_shows_it(code):
    levels, text = problem_sections()[code]
    files = dict(NAMED.findall(text))
    plain = fences(NAMED.sub("", text), "yaml")
    assert plain or code in ("too-long", "not-text", "file-name"), "an example is missing"
    for body in plain:
        try:
            found = mlproject.decode("MLproject", reader({**files, "MLproject": body}), SCHEMA)
            files["MLproject"] = body
            more = environmentfiles.problems(found.project, reader(files), files)
            problems = (*found.problems, *more)
        except ProjectInvalid as error:
            problems = error.problems
        mine = [p for p in problems if p.code == code]
        assert mine, [p.code for p in problems]
        assert all(p.level in levels for p in mine)


# -- architecture


def test_every_module_is_on_the_code_map():
    text = section(read(DOCS / "explanation/architecture.md"), "Code map")
    found = {p.stem for p in (REPOSITORY / "repro").glob("*.py")} - {"__init__"}
    found |= {f"{p.parent.name}/" for p in (REPOSITORY / "repro").glob("*/__init__.py")}
    assert found - words(text) == set()


def test_the_code_map_is_in_the_order_of_the_layers():
    contract = read(REPOSITORY / ".importlinter").partition("layers =")[2].partition("\n\n")[0]
    layers = re.findall(r"^ {4}(.+)$", contract, re.MULTILINE)[::-1]
    level = {name: i for i, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}
    table = rows(section(read(DOCS / "explanation/architecture.md"), "Code map"))[1:]
    found = [level[name.strip("/")] for row in table for name in CODE.findall(row[0])]
    assert found == sorted(found)


def test_import_contracts_that_are_named_exist():
    contracts = read(REPOSITORY / ".importlinter")
    text = read(DOCS / "explanation/architecture.md")
    named = re.findall(r"import contract `([\w ]+)`", text)
    assert named
    assert [name for name in named if f"contract:{name}]" not in contracts] == []


# -- pages that can be followed


@pytest.fixture
def shell(environ, tmp_path):
    """Run a shell command as a reader would, in one folder, with both streams together."""
    folder, programs = tmp_path / "reader", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    script = f'#!/bin/sh\nexec "{sys.executable}" -m repro "$@"\n'
    (programs / "repro").write_text(script)
    (programs / "repro").chmod(0o755)
    variables = {**interpreter_variables(), **environ}
    variables["PATH"] = f"{programs}:{variables['PATH']}"

    def call(command):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        return done.stdout.decode()

    call.folder = folder
    return call


def masked(text):
    """Leave out what differs from run to run: ids, times, and the version of Python."""
    text = re.sub(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z", "WHEN", text)
    text = re.sub(r"\b[0-9a-f]{8,64}\b", "ID", text)
    text = re.sub(r"\b\d+(\.\d+)? (ms|s|min)\b", "TIME", text)
    text = re.sub(r"\b\d+(\.\d+)? [kM]?B\b", "SIZE", text)
    return re.sub(r"\b(c?python) 3[\d.]+\w*", r"\1 3", text, flags=re.IGNORECASE).strip()


def steps(text):
    """The files to write and the commands to call, in the order of the page."""
    found = [(m.start(), "file", m.groups()) for m in NAMED.finditer(text)]
    for block in re.finditer(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for number, piece in enumerate(re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]):
            command, _, expected = piece.partition("\n")
            found.append((block.start() + number, "command", (command, expected)))
    return [(kind, what) for _at, kind, what in sorted(found)]


@pytest.mark.parametrize("page", ["tutorial/first-project.md", "how-to/keep-secrets-out.md"])
def test_a_page_can_be_followed(page, shell):
    for kind, (name, text) in steps(read(DOCS / page)):
        if kind == "file":
            (shell.folder / name).write_text(text)
        else:
            assert masked(shell(name)) == masked(text), name


def test_the_python_of_a_page_runs(shell):
    shutil.copytree(REPOSITORY / "examples/hello", shell.folder / "hello")
    blocks = fences(read(DOCS / "how-to/use-from-python.md"), "python")
    (shell.folder / "page.py").write_text("\n".join(blocks))
    told = shell(f"{sys.executable} page.py; echo status $?")
    assert told.endswith("status 0\n"), told
