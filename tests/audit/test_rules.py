"""The edges of the rules: what each must see, and what it must leave alone.

Each rule's first two cases, one bad and one good, are the examples of its page: test_pages.
"""

from __future__ import annotations

import pytest
from audit.examples import collect
from hypothesis import given
from hypothesis import strategies as st

from repro.audit import verdict
from repro.audit.facts import EnvironmentFacts, Facts, Found, Gap, LockText, Prefix
from repro.audit.rules import commands, pins, secrets, supply, urls
from repro.audit.rules.demands import demands
from repro.audit.rules.machines import PATH
from repro.audit.rules.table import BY_CODE, LEVELS, NEEDS, RULES
from repro.audit.settings import Settings
from repro.lock import Artifact, EnvironmentLock, Image, Interpreter
from repro.lockfiles import dockerlock, pylock
from repro.lockfiles.names import LockFile
from repro.ports import Unmet
from repro.spec import CondaEnvironment, Project, PythonEnvironment
from repro.value import replace

SHA = "a" * 64
LOCK = EnvironmentLock(
    kind="python",
    platform="linux-64",
    interpreter=Interpreter(
        implementation="cpython", version="3.11.7", abi="cpython-311", platform="linux-x86_64"
    ),
    artifacts=(
        Artifact(
            name="tinymath",
            version="1.1.0",
            kind="wheel",
            digest=SHA,
            filename="tinymath-1.1.0-py3-none-any.whl",
            url="https://files.pythonhosted.org/tinymath-1.1.0-py3-none-any.whl",
        ),
    ),
)


def mlproject(command="python train.py", extra=""):
    return f"entry_points:\n  main:\n{extra}    command: '{command}'\n"


def found(code, facts):
    return [f for f in verdict.judge(facts).findings if f.code == code]


def codes(files, **told):
    return {f.code for f in verdict.judge(collect(files, told)).findings}


def locked(request, *artifacts, kind="python", platform="linux-64", **more):
    """Facts of one environment whose lock holds these packages."""
    lock = EnvironmentLock(kind=kind, artifacts=artifacts, platform=platform)
    file = LockFile(path="lockfiles/lock", kind=kind, locks=(lock,))
    env = EnvironmentFacts(label="", kind=kind, request=request, file="env", locks=(file,))
    lines = {a.name: number for number, a in enumerate(artifacts, 1)}
    return Facts(
        name="p",
        project=Project(file="MLproject"),
        today=collect({}).today,
        platform="linux-64",
        environments=(replace(env, **more),),
        lock_texts={"lockfiles/lock": LockText(path="lockfiles/lock", lines=lines)},
    )


def wheel(name, *depends, version="1.0", url=None):
    place = f"https://files.pythonhosted.org/{name}.whl" if url is None else url
    return Artifact(
        name=name, version=version, kind="wheel", digest=SHA, url=place, depends=depends
    )


def conda(name, *depends, channel="https://conda.anaconda.org/conda-forge"):
    url = f"{channel}/linux-64/{name}-1.0-0.conda"
    return Artifact(
        name=name, version="1.0", kind="conda", digest=SHA, url=url, build="0", depends=depends
    )


# -- the table


def test_codes_are_unique_and_in_the_order_of_their_letters():
    assert len(LEVELS) == len(RULES) == len(BY_CODE)
    for letter in {code[0] for code in LEVELS}:
        numbers = [int(code[1:]) for code in LEVELS if code[0] == letter]
        assert numbers == list(range(1, len(numbers) + 1))


def test_every_need_is_a_part_of_the_facts_and_says_how_it_is_met():
    for rule in RULES:
        assert not rule.needs or (rule.needs in NEEDS and hasattr(Facts, rule.needs))


def test_a_rule_without_its_facts_is_skipped_and_not_passed():
    report = verdict.judge(collect({"MLproject": mlproject()}))
    skipped = {code for one in report.skipped for code in one.codes}
    assert skipped == {rule.code for rule in RULES if rule.needs}
    assert all(one.needs for one in report.skipped)


