"""The grammar of MLproject files, and each oddity that real ones show, on small files of our own."""

from __future__ import annotations

import pytest

from repro import mlproject, schemas
from repro.errors import ProjectInvalid
from repro.spec import (
    CondaEnvironment,
    DockerEnvironment,
    OtherEnvironment,
    PythonEnvironment,
)

SCHEMA = schemas.load("mlproject")
MINIMAL = "entry_points:\n  main:\n    command: python train.py\n"


def decode(text, name="MLproject", **files):
    data = text.encode() if isinstance(text, str) else text
    known = {name: data, **{k.replace("__", "."): v.encode() for k, v in files.items()}}
    return mlproject.decode(name, known.get, SCHEMA)


def problems(text, level="error", **files):
    try:
        found = decode(text, **files).problems
    except ProjectInvalid as error:
        found = error.problems
    return [p for p in found if p.level == level]


def only(text, level="error", **files):
    found = problems(text, level, **files)
    assert len(found) == 1, found
    return found[0]


def entry(text, name="main"):
    decoded = decode(text)
    assert not decoded.errors
    return decoded.project.entry_point(name)


# -- files that are no project


def test_1_an_empty_file():
    assert "is empty" in only("").message
    assert "is empty" in only("# only a comment\n").message


def test_2_a_python_script():
    problem = only("import os\n")
    assert "not a mapping" in problem.message
    assert "MLflow" in problem.hint


def test_3_only_regular_files_are_taken():
    assert mlproject.file_of(["src", "README"]) == ""
    assert decode("", name="").project.entry_points == ()


def test_4_prose_below_the_document():
    problem = only(MINIMAL + "\nThis project trains a model\nand so on\n")
    assert problem.where.line == 6
    assert "text after the document" in problem.hint


@pytest.mark.parametrize(
    "text",
    [
        "name: {{ cookiecutter.name }}\n" + MINIMAL,
        "name: {{cookiecutter.project_slug}}\n" + MINIMAL,
        "{% if x %}\n" + MINIMAL,
    ],
)
def test_5_a_template(text):
    assert "template" in only(text).hint


def test_6_an_image_as_a_bare_word():
    problem = only("docker_env: mlflow_app\n" + MINIMAL)
    assert problem.where.line == 1
    assert "{image: NAME}" in problem.hint


def test_7_a_dockerfile():
    environment = decode("docker_env: {dockerfile: Dockerfile}\n" + MINIMAL).project.environment
    assert environment == DockerEnvironment(dockerfile="Dockerfile")


def test_8_9_unknown_keys_are_warnings_with_the_nearest():
    found = problems("rocket: 1\ncondaenv: x\n" + MINIMAL, "warning")
    assert [p.where.line for p in found] == [1, 2]
    assert "`conda_env`" in found[1].hint
    assert not problems("x-mine: {a: 1}\n" + MINIMAL, "warning")


def test_10_other_environments_are_known_by_name():
    found = decode("renv_env: renv.lock\n" + MINIMAL).project.environment
    assert found == OtherEnvironment(key="renv_env", value="renv.lock")


@pytest.mark.parametrize(
    ("declared", "hint"),
    [
        ("{type:string, default: x}", "blank is missing"),
        ('{type: str, default "x"}', "colon is missing"),
        ("{type: str, defulat: x}", "`default`"),
        ("{type: str, descripton: x}", "`description`"),
    ],
)
def test_11_12_13_slips_in_a_parameter(declared, hint):
    text = f"entry_points:\n  main:\n    parameters:\n      a: {declared}\n    command: run {{a}}\n"
    assert any(hint in p.hint for p in problems(text, "warning"))


def test_14_a_null_default_means_required():
    text = "entry_points: {main: {parameters: {a: {default: null}}, command: 'x {a}'}}\n"
    assert entry(text).parameters[0].default is None
    assert only(text, "warning").code == "null-default"


def test_15_16_none_and_booleans_reach_the_command_as_python_writes_them():
    text = (
        "entry_points:\n  main:\n    parameters:\n      a: {type: bool, default: true}\n"
        "      b: {default: None}\n      c: {default: no}\n    command: 'x {a} {b} {c}'\n"
    )
    assert [p.default for p in entry(text).parameters] == ["True", "None", "False"]


