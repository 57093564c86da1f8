"""Which steps a run consists of, and in which order they may start."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro import graph, schedule
from repro.errors import EntryPointUnknown, GraphInvalid, ParameterInvalid
from repro.spec import EntryPoint, Need, Parameter, Project, Resources
from repro.system import capacity as machine


def entry(name, *, inputs=None, outputs=None, needs=(), parameters=(), **more):
    return EntryPoint(
        name=name,
        command="true",
        inputs=inputs,
        outputs=outputs,
        needs=tuple(Need(step=n) if isinstance(n, str) else n for n in needs),
        parameters=tuple(parameters),
        **more,
    )


def of(*entries, target="main", **parameters):
    return graph.of(Project(entry_points=entries), target, parameters, "bash")


def order(found):
    return [node.id for node in found.nodes]


# --- edges ---------------------------------------------------------------------------------


def test_a_step_alone_is_a_graph_of_one():
    assert order(of(entry("main"))) == ["main"]
    assert order(of(entry("other"), target="a script.py")) == ["a script.py"]


def test_needs_come_first_in_the_order_in_which_they_are_named():
    found = of(entry("main", needs=["b", "a"]), entry("a", needs=["c"]), entry("b"), entry("c"))
    assert order(found) == ["b", "c", "a", "main"]
    assert found.target.needs == ("b", "a")


@pytest.mark.parametrize(
    ("wanted", "made", "is_edge"),
    [
        ("data/x.csv", "data/x.csv", True),
        ("./data/x.csv", "data/x.csv", True),
        ("data", "data/x.csv", True),
        ("data/x.csv", "data/", True),
        ("data/deep/x.csv", "data", True),
        ("data/*.csv", "data/x.csv", True),
        ("data/x.csv", "data/*.csv", True),
        ("data/**", "data/deep/x.csv", True),
        ("data/*.csv", "data/*.csv", True),
        ("data/a*.csv", "data/ab*.csv", True),
        ("data/*.csv", "data/*.txt", False),
        ("data/x.csv", "data/y.csv", False),
        ("data/x.csv", "data/x.csv.gz", False),
        ("data", "database/x", False),
        ("data/*.csv", "data/deep/x.csv", False),
        ("a/*", "b/*", False),
    ],
)
def test_an_input_that_another_step_declares_as_output_is_an_edge(wanted, made, is_edge):
    found = of(entry("main", inputs=(wanted,)), entry("maker", outputs=(made,)))
    assert order(found) == (["maker", "main"] if is_edge else ["main"])


def test_who_makes_an_input_comes_in_the_order_of_the_file():
    makers = [entry(n, outputs=(f"{n}/*" if n == "b" else f"{n}/x",)) for n in "cba"]
    assert order(of(entry("main", inputs=("*/x",)), *makers)) == ["c", "b", "a", "main"]


def test_a_glob_looks_only_where_it_can_match():
    names = [f"out{n}/x" for n in range(3000)]
    makers = [entry(f"s{n}", outputs=(name,)) for n, name in enumerate(names)]
    users = [entry(f"u{n}", inputs=(f"out{n}/*",)) for n in range(3000)]
    found = of(entry("main", needs=[user.name for user in users]), *makers, *users)
    assert len(found.nodes) == 6001
    assert all(node.needs == (f"s{node.id[1:]}",) for node in found.nodes if node.id[0] == "u")


def test_inputs_that_no_step_makes_are_told():
    makers = [entry("a", outputs=("x",)), entry("b", outputs=("y/*.csv",))]
    wanted = ("x", "y/1.csv", "z", "y", "x/deep", "*.txt")
    assert list(graph.unmade(makers, wanted)) == ["z", "y", "*.txt"]


def test_undeclared_inputs_imply_no_edge():
    assert order(of(entry("main"), entry("maker", outputs=("x",)))) == ["main"]


def test_a_step_does_not_need_itself_for_what_it_writes_again():
    assert order(of(entry("main", inputs=("state",), outputs=("state",)))) == ["main"]


def test_a_declared_need_decides_over_the_implied_one():
    lr = Parameter(name="lr")
    found = of(
        entry(
            "main",
            inputs=("model",),
            needs=[Need(step="train", parameters={"lr": "{rate}"})],
            parameters=[Parameter(name="rate", default="0.1")],
        ),
        entry("train", outputs=("model",), parameters=[lr]),
        rate="0.5",
    )
    assert order(found) == ["train", "main"]
    assert found.nodes[0].given == {"lr": "0.5"}


def test_one_step_with_two_sets_of_parameters_is_two_nodes():
    p = Parameter(name="n", default="1")
    found = of(
        entry(
            "main",
            needs=[Need(step="a", parameters={"n": "1"}), Need(step="a", parameters={"n": "2"})],
        ),
        entry("a", parameters=[p]),
    )
    assert order(found) == ["a(n=1)", "a(n=2)", "main"]


def test_what_two_steps_need_is_one_node():
    found = of(
        entry("main", needs=["a", "b"]),
        entry("a", needs=["c"]),
        entry("b", needs=["c"]),
        entry("c"),
    )
    assert order(found) == ["c", "a", "b", "main"]


def test_a_chain_of_ten_thousand_steps_is_no_recursion():
    steps = [
        entry(f"s{i}", inputs=(f"f{i - 1}",) if i else (), outputs=(f"f{i}",))
        for i in range(10_000)
    ]
    found = of(*steps, target="s9999")
    assert order(found) == [f"s{i}" for i in range(10_000)]


# --- refusals ------------------------------------------------------------------------------


def test_a_circle_is_shown_as_the_path_that_it_is():
    with pytest.raises(GraphInvalid, match="`a` → `b` → `c` → `a`"):
        of(
            entry("main", needs=["a"]),
            entry("a", needs=["b"]),
            entry("b", needs=["c"]),
            entry("c", needs=["a"]),
        )
    with pytest.raises(GraphInvalid, match="`a` → `b` → `a`"):
        of(
            entry("a", inputs=("y",), outputs=("x",)),
            entry("b", inputs=("x",), outputs=("y",)),
            target="a",
        )
    with pytest.raises(GraphInvalid, match="`main` → `main`"):
        of(entry("main", needs=["main"]))


def test_two_steps_of_one_run_do_not_declare_one_output():
    with pytest.raises(GraphInvalid, match="`a` and `b` both declare the output `model`"):
        of(
            entry("main", needs=["a", "b"]),
            entry("a", outputs=("model",)),
            entry("b", outputs=("./model",)),
        )


def test_alternatives_that_are_not_of_the_same_run_may_declare_one_output():
    assert order(
        of(entry("main", needs=["a"]), entry("a", outputs=("m",)), entry("b", outputs=("m",)))
    ) == [
        "a",
        "main",
    ]


def test_a_need_that_is_not_there_and_one_without_its_parameter_are_named():
    with pytest.raises(GraphInvalid, match="needs `nothing`, which is not there"):
        of(entry("main", needs=["nothing"]))
    with pytest.raises(GraphInvalid, match="parameter `lr` has no value") as caught:
        of(entry("main", needs=["a"]), entry("a", parameters=[Parameter(name="lr")]))
    assert "needs: [{step: a, parameters: {lr: ...}}]" in caught.value.hints[0]
    with pytest.raises(EntryPointUnknown):
        of(entry("main"), target="other")
    with pytest.raises(ParameterInvalid):
        of(entry("main", inputs=("x",), parameters=[Parameter(name="p")]))


# --- the schedule --------------------------------------------------------------------------


@st.composite
def graphs(draw):
    size = draw(st.integers(1, 12))
    needs = [
        tuple(sorted(draw(st.sets(st.integers(0, i - 1), max_size=3)))) if i else ()
        for i in range(size)
    ]
    return graph.Graph(
        nodes=tuple(
            graph.Node(
                id=str(i),
                entry=entry(str(i), resources=Resources(cpus=draw(st.integers(0, 3)))),
                given={},
                needs=tuple(map(str, needs[i])),
            )
            for i in range(size)
        )
    )


def play(found, capacity, fails, *, keep_going, choose):
    """Play a run to its end; give what was started, in order, with what was done at that time."""
    state = schedule.Schedule(found, capacity, keep_going=keep_going)
    started, done = [], set()
    while not state.is_over:
        while (node := state.next()) is not None:
            started.append((node.id, frozenset(done)))
            assert len(state.running) <= capacity.jobs
            used = sum(n.entry.resources.cpus for n in state.running.values())
            assert not capacity.cpus or used <= capacity.cpus or len(state.running) == 1
        name = choose(sorted(state.running))
        state.end(name, good=name not in fails)
        if name not in fails:
            done.add(name)
    return state, started, done


@settings(max_examples=300)
@given(graphs(), st.integers(1, 4), st.integers(0, 4), st.data())
def test_everything_runs_once_after_what_it_needs_and_never_beyond_the_capacity(
    found, jobs, cpus, data
):
    capacity = schedule.Capacity(jobs=jobs, cpus=cpus)
    choose = lambda names: data.draw(st.sampled_from(names))  # noqa: E731
    state, started, done = play(found, capacity, set(), keep_going=False, choose=choose)
    assert sorted(n for n, _ in started) == sorted(order(found))
    for name, before in started:
        assert before.issuperset(found.node(name).needs)
    assert not list(state.skipped())
    assert len(done) == len(found.nodes)


@settings(max_examples=300)
@given(graphs(), st.integers(1, 4), st.data())
def test_with_keep_going_a_failure_stops_exactly_what_needs_it(found, jobs, data):
    fails = data.draw(st.sets(st.sampled_from(order(found)), max_size=3))
    choose = lambda names: data.draw(st.sampled_from(names))  # noqa: E731
    state, started, _done = play(
        found, schedule.Capacity(jobs=jobs), fails, keep_going=True, choose=choose
    )
    reached = {n for n, _ in started}
    failed = reached & fails
    assert reached == set(order(found)) - (found.after(failed) - failed)
    assert {n.id for n in state.skipped()} == set(order(found)) - reached


@settings(max_examples=200)
@given(graphs(), st.data())
def test_without_it_nothing_starts_after_a_failure(found, data):
    fails = {data.draw(st.sampled_from(order(found)))}
    _state, started, done = play(
        found, schedule.Capacity(jobs=1), fails, keep_going=False, choose=lambda names: names[0]
    )
    names = [n for n, _ in started]
    assert names[-1] in fails or not fails & set(names)
    assert len(done) == len(names) - len(fails & set(names))


def test_the_order_is_that_of_the_graph_and_the_same_every_time():
    found = of(*(entry(n) for n in "abc"), entry("main", needs=["a", "b", "c"]))
    capacity = schedule.Capacity(jobs=2)
    runs = [
        play(found, capacity, set(), keep_going=False, choose=lambda n: n[0])[1] for _ in range(3)
    ]
    assert [n for n, _ in runs[0]] == ["a", "b", "c", "main"]
    assert all(one == other for one, other in itertools.pairwise(runs))


def test_steps_that_ask_for_less_pass_those_that_wait_for_room():
    asked = {"a": 2, "b": 3, "c": 1, "d": 1}
    steps = [entry(n, resources=Resources(cpus=cpus)) for n, cpus in asked.items()]
    state = schedule.Schedule(
        of(*steps, entry("main", needs=list(asked))), schedule.Capacity(jobs=4, cpus=3)
    )
    assert [state.next().id, state.next().id, state.next()] == ["a", "c", None]
    state.end("a", good=True)
    assert [state.next().id, state.next()] == ["d", None]


def test_what_runs_elsewhere_takes_nothing_of_this_machine():
    steps = [entry(n, resources=Resources(gpus=1)) for n in "abc"]
    found = of(*steps, entry("main", needs=["a", "b", "c"]))
    capacity = schedule.Capacity(jobs=4, gpus=1, elsewhere=frozenset("bc"))
    state = schedule.Schedule(found, capacity)
    assert [state.next().id for _ in range(3)] == ["a", "b", "c"]
    state = schedule.Schedule(found, schedule.Capacity(jobs=4, gpus=1, elsewhere=frozenset("b")))
    assert [state.next().id for _ in range(2)] == ["a", "b"]
    assert state.next() is None


def test_what_this_machine_has(tmp_path):
    assert machine.accelerators({"CUDA_VISIBLE_DEVICES": "0,2"}) == 2
    assert machine.accelerators({"CUDA_VISIBLE_DEVICES": "-1"}) == 0
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert machine.accelerators({}, str(tmp_path)) == 2
    (tmp_path / "memory.max").write_text("123\n")
    assert machine.memory(str(tmp_path)) == 123
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory(str(tmp_path)) > 1 << 20
    assert machine.processors() >= 1


def test_a_step_that_asks_for_more_than_there_is_runs_alone():
    big = entry("big", resources=Resources(memory=10**12))
    found = of(big, entry("small"), entry("main", needs=["big", "small"]))
    state = schedule.Schedule(found, schedule.Capacity(jobs=4, memory=10**9))
    assert state.next().id == "big"
    assert state.next() is None
    state.end("big", good=True)
    assert state.next().id == "small"