def test_a_project_that_is_all_right_has_no_finding_that_fails():
    files = {
        "MLproject": "python_env: python_env.yaml\n"
        + mlproject(
            "python train.py {seed}",
            "    parameters: {seed: {type: int, default: 0}}\n"
            "    inputs: [train.py]\n    outputs: [model.bin]\n",
        ),
        "python_env.yaml": 'python: "3.11"\ndependencies:\n  - tinymath>=1\n',
        "lockfiles/pylock.linux-64.toml": pylock.encode((LOCK,), {}).decode(),
    }
    assert codes(files) == {"V02"}


# -- D and L


def test_what_all_platforms_lack_is_one_finding():
    gap = Unmet(code="D02", entry="numpy>=2", why="the lock has 1.26")
    gaps = tuple(Gap(path="lockfiles/lock", platform=p, unmet=gap) for p in ("a", "b"))
    (hit,) = found("D02", locked(PythonEnvironment(requirements=("numpy>=2",)), gaps=gaps))
    assert hit.message == "`numpy>=2`: the lock has 1.26"
    assert hit.extra["platforms"] == "a b"


def test_a_gap_is_reported_without_the_credential_of_its_entry():
    gap = Unmet(code="D01", entry="x @ https://me:hunter22@host/x.whl", why="is not there")
    gaps = (Gap(path="l", platform="linux-64", unmet=gap),)
    (hit,) = found("D01", locked(PythonEnvironment(), gaps=gaps))
    assert "hunter22" not in f"{hit.message} {hit.subject}"


@pytest.mark.parametrize(
    ("artifacts", "surplus"),
    [
        ((wheel("a", "b>=1"), wheel("b", "c ; extra == 'x'"), wheel("c")), []),
        ((wheel("a", "b>=1"), wheel("b"), wheel("left-over")), ["left-over"]),
        ((wheel("a", "B_b"), wheel("b-b")), []),
        ((wheel("a"), wheel("b")), []),  # nobody says what needs what
        ((wheel("a", "b"), wheel("b"), wheel("pip")), []),
    ],
)
def test_what_nothing_asks_for(artifacts, surplus):
    facts = locked(PythonEnvironment(requirements=("a>=1",)), *artifacts)
    assert [hit.subject for hit in found("D03", facts)] == surplus


def test_a_local_package_may_need_anything():
    request = PythonEnvironment(requirements=("a",), directories=((".", SHA),))
    facts = locked(request, wheel("a", "b"), wheel("b"), wheel("c"))
    assert found("D03", facts) == []


def test_conda_packages_are_followed_by_their_names():
    request = CondaEnvironment(file="conda.yaml", packages=("conda-forge::a=1",))
    facts = locked(request, conda("a", "b >=1,<2"), conda("b"), conda("c"), kind="conda")
    assert [hit.subject for hit in found("D03", facts)] == ["c"]


def test_a_lock_without_a_platform_is_for_all():
    assert found("L03", locked(PythonEnvironment(), wheel("a"), platform="")) == []
    assert found("L03", locked(PythonEnvironment(), wheel("a"), platform="osx-64"))


def test_every_platform_that_the_settings_name_has_to_be_locked():
    facts = locked(PythonEnvironment(), wheel("a"))
    wanted = replace(facts, settings=Settings(platforms=("linux-64", "osx-64", "osx-arm64")))
    assert [hit.subject for hit in found("L03", wanted)] == ["osx-64", "osx-arm64"]


def test_a_lock_of_uv_counts_as_a_lock():
    request = PythonEnvironment(requirements=("a",), source="pyproject.toml")
    facts = locked(request, wheel("a"), locks=())
    pinned = replace(request, pinned=(("uv.lock", SHA),))
    assert found("L01", facts)
    assert found("L01", locked(pinned, wheel("a"), locks=())) == []


