"""One step: run, recorded, reused, explained."""

from __future__ import annotations

import json
import os
import pathlib
import threading
import time

import pytest

from repro import foresight
from repro.errors import (
    EntryPointUnknown,
    GraphInvalid,
    ParameterInvalid,
    ProjectInvalid,
    SourceUnusable,
    Unsupported,
    UsageError,
)
from repro.plan import Request

STEP = (
    "entry_points:\n  main:\n    parameters:\n      a: {default: 1}\n    command: sh step.sh {a}\n"
)
SCRIPT = "echo out $1; echo err >&2; echo result $1 > result.txt; echo x >> COUNT_FILE\n"


@pytest.fixture
def counted(project, tmp_path):
    """A project that leaves a mark outside of its tree whenever it is really executed."""
    count = tmp_path / "count"
    folder = project(MLproject=STEP, **{"step.sh": SCRIPT.replace("COUNT_FILE", str(count))})
    return folder, lambda: len(count.read_text().split()) if count.exists() else 0


def test_the_second_run_is_a_hit_and_executes_nothing(counted, run):
    folder, count = counted
    first = run(folder)
    assert (first.get_status(), first.cached, count()) == ("FINISHED", False, 1)
    assert run.printed == "out 1\nerr\n"
    second = run(folder)
    assert (second.get_status(), second.cached, count()) == ("FINISHED", True, 1)
    assert second.record.origin_run == first.run_id
    assert second.run_id != first.run_id
    assert second.key == first.key
    assert second.outputs == first.outputs
    (reused,) = run.named("Reused")
    assert reused.record.origin_run == first.run_id


def test_outputs_are_written_into_the_project_and_restored(counted, run):
    folder, count = counted
    run(folder)
    assert (folder / "result.txt").read_text() == "result 1\n"
    (folder / "result.txt").unlink()
    assert run(folder).cached
    assert (folder / "result.txt").read_text() == "result 1\n"
    assert count() == 1


def test_an_output_that_somebody_edited_is_restored_and_the_edit_is_kept(counted, run):
    folder, count = counted
    run(folder)
    (folder / "result.txt").write_text("mine\n")
    again = run(folder)
    # an edited file is the user's: it is an input now, so the step runs with it in sight
    assert not again.cached
    assert "result.txt" in run.reason
    assert count() == 2


def test_a_declared_output_that_somebody_edited_is_restored(project, run):
    text = "entry_points: {main: {outputs: [o], command: echo right > o}}\n"
    folder = project(MLproject=text)
    run(folder)
    (folder / "o").write_text("tampered\n")
    assert run(folder).cached
    assert (folder / "o").read_text() == "right\n"
    (warned,) = run.named("Warned")
    kept = pathlib.Path(warned.text.split("`")[3])
    assert kept.read_text() == "tampered\n"


@pytest.mark.parametrize("stamp", [None, "kept"])
def test_tampering_with_an_output_of_the_same_size_is_noticed(project, run, stamp):
    folder = project(MLproject="entry_points: {main: {outputs: [o], command: echo right > o}}\n")
    run(folder)
    before = os.stat(folder / "o")
    (folder / "o").write_text("wrong\n")
    if stamp:
        os.utime(folder / "o", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(folder).cached
    assert (folder / "o").read_text() == "right\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "step.sh").write_text("echo changed\n"), "file step.sh"),
        (lambda f: (f / "new.txt").write_text("x"), "file new.txt added"),
        (lambda f: (f / "data.txt").unlink(), "file data.txt removed"),
        (lambda f: (f / "step.sh").chmod(0o755), "(executable)"),
        (
            lambda f: (f / "MLproject").write_text(STEP.replace("step.sh {a}", "step.sh x{a}")),
            "command",
        ),
        (lambda f: (f / "MLproject").write_text(STEP.replace("1", "2")), "param a 1 → 2"),
    ],
)
def test_a_change_is_a_miss_with_its_reason(counted, run, change, reason):
    folder, count = counted
    (folder / "data.txt").write_text("d")
    run(folder)
    change(folder)
    assert not run(folder).cached
    assert reason in run.reason
    assert count() <= 2


def test_the_first_run_says_so(counted, run):
    folder, _count = counted
    run(folder)
    assert run.reason == "first run of `main` in this project"