def test_17_a_list_as_a_default():
    text = "entry_points: {main: {parameters: {a: {default: [x, 1]}}, command: 'x {a}'}}\n"
    assert entry(text).parameters[0].default == "['x', 1]"
    assert only(text, "warning").code == "list-default"


@pytest.mark.parametrize("kind", ["str", "number", "boolean", "list[str]", "int", "zork"])
def test_18_types_in_the_wild_are_accepted(kind):
    text = f"entry_points: {{main: {{parameters: {{a: '{kind}'}}, command: 'x {{a}}'}}}}\n"
    assert entry(text).parameters[0].type == kind


def test_19_an_undeclared_placeholder():
    problem = only("entry_points:\n  main:\n    command: python t.py --data {data_path}\n")
    assert "no parameter `data_path`" in problem.message
    assert (problem.where.line, problem.where.column) == (3, 33)


def test_20_a_single_brace():
    problem = only("entry_points: {main: {command: 'echo } x'}}\n")
    assert "double it" in problem.hint


def test_21_doubled_braces_are_literal():
    assert entry("entry_points: {main: {command: 'echo ${{N:-1}}'}}\n").command == "echo ${{N:-1}}"


def test_22_a_folded_line_that_keeps_its_break():
    text = (
        "entry_points:\n  main:\n    command: >\n      python t.py\n        --a 1\n        --b 2\n"
    )
    assert "broken-line" in [p.code for p in problems(text, "warning")]


def test_23_a_backslash_that_joins_with_a_blank():
    text = "entry_points:\n  main:\n    command: python t.py \\\n      --a 1\n"
    assert "backslash" in [p.code for p in problems(text, "warning")]


def test_24_a_backslash_inside_double_quotes():
    text = 'entry_points:\n  main:\n    command: "python t.py \\\n      --a 1"\n'
    assert entry(text).command == "python t.py --a 1"


def test_25_a_blank_line_makes_several_commands():
    text = "entry_points:\n  main:\n    command: |-\n      python a.py\n\n      python b.py\n"
    assert "blank-line" in [p.code for p in problems(text, "warning")]


def test_26_a_pipe_hides_failures():
    text = "entry_points: {main: {command: 'python t.py | tail -n 1'}}\n"
    assert "pipe" in [p.code for p in problems(text, "warning")]
    quoted = "entry_points: {main: {command: 'echo \"a | b\" || true'}}\n"
    assert "pipe" not in [p.code for p in problems(quoted, "warning")]


def test_33_names_that_are_no_identifiers():
    text = (
        "entry_points:\n  main:\n    parameters:\n      global : {default: 1}\n      log-level: str\n"
        "    command: 'x {global} {log-level}'\n"
    )
    assert [p.name for p in entry(text).parameters] == ["global", "log-level"]


def test_34_line_ends_do_not_matter():
    assert decode(MINIMAL.replace("\n", "\r\n")).project == decode(MINIMAL).project


@pytest.mark.parametrize(
    ("written", "reaches"),
    [
        ("1e-5", "1e-5"),
        (".5", "0.5"),
        ("0.90", "0.9"),
        ("0.00006", "6e-05"),
        ("0x1F", "31"),
        ("2020-01-02", "2020-01-02"),
        ("'0.90'", "0.90"),
        ("1_000", "1000"),
        ("~", None),
    ],
)
def test_35_scalars_are_those_of_yaml_1_1(written, reaches):
    text = f"entry_points: {{main: {{parameters: {{a: {{default: {written}}}}}, command: 'x {{a}}'}}}}\n"
    assert entry(text).parameters[0].default == reaches


def test_36_an_environment_file_above_the_project():
    decoded = decode(
        "conda_env: ../environment.yml\n" + MINIMAL, **{"../environment__yml": "dependencies: []"}
    )
    assert decoded.project.environment == CondaEnvironment(
        file="../environment.yml", text="dependencies: []"
    )


def test_37_condas_pip_form_in_a_python_env():
    files = {"python_env__yaml": "dependencies:\n  - pip:\n    - numpy\n"}
    problem = only(MINIMAL, **files)
    assert "conda's form" in problem.hint
    assert problem.where.line == 2