# -- H, U and P


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        ("tinymath @ git+https://h/t.git@main", "H03"),
        ("tinymath @ git+https://h/t.git", "H03"),
        ("tinymath @ git+https://h/t.git@" + "a" * 39, "H03"),
        ("tinymath @ git+https://h/t.git@" + "a" * 40, ""),
        ("tinymath @ git+https://h/t.git@" + "a" * 40 + "#egg=tinymath", ""),
        ("git+ssh://git@h/t.git@v1.0", "H03"),
        ("tinymath @ https://h/t.whl", "H06"),
        ("tinymath @ https://h/t.whl#sha256=" + "a" * 64, ""),
        ("https://h/t.whl", "H06"),
        ("tinymath==1.1", ""),
        ("./wheels/t.whl", ""),
    ],
)
def test_what_a_requirement_names(line, hit):
    facts = locked(PythonEnvironment(requirements=(line,), source="env"), locks=())
    assert {f.code for f in verdict.judge(facts).findings} & {"H03", "H06"} == {hit} - {""}


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://me:hunter22@host/simple", True),
        ("https://abcdefghijklmnopqrstuvwxyz@host/simple", True),
        ("https://conda.host/t/ab-12345678/channel", True),
        ("https://host/x.whl?token=0123456789", True),
        ("https://host/x.csv?X-Amz-Signature=0123456789abcdef", True),
        ("https://host/simple", False),
        ("ssh://git@host/x.git", False),
        ("git+ssh://git@host/x.git@v1", False),
        ("https://${USER}:${TOKEN}@host/simple", False),
        ("https://{user}:{token}@host/", False),
        ("https://host/t/short/x", False),
        ("https://host/x.csv?page=2", False),
    ],
)
def test_which_urls_hold_a_credential(url, secret):
    assert urls.has_credential(url) is secret


@pytest.mark.parametrize(
    ("option", "hit"),
    [
        ("--index-url http://index.example/simple", True),
        ("--index-url https://index.example/simple", False),
        ("--index-url http://localhost:8080/simple", False),
        ("--find-links http://127.0.0.1/links", False),
        ("", True),  # only a locked package says so
    ],
)
def test_plain_http_counts_except_on_this_machine(option, hit):
    url = None if option else "http://index.example/a.whl"
    facts = locked(PythonEnvironment(options=(option,) * bool(option)), wheel("a", url=url))
    assert bool(found("U02", facts)) is hit


@pytest.mark.parametrize(
    ("channels", "place", "hit"),
    [
        (("conda-forge",), "https://conda.anaconda.org/conda-forge", False),
        (("conda-forge",), "https://mirror.example/conda-forge", False),
        (("conda-forge",), "https://conda.anaconda.org/bioconda", True),
        (("https://own.example/channel",), "https://own.example/channel", False),
        ((), "https://conda.anaconda.org/conda-forge", True),
    ],
)
def test_channels_are_known_by_name_or_by_host(channels, place, hit):
    request = CondaEnvironment(file="conda.yaml", channels=channels)
    facts = locked(request, conda("zlib", channel=place), kind="conda")
    assert bool(found("U03", facts)) is hit


def test_an_index_of_ones_own_makes_pypi_a_stranger():
    own = PythonEnvironment(options=("--index-url https://own.example/simple",))
    assert found("U03", locked(own, wheel("a")))
    assert not found("U03", locked(own, wheel("a", url="https://own.example/a.whl")))
    extra = PythonEnvironment(options=("--extra-index-url https://own.example/simple",))
    assert not found("U03", locked(extra, wheel("a")))


@pytest.mark.parametrize(
    ("text", "manager", "exact"),
    [
        ("numpy==1.26.4", "python", True),
        ("numpy == 1.26.4 ; python_version > '3'", "python", True),
        ("numpy[extra]===1.26.4", "python", True),
        ("numpy==1.26.*", "python", False),
        ("numpy>=1,<2", "python", False),
        ("numpy", "python", False),
        ("numpy=1.26.4=py311h64a7726_0", "conda", True),
        ("numpy==1.26.4", "conda", True),
        ("numpy=1.26.4", "conda", True),
        ("numpy=1.26", "conda", False),
        ("numpy>=1.26.4", "conda", False),
        ("numpy", "conda", False),
    ],
)
def test_which_lines_leave_a_choice(text, manager, exact):
    if manager == "conda":
        request = CondaEnvironment(file="conda.yaml", packages=(text,))
    else:
        request = PythonEnvironment(requirements=(text,))
    (demand,) = demands(request)
    assert (demand.name, demand.manager, demand.is_exact) == ("numpy", manager, exact)