def test_going_back_to_an_earlier_state_is_a_hit(counted, run):
    folder, count = counted
    run(folder)
    run(folder, parameters={"a": 2})
    assert run(folder).cached
    assert run(folder, parameters={"a": "2"}).cached
    assert (folder / "result.txt").read_text() == "result 2\n"
    assert count() == 2


def test_our_own_earlier_outputs_are_replaced_without_a_word(counted, run):
    folder, _count = counted
    for value in (1, 2, 1):
        run(folder, parameters={"a": value})
        assert run.named("Warned") == []
        assert (folder / "result.txt").read_text() == f"result {value}\n"


def test_two_folders_with_the_same_content_share_results(project, run):
    one = project(name="one", MLproject="entry_points: {main: {command: echo hi > out}}\n")
    two = project(name="two", MLproject="entry_points: {main: {command: echo hi > out}}\n")
    run(one)
    assert run(two).cached
    assert (two / "out").read_text() == "hi\n"


def test_a_failed_run_is_recorded_and_never_reused(project, run, machine):
    folder = project(MLproject="entry_points: {main: {command: 'echo half > o; exit 7'}}\n")
    for _attempt in range(2):
        failed = run(folder)
        assert (failed.get_status(), failed.cached, failed.exit_code) == ("FAILED", False, 7)
        assert not (folder / "o").exists()
    records = machine.history.find()
    assert [r.exit_code for r in records] == [7, 7]
    assert "failed with exit code 7" in run.reason
    assert not list(machine.results.keys())


def test_declared_outputs_are_the_outputs(project, run):
    text = "entry_points: {main: {outputs: [a/*.txt], command: 'mkdir a; echo 1 > a/x.txt; echo 2 > b'}}\n"
    folder = project(MLproject=text)
    assert list(run(folder).outputs) == ["a/x.txt"]
    assert not (folder / "b").exists()
    assert "b" in run.named("Warned")[0].text


def test_a_declared_output_that_is_not_made_fails_the_run(project, run):
    folder = project(MLproject="entry_points: {main: {outputs: [model.pkl], command: 'true'}}\n")
    failed = run(folder)
    assert failed.get_status() == "FAILED"
    assert "model.pkl" in failed.record.error
    assert not run(folder).cached


def test_declared_inputs_are_all_that_a_step_sees(project, run):
    text = "entry_points: {main: {inputs: [a.txt, 'd/**'], command: 'find . -type f | sort > /dev/stdout'}}\n"
    folder = project(MLproject=text, **{"a.txt": "1", "b.txt": "2", "d/e/f.txt": "3"})
    run(folder)
    assert run.printed.split() == ["./a.txt", "./d/e/f.txt"]
    (folder / "b.txt").write_text("changed")
    assert run(folder).cached


def test_a_declared_input_that_is_not_there(project, run):
    folder = project(MLproject="entry_points: {main: {inputs: [gone.txt], command: 'true'}}\n")
    with pytest.raises(SourceUnusable, match="gone.txt"):
        run(folder)


def test_a_step_runs_in_a_clean_environment(project, environ, run):
    text = (
        "entry_points:\n  main:\n    env: {MODE: fast}\n    pass_env: [GIVEN, ABSENT]\n"
        "    secrets: [TOKEN]\n    command: env | sort\n"
    )
    environ |= {
        "GIVEN": "g",
        "TOKEN": "s3cr3t",
        "AWS_SECRET_ACCESS_KEY": "leak",
        "PYTHONPATH": "/leak",
        "LD_PRELOAD": "",
        "BASH_ENV": "/leak",
        "HTTPS_PROXY": "leak",
    }
    run(project(MLproject=text))
    seen = dict(line.split("=", 1) for line in run.printed.splitlines())
    assert (seen["MODE"], seen["GIVEN"], seen["TOKEN"]) == ("fast", "g", "***")
    assert (seen["TZ"], seen["LC_ALL"], seen["PYTHONHASHSEED"]) == ("UTC", "C.UTF-8", "0")
    assert seen["HOME"] != environ["HOME"]
    assert "leak" not in run.printed
    assert "ABSENT" not in seen


def test_passed_variables_are_in_the_key_and_secrets_are_not(project, environ, run):
    text = (
        "entry_points:\n  main:\n    pass_env: [GIVEN]\n    secrets: [TOKEN]\n    command: 'true'\n"
    )
    folder = project(MLproject=text)
    environ |= {"TOKEN": "one"}
    run(folder)
    environ |= {"TOKEN": "two"}
    assert run(folder).cached
    environ |= {"GIVEN": ""}
    assert not run(folder).cached
    environ |= {"GIVEN": "x"}
    assert not run(folder).cached
    assert "GIVEN" in run.reason
    del environ["TOKEN"]
    with pytest.raises(UsageError, match="TOKEN"):
        run(folder)