def test_38_requirement_files_are_followed():
    files = {
        "python_env__yaml": "python: '3.11'\ndependencies:\n  - -r reqs/a.txt\n  - six\n",
        "reqs/a__txt": "# comment\nnumpy>=1 # why\n-r b.txt\n--index-url https://i/simple\n",
        "reqs/b__txt": "pandas \\\n  ==2\n-c c.txt\n",
        "reqs/c__txt": "numpy<3\n",
    }
    found = decode(MINIMAL, **files).project.environment
    assert found.requirements == ("numpy>=1", "pandas   ==2", "six")
    assert found.constraints == ("numpy<3",)
    assert found.options == ("--index-url https://i/simple",)
    missing = {"python_env__yaml": "dependencies: ['-r gone.txt']\n"}
    assert "no file `gone.txt`" in only(MINIMAL, **missing).message


def test_39_the_project_itself_as_a_package():
    files = {"python_env__yaml": "dependencies: ['-e .', './lib[x]', '../other']\n"}
    problem = only(MINIMAL, **files)
    assert "outside" in problem.message
    files = {"python_env__yaml": "dependencies: ['-e .', './lib[x]']\n"}
    assert decode(MINIMAL, **files).project.environment.directories == ((".", ""), ("lib[x]", ""))


def test_41_a_package_from_a_repository():
    files = {
        "python_env__yaml": "dependencies: ['git+https://h/p.git', '-e git+https://h/q.git']\n"
    }
    found = decode(MINIMAL, **files).project.environment
    assert found.requirements == ("git+https://h/p.git", "git+https://h/q.git")


def test_42_names_of_the_file():
    assert mlproject.file_of(["x", "mlPROJECT"]) == "mlPROJECT"
    assert mlproject.file_of(["MLproject.yaml", "MLproject"]) == "MLproject"
    assert mlproject.file_of(["MLproject.yml"]) == "MLproject.yml"
    assert "file-name" in [p.code for p in decode(MINIMAL, name="MLproject.yaml").problems]
    assert mlproject.file_of(["MLproject.txt", "xMLproject"]) == ""


def test_45_a_declared_parameter_that_is_not_used():
    text = "entry_points: {main: {parameters: {a: str}, command: run}}\n"
    assert only(text, "warning").code == "unused-parameter"


# -- selection of environments, as MLflow does it


def test_two_environments():
    problem = only("conda_env: a\npython_env: b\n" + MINIMAL, a="", b="")
    assert "together" in problem.message


@pytest.mark.parametrize(
    ("head", "files", "kind"),
    [
        ("", {}, PythonEnvironment),
        ("", {"python_env__yaml": "python: '3.10'"}, PythonEnvironment),
        ("", {"conda__yaml": "dependencies: []"}, CondaEnvironment),
        (
            "",
            {"conda__yaml": "dependencies: []", "python_env__yaml": "python: '3.9'"},
            PythonEnvironment,
        ),
        ("docker_env: {image: x}\n", {"conda__yaml": "a: 1"}, DockerEnvironment),
        ("docker_env: {}\n", {"conda__yaml": "a: 1"}, CondaEnvironment),
        ("python_env:\n", {"conda__yaml": "a: 1"}, CondaEnvironment),
        ("conda_env: c.yml\n", {"c__yml": "a: 1"}, CondaEnvironment),
    ],
)
def test_which_environment_is_chosen(head, files, kind):
    assert type(decode(head + MINIMAL, **files).project.environment) is kind


def test_an_environment_file_that_is_not_there():
    assert "no file `gone.yaml`" in only("python_env: gone.yaml\n" + MINIMAL).message


def test_a_python_version_that_yaml_takes_for_a_number():
    files = {"python_env__yaml": "python: 3.10\n"}
    assert decode(MINIMAL, **files).project.environment.python == "3.10"
    assert "quotes" in only(MINIMAL, "warning", **files).hint


def test_an_unknown_key_of_a_python_env():
    files = {"python_env__yaml": "pyhton: '3.10'\n"}
    assert "`python`" in only(MINIMAL, **files).hint


def test_docker_volumes_and_environment():
    text = "docker_env:\n  image: i\n  volumes: ['/a:/b']\n  environment: [TOKEN, [MODE, 1]]\n"
    assert decode(text + MINIMAL).project.environment == DockerEnvironment(
        image="i", volumes=("/a:/b",), environment=(("TOKEN", None), ("MODE", "1"))
    )
    assert problems("docker_env: {image: i, environment: {A: 1}}\n" + MINIMAL)
    assert problems("docker_env: {image: i, volumes: /a}\n" + MINIMAL)
    assert problems("docker_env: {volumes: []}\n" + MINIMAL)