@pytest.mark.parametrize("version", ["3.11", "3.11.7", "==3.11.*", "=3.11", "=3.8.13=h582c2e5_0_cpython", "~=3.11.2", ">=3.11,<3.12"])  # fmt: skip
def test_pythons_that_are_pinned(version):
    assert pins.pins_minor(version)


@pytest.mark.parametrize("version", ["", "3", ">=3.8", "~=3.11", ">=3.8,<3.12", "<3.12", "!=3.9", "3.11|3.12"])  # fmt: skip
def test_pythons_that_are_not_pinned(version):
    assert not pins.pins_minor(version)


@pytest.mark.parametrize(
    ("when", "limit", "after"),
    [
        ("2025-07-01T00:00:00Z", "2025-06-30", True),
        ("2025-06-30T23:59:00Z", "2025-06-30", False),
        ("2025-06-30T12:00:01Z", "2025-06-30T12:00:00Z", True),
        ("2025-06-30T12:00:00", "2025-06-30T14:00:00+02:00", False),
        ("yesterday", "2025-06-30", False),
        ("2025-07-01", "soon", False),
    ],
)
def test_when_something_was_published(when, limit, after):
    assert pins.is_after(when, limit) is after


# -- I, T and X


def test_a_thousand_changed_files_are_twenty_and_a_number():
    many = tuple(Found(kind="changed", path=f"lib/{n}.py") for n in range(1000))
    prefix = Prefix(path="/e", platform="linux-64", found=many)
    hits = found("T01", locked(PythonEnvironment(), wheel("a"), prefixes=(prefix,)))
    assert len(hits) == 21
    assert any(hit.message.startswith("and 980 more") for hit in hits)


def test_every_kind_of_what_is_found_has_a_rule():
    from repro.audit.rules import prefixes
    from repro.environments import inspection

    assert inspection.DIFFERENCES.keys() | inspection.NOTICES.keys() <= prefixes.MESSAGES.keys()
    for kind in prefixes.MESSAGES:
        prefix = Prefix(path="/e", platform="linux-64", found=(Found(kind=kind, package="a"),))
        facts = locked(PythonEnvironment(), wheel("a"), prefixes=(prefix,))
        hits = [f for f in verdict.judge(facts).findings if f.code[0] in "ITX"]
        assert len(hits) == 1, kind


# -- V and C


def test_a_database_that_says_no_date_is_not_called_old():
    assert "V03" not in codes({}, advisories={"source": "osv", "date": ""})
    assert "V03" not in codes({}, advisories={"source": "osv", "date": "2026-01-01"})
    assert "V03" in codes({}, advisories={"source": "osv", "date": "2025-12-31"})
    assert "V03" not in codes({}, advisories={"source": "osv", "date": "last week"})


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("MIT", True),
        ("AGPL-3.0-only", False),
        ("agpl-3.0-only", False),
        ("MIT OR AGPL-3.0-only", True),
        ("MIT AND AGPL-3.0-only", False),
        ("(MIT OR AGPL-3.0-only) AND BSD-3-Clause", True),
        ("MIT OR BSD-3-Clause AND AGPL-3.0-only", True),
        ("AGPL-3.0-only WITH Some-exception", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("BSD License, three clauses", True),
        ("AGPL-3.0 or so, see the file", False),
        ("((", True),
        ("", True),
    ],
)
def test_which_licences_a_denial_denies(text, allowed):
    assert supply.permitted(text, Settings(denied=("AGPL-*",))) is allowed


def test_with_a_list_of_allowed_licences_all_others_are_refused():
    settings = Settings(allowed=("MIT", "BSD-*"))
    assert supply.permitted("BSD-3-Clause AND MIT", settings)
    assert not supply.permitted("Apache-2.0", settings)


LICENCES = st.sampled_from(["MIT", "AGPL-3.0-only", "BSD-3-Clause", "GPL-2.0-only"])
EXPRESSIONS = st.recursive(
    LICENCES,
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner),
)


@given(EXPRESSIONS, EXPRESSIONS)
def test_a_choice_needs_one_and_a_union_both(one, other):
    settings = Settings(denied=("AGPL-*", "GPL-*"))
    first, second = supply.permitted(one, settings), supply.permitted(other, settings)
    assert supply.permitted(f"{one} OR {other}", settings) is (first or second)
    assert supply.permitted(f"{one} AND {other}", settings) is (first and second)