def test_secrets_are_nowhere(project, environ, run, tmp_path):
    text = (
        "entry_points:\n  main:\n    secrets: [TOKEN]\n    parameters: {p: {secret: true}}\n"
        "    command: 'echo $TOKEN {p}; printf s3c; sleep 0.1; printf r3t-param'\n"
    )
    environ |= {"TOKEN": "s3cr3t-variable"}
    done = run(project(MLproject=text), parameters={"p": "s3cr3t-param"})
    assert done.get_status() == "FINISHED"
    assert "s3cr3t" not in run.printed
    assert run.printed == "*** ***\n***"
    done._machine.history.close()
    for place in (tmp_path / "store", tmp_path / "data"):
        for path in place.rglob("*"):
            if path.is_file():
                assert b"s3cr3t" not in path.read_bytes(), path


def test_a_path_parameter_counts_by_its_content(project, run, tmp_path):
    text = "entry_points: {main: {parameters: {d: path}, command: 'cat {d} > out'}}\n"
    folder = project(MLproject=text)
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "b.csv").write_text("1")
    run(folder, parameters={"d": str(tmp_path / "a.csv")})
    assert run(folder, parameters={"d": str(tmp_path / "b.csv")}).cached
    assert run(folder, parameters={"d": "b.csv"}, caller=str(tmp_path)).cached
    (tmp_path / "b.csv").write_text("2")
    assert not run(folder, parameters={"d": str(tmp_path / "b.csv")}).cached
    assert (folder / "out").read_text() == "2"
    with pytest.raises(ParameterInvalid, match="no file or folder `gone`"):
        run(folder, parameters={"d": "gone"})


def test_a_host_file_that_changes_while_the_step_runs_is_not_published(project, run, tmp_path):
    data = tmp_path / "input"
    data.write_text("before")
    text = f"entry_points: {{main: {{parameters: {{d: path}}, command: 'cat {{d}}; echo x > {data}'}}}}\n"
    folder = project(MLproject=text)
    done = run(folder, parameters={"d": str(data)})
    assert done.get_status() == "FINISHED"
    assert any("changed while" in note for note in done.record.notes)
    data.write_text("before")
    assert not run(folder, parameters={"d": str(data)}).cached


def test_a_mount_counts_by_content_or_by_version(project, run, tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "big/f").write_text("1")
    text = f"entry_points: {{main: {{mounts: [{{source: {tmp_path}/big, target: data}}], command: cat data/f}}}}\n"
    folder = project(MLproject=text)
    run(folder)
    assert run.printed == "1"
    assert run(folder).cached
    (tmp_path / "big/f").write_text("2")
    assert not run(folder).cached
    (folder / "MLproject").write_text(text.replace("target: data", "target: data, version: 1"))
    run(folder)
    (tmp_path / "big/f").write_text("3")
    assert run(folder).cached


def test_what_a_command_printed_is_kept_in_order_with_its_streams(project, run, machine):
    text = "entry_points: {main: {command: 'echo a; sleep 0.1; echo b >&2; sleep 0.1; printf c'}}\n"
    done = run(project(MLproject=text))
    from repro.runlog import pieces, text_of

    data = machine.blobs.get(done.record.log)
    assert [(s, b) for _ms, s, b in pieces(data)] == [
        ("stdout", b"a\n"),
        ("stderr", b"b\n"),
        ("stdout", b"c"),
    ]
    assert text_of(data, "stderr") == b"b\n"


def test_what_a_run_took_is_recorded(project, run):
    text = "entry_points: {main: {command: \"python -c 'b = bytearray(80_000_000); sum(range(3_000_000))'\"}}\n"
    record = run(project(MLproject=text)).record
    assert record.peak_bytes > 80_000_000
    assert record.user_ns + record.system_ns > 20_000_000
    assert record.wall_ns > 20_000_000
    assert record.exit_code == 0


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "m.json",
            '{"a": {"rmse": 0.5}, "n": 3, "s": "x", "l": [1]}',
            {"a.rmse": 0.5, "n": 3.0, "l.0": 1.0},
        ),
        ("m.yaml", "acc: 0.9\n", {"acc": 0.9}),
        ("m.csv", "step,loss\n0,2.5\n1,1.5\n", {"loss": 1.5}),
    ],
)
def test_metrics_are_read_from_output_files(project, run, file, text, expected):
    folder = project(
        MLproject=f"entry_points: {{main: {{metrics: [{file}], command: cp source {file}}}}}\n",
        source=text,
    )
    assert run(folder).metrics == expected
    assert run(folder).metrics == expected