@pytest.mark.parametrize(
    "text",
    [
        "databricks_spark_job: {}\n",
        "databricks_spark_job: {python_file: x}\n" + MINIMAL,
        "databricks_spark_job: {python_file: x}\nconda_env: c\n",
    ],
)
def test_a_spark_job_that_makes_no_sense(text):
    assert problems(text, c="")


def test_a_spark_job():
    found = decode("databricks_spark_job: {python_file: x.py, parameters: [1, a]}\n").project
    assert found.spark_job.python_file == "x.py"
    assert found.spark_job.parameters == ("1", "a")


# -- the extensions


def test_all_extensions_of_an_entry_point():
    text = """
entry_points:
  train:
    description: trains
    command: "run {a}"
    parameters: {a: {type: float, default: 1, minimum: 0, maximum: 2, description: d}}
    inputs: [data/**, train.py]
    outputs: [model.pkl]
    metrics: [m.json]
    needs: [prepare, {step: clean, parameters: {x: 1}}]
    env: {MODE: fast, N: 3}
    pass_env: [LICENSE]
    secrets: [TOKEN]
    network: false
    mounts: ["/data:/mnt", {source: /big, version: 2}]
    sandbox: none
    shell: strict
    cache: false
    timeout: 1.5h
    retries: 2
    resources: {cpus: 2, memory: 4GiB, gpus: 1}
    compare: {m.json: {rtol: 1.0e-6}, "*.log": ignore}
    backend: my-slurm2
  prepare: {command: p}
  clean: {command: c}
"""
    assert not problems(text)
    assert not problems(text, "warning")
    one = entry(text, "train")
    assert one.inputs == ("data/**", "train.py")
    assert one.env == {"MODE": "fast", "N": "3"}
    assert [n.step for n in one.needs] == ["prepare", "clean"]
    assert (one.timeout_ms, one.retries, one.resources.memory) == (5_400_000, 2, 4 << 30)
    assert [m.version for m in one.mounts] == ["", "2"]
    assert (one.network, one.cache, one.shell) == (False, False, "strict")
    assert one.parameters[0].maximum == "2"
    assert one.backend == "my-slurm2"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("python_env: own.yaml", PythonEnvironment(python="3.9", source="own.yaml")),
        ("conda_env: own.yaml", CondaEnvironment(file="own.yaml", text="python: '3.9'")),
        ("docker_env: {image: own}", DockerEnvironment(image="own")),
        ("renv_env: own", OtherEnvironment(key="renv_env", value="own")),
        (
            "uv_env: own",
            PythonEnvironment(requirements=("a",), uv_project="own", source="own/pyproject.toml"),
        ),
    ],
)
def test_an_entry_point_may_have_an_environment_of_its_own(line, found):
    text = f"python_env: all.yaml\n{MINIMAL}    {line}\n"
    files = {
        "all__yaml": "python: '3.11'",
        "own__yaml": "python: '3.9'",
        "own/pyproject__toml": "[project]\nname = 'own'\ndependencies = ['a']\n",
    }
    decoded = decode(text, **files)
    assert decoded.problems == ()
    assert decoded.project.entry_point("main").environment == found
    assert decoded.project.environment.python == "3.11"


def test_an_own_uv_project_that_is_not_there_is_named_with_its_place():
    problem = only(MINIMAL + "    uv_env: gone\n")
    assert "no file `gone/pyproject.toml`" in problem.message
    assert (problem.where.line, problem.where.text) == (4, "    uv_env: gone")


def test_where_a_step_is_to_run_is_not_in_its_key(project, run):
    text = "entry_points:\n  main:\n    inputs: [in]\n    command: cat in\n"
    folder = project(MLproject=text, **{"in": "x"})
    assert not run(folder).cached
    (folder / "MLproject").write_text(text + "    backend: local\n")
    assert run(folder).cached


@pytest.mark.parametrize(
    "line",
    [
        "inputs: data",
        "outputs: [1]",
        "timeout: soon",
        "retries: -1",
        "sandbox: full",
        "network: maybe",
        "env: [A]",
        "secrets: ['a b']",
        "resources: {ram: 1}",
        "needs: {a: b}",
        "compare: {x: sometimes}",
        "command: 5",
        "parameters: [a]",
        "parameters: {a: null}",
        "parameters: {a: 5}",
        "uv_env: [.]",
        "backend: Slurm",
        "backend: -x",
        "backend: 5",
        "backend:",
    ],
)
def test_an_extension_of_the_wrong_kind_is_named_with_its_place(line):
    text = f"entry_points:\n  main:\n    command: run\n    {line}\n".replace(
        "command: run\n    command", "command"
    )
    found = problems(text)
    assert found
    assert all("entry_points.main" in p.message and p.where.line for p in found)