def test_a_policy_makes_its_rules_errors():
    licence = [{"name": "a", "version": "1", "text": ""}]
    assert [f.level for f in found("C01", collect({}, licences=licence))] == ["info"]
    stated = collect({".repro-audit.toml": 'allow-licenses = ["MIT"]\n'}, licences=licence)
    assert [f.level for f in found("C01", stated)] == ["error"]


# -- S


@pytest.mark.parametrize("name", ["api_key", "wandb_api_key", "API-KEY", "apiKey", "password", "db.password", "hf_token", "token", "aws_secret_access_key", "clientSecret", "credentials"])  # fmt: skip
def test_names_of_secrets(name):
    assert secrets.is_name(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "token_length", "keyboard", "key", "secretary", "monkey", "passes", "n_keys", "authors"])  # fmt: skip
def test_names_that_only_look_like_it(name):
    assert not secrets.is_name(name)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("wandblogin", "0123456789abcdef0123456789abcdef01234567", True),
        ("commit", "0123456789abcdef0123456789abcdef01234567", False),
        ("data", "hf_abcdefghijklmnopqrstuvwxyzabcdefgh", True),
        ("x", "AKIAIOSFODNN7EXAMPLE", True),
        ("x", "-----BEGIN RSA PRIVATE KEY-----", True),
        ("token", "None", False),
        ("token", "", False),
        ("token", "$TOKEN", False),
        ("token", "abc", True),
        ("epochs", "10", False),
    ],
)
def test_values_that_are_secrets(name, value, secret):
    assert secrets.is_secret(name, value) is secret


@pytest.mark.parametrize(
    ("command", "hit"),
    [
        ("API_KEY=0123456789 python train.py", True),
        ('curl -H "x: ghp_0123456789abcdefghij0123456789abcdef" h', True),
        ("API_KEY=$KEY python train.py", False),
        ("python train.py --token {token}", False),
        ("SEED=12345678 python train.py", False),
    ],
)
def test_secrets_in_commands(command, hit):
    extra = "    parameters: {token: {secret: true}}\n"
    assert ("S03" in codes({"MLproject": mlproject(command, extra)})) is hit


# -- E, M and N


@pytest.mark.parametrize("command", ["pip install x", "python -m pip install -r r.txt", "cd a; pip3 install .", "conda install -y x", "poetry install && x", "uv sync", "apt-get -y install x", "mamba env update -f e.yml", 'Rscript -e "install.packages(1)"', "/usr/bin/pip install x"])  # fmt: skip
def test_commands_that_change_the_environment(command):
    assert "E01" in codes({"MLproject": mlproject(command)})


@pytest.mark.parametrize("command", ["pip freeze > r.txt", "python pipeline.py install", "echo pip", "python -m pipenv_like install", "pip list", "python install.py"])  # fmt: skip
def test_commands_that_only_look_like_it(command):
    assert "E01" not in codes({"MLproject": mlproject(command)})


@pytest.mark.parametrize("command", ["dvc repro", "make all", "cd x && snakemake -j1", "mlflow run ."])  # fmt: skip
def test_other_workflow_tools(command):
    assert "E02" in codes({"MLproject": mlproject(command)})


@pytest.mark.parametrize("command", ["python make.py", "python make_data.py", "./make.sh", "make=1 python x.py", "python train.py --cmd=dvc"])  # fmt: skip
def test_words_that_are_no_workflow_tools(command):
    assert "E02" not in codes({"MLproject": mlproject(command)})


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ('echo $A ${B:-1} ${#C} "$D"', ["A", "B", "C", "D"]),
        ("echo '$A' \\$B $(date) $1 $? $$", []),
        ("A=1; echo $A", []),
        ("for i in 1 2; do echo $i; done", []),
        ("read -r line; echo $line", []),
        ("echo # $A", []),
    ],
)
def test_variables_that_a_shell_takes_from_outside(command, names):
    assert commands.used(command) == names