def test_a_step_that_is_not_to_be_cached_runs_every_time(project, run):
    folder = project(MLproject="entry_points: {main: {cache: false, command: 'true'}}\n")
    assert not run(folder).cached
    assert not run(folder).cached
    assert "cache: false" in run.reason


def test_no_cache_neither_reads_nor_writes_and_refresh_only_writes(counted, run):
    folder, count = counted
    run(folder, use_results=False, keep_result=False)
    assert not run(folder).cached
    assert run(folder).cached
    assert not run(folder, use_results=False).cached
    assert count() == 3


def test_a_timeout_ends_the_run(project, run):
    folder = project(MLproject="entry_points: {main: {timeout: 300ms, command: sleep 60}}\n")
    started = time.monotonic()
    done = run(folder)
    assert (done.get_status(), done.record.cause) == ("FAILED", "timeout")
    assert time.monotonic() - started < 20


def test_retries(project, run, tmp_path):
    flag = tmp_path / "flag"
    text = f"entry_points: {{main: {{retries: 2, command: 'test -e {flag} || (touch {flag}; exit 3)'}}}}\n"
    assert run(project(MLproject=text)).get_status() == "FINISHED"
    assert any("trying again" in e.text for e in run.named("Warned"))


def test_strict_shell(project, run):
    lax = project(name="lax", MLproject="entry_points: {main: {command: 'false | true'}}\n")
    assert run(lax).get_status() == "FINISHED"
    strict = project(
        name="strict", MLproject="entry_points: {main: {shell: strict, command: 'false | true'}}\n"
    )
    assert run(strict).get_status() == "FAILED"


def test_scripts_are_entry_points(project, run):
    folder = project({"a b.py": "import sys; print(sys.argv[1:])", "s.sh": "echo $1 $2"})
    run(folder, "a b.py", parameters={"x": "1 2"})
    assert run.printed == "['--x', '1 2']\n"
    run(folder, "s.sh", parameters={"y": 3})
    assert run.printed == "--y 3\n"


def test_an_unknown_entry_point_lists_what_there_is(project, run):
    folder = project(MLproject="entry_points: {train: {command: x}, Main: {command: y}}\n")
    with pytest.raises(EntryPointUnknown) as caught:
        run(folder)
    assert "`Main`" in caught.value.hints[0]
    assert "train()" in caught.value.hints[1]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("renv_env: r\nentry_points: {main: {command: x}}\n", Unsupported),
        ("entry_points: {main: {needs: [main], command: x}}\n", GraphInvalid),
        ("entry_points: {main: {needs: [b], command: x}, a: {command: y}}\n", ProjectInvalid),
        ("entry_points: {main: {sandbox: iron, command: x}}\n", UsageError),
        ("databricks_spark_job: {python_file: x.py}\n", Unsupported),
        ("entry_points: {main: {command: 'x {y}'}}\n", ProjectInvalid),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_recorded(
    project, run, machine, text, error
):
    with pytest.raises(error) as caught:
        run(project(MLproject=text), env_manager="")
    assert caught.value.exit == 2
    assert machine.history.find() == []


def test_a_step_does_not_see_its_own_outputs(project, run):
    folder = project(
        MLproject="entry_points: {main: {command: 'cat old 2>/dev/null; echo x > old'}}\n"
    )
    run(folder)
    assert run(folder).cached
    run(folder, use_results=False)
    assert run.printed == ""


def test_another_step_sees_them(project, run):
    text = "entry_points: {main: {command: echo 1 > data}, use: {command: cat data}}\n"
    folder = project(MLproject=text)
    run(folder)
    run(folder, "use")
    assert run.printed == "1\n"
    assert run(folder).cached
    assert run(folder, "use").cached


def test_a_step_that_changes_its_input(project, run):
    folder = project(
        MLproject="entry_points: {main: {command: 'echo more >> data'}}\n", data="some\n"
    )
    assert list(run(folder).outputs) == ["data"]
    assert (folder / "data").read_text() == "some\nmore\n"
    # what it reads is what it wrote: by the rule that a step never sees its own results,
    # and since nothing is left of what it began with, this is another step now
    assert not run(folder).cached