def test_null_where_mlflow_fails_is_taken_as_empty():
    assert entry("entry_points: {main: {parameters: , command: x}}\n").parameters == ()
    assert decode("name: x\nentry_points:\n").project.entry_points == ()


def test_all_mistakes_are_reported_at_once():
    text = """
entry_points:
  main:
    comand: python train.py
  other:
    command: [a]
  third: run
docker_env: image
"""
    found = problems(text)
    assert len(found) == 4
    assert "comand" in found[0].hint
    assert [p.where.line for p in found] == [4, 6, 7, 8]


# -- texts that are made to hurt

DEEP = "a: " + "[" * 100 + "]" * 100
BOMB = "a0: &a0 [x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (BOMB, "yaml-bomb"),
        (DEEP, "too-deep"),
        ("a: &a [*a]\n", "yaml"),
        ("a: *nowhere\n", "yaml"),
        ("a: !!python/object/apply:os.system ['id']\n", "tag"),
        ("a: !mine x\n", "tag"),
        ("--- {a: 1}\n--- {b: 2}\n", "yaml"),
        ("a: 1\na: 2\n", "duplicate-key"),
        (b"a: \xff\n", "not-text"),
        (b"\x00\x01\x02ELF", "not-text"),
        ("a:\tb: c\n", "yaml"),
        ("x: " + "y" * (2 << 20), "too-long"),
        ("? [a]\n: b\n", "yaml"),
        ("a: 2020-99-99\n", "yaml"),
        ("[" * 50_000, "too-deep yaml"),  # the parser itself may find the end of it first
        ("a: 'unfinished\n", "yaml"),
        ("\ufeff" + MINIMAL + "  bad\n", "yaml"),
    ],
)
def test_text_that_cannot_be_read_is_explained(text, code):
    (problem,) = problems(text)
    assert problem.code in code.split()
    assert "\n" not in problem.message


@pytest.mark.parametrize(
    ("text", "place", "character"),
    [
        ('name: "\u00e9"\nx: "\x01"\n', (2, 5), "U+0001"),
        ("name: x\ny: a\x7fb\n", (2, 5), "U+007F"),
        ("x: \ufffe\n", (1, 4), "U+FFFE"),
    ],
)
def test_a_character_that_yaml_does_not_allow_is_named_with_its_place(text, place, character):
    problem = only(text)
    assert (problem.where.line, problem.where.column) == place
    assert character in problem.message
    assert not problem.hint


@pytest.mark.parametrize("text", ["entry_points:\n\tmain: {command: x}\n", "a:\n  b: c\n\td: e\n"])
def test_a_tab_is_told(text):
    assert "no tabs" in only(text).hint


def test_a_need_that_is_no_entry_point_is_told_with_its_place():
    text = "entry_points:\n  prepare: {command: x}\n  main:\n    command: y\n    needs: [prepar]\n"
    problem = only(text)
    assert (problem.code, problem.where.line) == ("needs", 5)
    assert problem.hint == "a similar one exists: `prepare`"
    problem = only(text.replace("prepar]", "{step: zzz}]"))
    assert problem.hint == "it is none of: main, prepare"


@pytest.mark.parametrize("key", ["inputs", "outputs"])
@pytest.mark.parametrize("path", ["/etc", "..", "../*.csv", "data/../../x"])
def test_what_a_step_reads_and_writes_lies_in_the_project(key, path):
    text = f"entry_points:\n  main:\n    command: x\n    {key}: [{path}]\n"
    problem = only(text)
    assert (problem.code, problem.where.line) == ("outside", 4)
    assert not problems(text.replace(path, "..data/a..b/..."))


def test_a_byte_order_mark_is_no_problem():
    assert not problems("\ufeff" + MINIMAL)


def test_merge_keys_work_as_in_yaml():
    text = "x-b: &b {command: run}\nentry_points:\n  main:\n    <<: *b\n"
    assert entry(text).command == "run"