def test_variables_that_every_step_has_need_no_declaration():
    command = "echo $MLFLOW_RUN_ID $HOME $PWD ${{SLURM_ID:-1}}"
    facts = collect({"MLproject": mlproject(command)})
    assert [hit.subject for hit in found("E03", facts)] == ["main.SLURM_ID"]


@pytest.mark.parametrize("path", ["/home/ada/x.csv", "/Users/ada/x", "C:\\\\data", "D:/data", "~/data", "/mnt/x", "$HOME/x", "/scratch/ada"])  # fmt: skip
def test_paths_of_one_machine(path):
    assert PATH.search(f"python train.py --data={path}")


@pytest.mark.parametrize("path", ["data/home/x", "/usr/bin/env", "/dev/null", "https://h/home/x", "./mnt/x", "/tmp/x", "s3://b/Users/x", "a~/x", "C:", "http://x"])  # fmt: skip
def test_paths_of_every_machine(path):
    assert not PATH.search(f"python train.py --data={path}")


def test_paths_inside_of_an_image_are_its_own():
    text = 'docker_env: {image: "x@sha256:' + SHA + '"}\n' + mlproject("python /home/app/train.py")
    assert "M01" not in codes({"MLproject": text})
    assert "M01" in codes({"MLproject": mlproject("python /home/app/train.py")})


@pytest.mark.parametrize(
    ("parameter", "hit"),
    [
        ("{type: uri, default: 'https://h/x.csv'}", True),
        ("{type: path, default: 'https://h/x.csv'}", False),
        ("{type: uri, default: 'https://h/" + "a" * 40 + "/x.csv'}", False),
        ("{type: uri, default: 'data/x.csv'}", False),
        ("uri", False),
    ],
)
def test_remote_data(parameter, hit):
    extra = f"    parameters: {{data: {parameter}}}\n"
    assert ("N04" in codes({"MLproject": mlproject("python x.py {data}", extra)})) is hit


def test_a_server_is_no_data():
    extra = "    parameters: {tracking_uri: {type: uri, default: 'https://h/'}}\n"
    assert "N04" not in codes({"MLproject": mlproject("python x.py {tracking_uri}", extra)})


@pytest.mark.parametrize(
    ("mount", "hit"),
    [
        ("/home/ada/data:/data", True),
        ("~/data:/data", True),
        ("data:/data", False),
        ("/etc/ssl/certs:/etc/ssl/certs", False),
    ],
)
def test_mounts_of_one_machine(mount, hit):
    extra = f"    mounts: ['{mount}']\n"
    assert ("M02" in codes({"MLproject": mlproject("python x.py", extra)})) is hit


@pytest.mark.parametrize(
    ("packages", "hit"),
    [
        (("numpy=1.26.4=py311h64a7726_0",), True),
        (("conda-forge::numpy=1.26.4=py311h64a7726_0",), True),
        (("numpy=1.26.4", "python>=3.8"), False),
    ],
)
def test_builds_in_a_conda_file(packages, hit):
    request = CondaEnvironment(file="conda.yaml", packages=packages)
    assert bool(found("M03", locked(request, kind="conda"))) is hit


def test_variables_of_an_environment_may_hold_a_secret():
    request = CondaEnvironment(file="conda.yaml", variables=(("API_KEY", "0123456789"),))
    assert [hit.subject for hit in found("S03", locked(request, kind="conda"))] == ["API_KEY"]
    text = "docker_env: {image: x, environment: [TOKEN, [API_KEY, '0123456789']]}\n" + mlproject()
    assert [hit.subject for hit in found("S03", collect({"MLproject": text}))] == ["API_KEY"]


# -- R and G


def test_environments_that_lie_about_are_counted():
    cache = {"unused": [["a" * 32, 40], ["b" * 32, 90]], "bytes": 2_500_000_000}
    (hit,) = found("G01", collect({}, cache=cache))
    assert hit.message == "2 environments were not used for up to 90 days, of 2.5 GB in all"


@pytest.mark.parametrize(
    ("command", "hit"),
    [
        ("python train.py", True),
        ("Rscript train.R", True),
        ("python train.py --seed 3", False),
        ("echo hello", False),
        ("./pythonic run", False),
    ],
)
def test_steps_that_may_need_a_seed(command, hit):
    assert ("R03" in codes({"MLproject": mlproject(command)})) is hit