def test_an_output_that_somebody_writes_meanwhile_is_left_alone(project, run, tmp_path):
    folder = project(name="p", MLproject="x")
    text = f"entry_points: {{main: {{outputs: [o], command: 'echo theirs > {folder}/o; echo ours > o'}}}}\n"
    (folder / "MLproject").write_text(text)
    done = run(folder)
    assert (folder / "o").read_text() == "theirs\n"
    assert any("somebody else" in e.text for e in run.named("Warned"))
    assert done.outputs["o"].size == 5


@pytest.mark.parametrize(
    "command",
    ["ln -s /etc/passwd leak", "ln -s ../../x leak", "mkfifo pipe", "mknod dev c 1 3"],
)
def test_outputs_that_no_tree_can_hold_fail_the_run(project, run, command):
    if command.startswith("mknod") and os.getuid():
        pytest.skip("only root can make a device: run as root")
    failed = run(project(MLproject=f"entry_points: {{main: {{command: {command}}}}}\n"))
    assert failed.get_status() == "FAILED"
    assert failed.record.error


def test_odd_outputs_come_back_as_they_were(project, run):
    text = (
        "entry_points:\n  main:\n    command: |\n"
        "      mkdir -p d/empty; ln -s d link; echo 1 > 'd/a b'; echo 2 > d/exe; chmod +x d/exe\n"
        "      printf x > \"$(printf 'n\\nl')\"; printf x > \"$(printf 'b\\377')\"; : > zero\n"
    )
    folder = project(MLproject=text)
    assert run(folder).get_status() == "FINISHED"

    def look():
        return sorted(
            (
                os.fsencode(os.path.relpath(os.path.join(b, n), folder)),
                os.path.islink(os.path.join(b, n)),
            )
            for b, ds, fs in os.walk(folder)
            for n in (*ds, *fs)
        )

    before = look()
    for path, _link in before:
        place = os.path.join(os.fsencode(folder), path)
        if path != b"MLproject" and not os.path.isdir(place):
            os.unlink(place)
    assert run(folder).cached
    assert look() == before
    assert os.access(folder / "d/exe", os.X_OK)


def test_a_remote_style_run_keeps_outputs_until_they_are_asked_for(project, run, tmp_path):
    folder = project(MLproject="entry_points: {main: {command: echo 1 > o}}\n")
    run(folder, output=str(tmp_path / "out"))
    assert not (folder / "o").exists()
    assert (tmp_path / "out/o").read_text() == "1\n"


def test_another_place_for_the_outputs_gets_all_of_them(project, run, tmp_path):
    folder = project(MLproject="entry_points: {main: {command: echo 1 > o}}\n")
    run(folder)
    assert run(folder, output=str(tmp_path / "out")).cached
    assert (tmp_path / "out/o").read_text() == "1\n"


def test_async_runs_go_on_side_by_side(project, run):
    text = "entry_points: {main: {parameters: {a: str}, command: 'sleep 0.5; echo {a} > o'}}\n"
    folders = [project(name=f"p{i}", MLproject=text) for i in range(4)]
    started = time.monotonic()
    runs = [run(f, parameters={"a": i}, synchronous=False) for i, f in enumerate(folders)]
    assert time.monotonic() - started < 2
    assert all(r.get_status() == "RUNNING" for r in runs)
    assert all(r.wait() for r in runs)
    assert [r.get_status() for r in runs] == ["FINISHED"] * 4
    assert [(f / "o").read_text() for f in folders] == ["0\n", "1\n", "2\n", "3\n"]


def test_cancel_ends_an_async_run(project, run, machine):
    folder = project(MLproject="entry_points: {main: {command: 'trap \"\" TERM; sleep 60'}}\n")
    done = run(folder, synchronous=False)
    while not run.named("Started"):
        time.sleep(0.01)
    threads = [threading.Thread(target=done.cancel) for _ in range(3)]
    waiter = threading.Thread(target=done.wait)
    for thread in (waiter, *threads):
        thread.start()
    for thread in (waiter, *threads):
        thread.join(30)
    assert done.get_status() == "KILLED"
    assert not done.wait()
    done.cancel()
    assert machine.history.get(done.run_id).status == "KILLED"


def test_a_run_has_a_card_for_notebooks(project, run):
    text = "entry_points: {main: {parameters: {a: {default: <b>}}, command: 'echo {a} > o'}}\n"
    card = run(project(MLproject=text))._repr_html_()
    assert "&lt;b&gt;" in card
    assert "FINISHED" in card
    assert "<b>></b>" not in card


def test_foreseeing_changes_nothing(counted, run, machine):
    folder, count = counted
    request = Request(uri=str(folder), env_manager="local", caller="/")
    told = foresight.foresee(request, machine)
    assert (told.hit, count()) == (False, 0)
    first = run(folder)
    told = foresight.foresee(request, machine)
    assert (told.hit, told.reused_run) == (True, first.run_id)
    (folder / "step.sh").write_text("true\n")
    told = foresight.foresee(request, machine)
    assert told.reasons[0].name == "step.sh"
    assert count() == 1


def test_states_of_all_steps(project, run, machine):
    text = "entry_points: {a: {parameters: {x: str}, command: 'echo {x}'}, b: {command: 'true'}}\n"
    folder = project(MLproject=text)
    run(folder, "a", parameters={"x": "1"})
    request = Request(uri=str(folder), env_manager="local", caller="/")
    found = {s.entry_point: s.state for s in foresight.states(request, machine)}
    assert found == {"a": "fresh", "b": "stale"}


def test_a_record_is_json_that_fits_its_schema(counted, run):
    import jsonschema

    from repro import schemas
    from repro.cli import documents

    folder, _count = counted
    for done in (run(folder), run(folder)):
        document = documents.run(done.record)
        json.dumps(document)
        jsonschema.validate(document, schemas.load("run"))


def test_an_environment_file_behind_a_link_is_read_again(project, run, machine):
    folder = project(
        {
            "MLproject": "python_env: env.yaml\nentry_points: {main: {command: 'true'}}\n",
            "envs/a.yaml": "python: '3.1'\n",
        }
    )
    (folder / "env.yaml").symlink_to("envs/a.yaml")

    def python():
        tree = machine.tree(Request(uri=str(folder), caller="/"), lambda _text: None)
        found = tree.project(lambda t: machine.load(t, lambda _event: None)).environment.python
        tree.remember()
        return found

    assert python() == "3.1"
    (folder / "envs/a.yaml").write_text("python: '3.2'\n")
    assert python() == "3.2"
    (folder / "env.yaml").unlink()
    (folder / "env.yaml").write_text("python: '3.3'\n")
    assert python() == "3.3"


def test_a_project_is_decoded_again_only_when_its_own_files_change(project, machine):
    folder = project(MLproject="entry_points: {main: {command: 'true'}}\n")
    decoded = []

    def look():
        tree = machine.tree(Request(uri=str(folder), caller="/"), lambda _text: None)
        tree.project(lambda t: decoded.append(1) or machine.load(t, lambda _event: None))
        tree.remember()

    look()
    (folder / "code.py").write_text("x")
    look()
    assert len(decoded) == 1
    for change in (
        lambda: (folder / "python_env.yaml").write_text("python: '3.1'\n"),
        lambda: (folder / "MLproject").write_text("entry_points: {main: {command: x}}\n"),
        lambda: (folder / "mlproject").write_text("entry_points: {main: {command: y}}\n"),
        (folder / "python_env.yaml").unlink,
    ):
        before = len(decoded)
        change()
        look()
        assert len(decoded) == before + 1


def test_an_ignored_file_is_an_input_if_it_is_named(project, run):
    import subprocess

    text = "entry_points: {main: {inputs: ['**', data/raw, one.csv], command: cat data/raw/x data/raw/y one.csv}}\n"
    folder = project(
        {
            "MLproject": text,
            ".gitignore": "data/raw/x\n*.csv\n",
            "data/raw/x": "1",
            "data/raw/y": "2",
            "one.csv": "3",
        }
    )
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    run(folder)
    assert run.printed == "123"
    assert run(folder).cached
    (folder / "data/raw/x").write_text("4")
    assert not run(folder).cached
    assert "data/raw/x" in run.reason
    (folder / "data/raw/new").write_text("5")
    assert not run(folder).cached
    (folder / "other.csv").write_text("ignored and not named")
    assert run(folder).cached


def test_a_network_that_is_not_blocked_is_said(project, run):
    folder = project(MLproject="entry_points: {main: {network: false, command: 'true'}}\n")
    assert any("not blocked" in note for note in run(folder).record.notes)