@pytest.mark.parametrize(
    ("script", "hit"),
    [
        ("import random\nprint(random.random())\n", True),
        ("from sklearn.model_selection import train_test_split\n", True),
        ("import csv\nprint(sum([1, 2]))\n", False),
    ],
)
def test_a_script_that_draws_no_random_numbers_needs_no_seed(script, hit):
    files = {"MLproject": mlproject("python ./train.py --x 1"), "train.py": script}
    assert ("R03" in codes(files)) is hit


# -- what is said once


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("image: 'python:3.11'", {"K01"}),
        (f"image: 'python@sha256:{SHA}'", set()),
        ("dockerfile: Dockerfile", {"L01"}),
    ],
)
def test_an_image_without_a_lock_is_one_finding_or_none(image, expected):
    text = f"docker_env: {{{image}}}\n{mlproject()}"
    assert codes({"MLproject": text, "Dockerfile": "FROM x\n"}) & {"K01", "L01"} == expected


def test_images_are_locked_for_a_platform_too():
    image = Image(reference="python:3.11", id=f"sha256:{SHA}", manifest=f"sha256:{SHA}")
    lock = EnvironmentLock(kind="docker", platform="linux-aarch64", image=image)
    files = {
        "MLproject": f"docker_env: {{image: 'python:3.11'}}\n{mlproject()}",
        "lockfiles/docker-lock.json": dockerlock.encode((lock,), {}).decode(),
    }
    (hit,) = found("L03", collect(files))
    assert hit.subject == "linux-64"


def test_a_project_without_an_environment_is_told_that_it_has_none():
    (hit,) = found("P04", collect({"MLproject": mlproject()}))
    assert hit.message.startswith("the project has no environment, and names no Python")
    assert hit.level == "warning"


def test_a_lock_without_a_python_gives_no_environment_to_compare_with():
    steps = [{"step": "main", "last_good": "a", "environment": SHA}]
    files = {
        "MLproject": f"python_env: python_env.yaml\n{mlproject()}",
        "python_env.yaml": "python: '3.11'\ndependencies: [tinymath]\n",
    }
    path = "lockfiles/pylock.linux-64.toml"
    text = pylock.encode((LOCK,), {}).decode()
    assert "D08" in codes({**files, path: text}, steps=steps)
    foreign = text.partition("\n[tool.repro]")[0].replace('"repro"', '"another"')
    assert "D08" not in codes({**files, path: foreign}, steps=steps)


def test_what_the_project_builds_need_not_be_there():
    def facts(**more):
        image = Image(reference="Dockerfile", id=f"sha256:{SHA}", **more)
        lock = EnvironmentLock(kind="docker", platform="linux-64", image=image)
        mlproject_ = f"docker_env: {{dockerfile: Dockerfile}}\n{mlproject()}"
        files = {"lockfiles/docker-lock.json": dockerlock.encode((lock,), {}).decode()}
        images = [{"reference": "Dockerfile", "present": False}]
        return collect({"MLproject": mlproject_, "Dockerfile": "FROM x\n", **files}, images=images)

    built = facts(dockerfile="Dockerfile", context=SHA)
    assert [file.path for file in built.environments[0].locks] == ["lockfiles/docker-lock.json"]
    assert found("K04", built) == []
    assert "K05" in {code for one in verdict.judge(built).skipped for code in one.codes}


# -- every rule


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_of_a_project_makes_a_rule_fail(command, default):
    from repro.spec import EntryPoint, Parameter

    entry = EntryPoint(
        name="main",
        command=command,
        parameters=(Parameter(name=default or "p", default=default),),
        env={default: command},
    )
    request = PythonEnvironment(requirements=(command,), options=(default,), python=command)
    facts = locked(request, wheel("a", command, url=default))
    verdict.judge(replace(facts, project=Project(file="MLproject", entry_points=(entry,))))
    verdict.judge(locked(CondaEnvironment(file="c", text=command, packages=(default,), channels=(command,)), conda("a", default), kind="conda"))  # fmt: skip
