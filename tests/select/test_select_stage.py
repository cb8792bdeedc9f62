"""The stage `select`: every trace ends as one example or one dropped row with its reason."""

import dataclasses
import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.models.checkpoint import load_tokenizer, resolve
from cuvee.models.tokens import encode_example
from cuvee.recipe import Domain, parse_recipe
from cuvee.records import (
    Dropped,
    Example,
    Problem,
    Trace,
    Verdict,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, execute, is_done, read_manifest
from cuvee.select.choose import Candidate, choose
from cuvee.select.funnel import funnel_file, read_funnel
from cuvee.select.objection import REASONS
from cuvee.select.sift import Asked, Student, judged, sift
from cuvee.select.stage import group_problems, leftovers, tasks, votes_file

from .conftest import a_problem, a_trace, a_verdict

ASKED = {
    name: Asked("test", "Which sum do twenty and two make when they are added?", f"Please: {name}?")
    for name in "pqr"
}
STUDENT = Student(
    ("<|end|>",), lambda examples: [len(reasoning.split()) for _, reasoning, _ in examples]
)


def a_domain(**select: Any) -> Domain:
    source = {"source": "generator:arithmetic", "count": 1}
    return Domain.model_validate({"problems": [source], "verifier": "math", "select": select})


def sifted(
    traces: list[Trace], verdicts: list[Verdict], domain: Domain
) -> tuple[list[Candidate], list[Dropped]]:
    found = list(
        sift(traces, judged(verdicts), ASKED, domain=domain, student=STUDENT, tick=lambda _: None)
    )
    return (
        [row for row in found if isinstance(row, Candidate)],
        [row for row in found if isinstance(row, Dropped)],
    )


FAULTS: dict[str, dict[str, Any]] = {
    "request_failed": {
        "finish_reason": "error",
        "reasoning": "",
        "answer": "",
        "error": "HTTP 500",
    },
    "truncated": {"finish_reason": "length"},
    "unfinished": {"finish_reason": "content_filter"},
    "no_reasoning": {"reasoning": ""},
    "empty_answer": {"answer": ""},
    "think_tags": {"answer": "<think>22"},
    "control_token": {"answer": "22<|end|>"},
    "language": {"reasoning": "我们先仔细读一遍题目" * 2},
    "repetition": {"reasoning": "Let me look at this step once more before I go on. " * 15},
    "loop": {"reasoning": "Twenty and two make this: " + "22, " * 40},
    "copied": {"reasoning": "Which sum do twenty and two make when they are added? So 22."},
    "gives_up": {"reasoning": "Twenty and two are too many for me. My best guess is 22."},
    "answers_early": {"reasoning": "\\boxed{22}, as twenty and two make twenty-two."},
    "too_short": {"reasoning": "Twenty-two."},
    "too_long": {"reasoning": " ".join(f"step{number}" for number in range(60))},
}


def test_each_fault_is_dropped_under_its_own_name() -> None:
    # What repeats that much ends in a loop, which no threshold lets pass.
    domain = a_domain(language="en", tokens=[2, 50], max_repetition=0.95)
    traces = [a_trace(id=name, **changes) for name, changes in FAULTS.items()]
    wrong = a_trace(id="verdict_wrong")
    candidates, dropped = sifted(
        [*traces, wrong],
        [*(a_verdict(trace) for trace in traces), a_verdict(wrong, "wrong")],
        domain,
    )
    assert candidates == []
    assert {row.id: row.reason for row in dropped} == {
        **{name: name for name in FAULTS},
        "repetition": "loop",
        "verdict_wrong": "verdict_wrong",
    }
    assert {(row.kind, row.model, row.domain) for row in dropped} == {("trace", "alice", "math")}
    again = a_trace(id="again", **FAULTS["repetition"])
    assert sifted([again], [a_verdict(again)], a_domain())[1][0].reason == "repetition"


@pytest.mark.parametrize(
    ("fault", "keys"),
    [
        ("language", {"language": "any", "tokens": [1, 50]}),
        ("copied", {"max_copied": 1}),
        ("gives_up", {"allow_giving_up": True}),
        ("answers_early", {"answer_after": 0}),
        ("too_short", {"tokens": [1, 8]}),
        ("too_long", {"tokens": [1, 60]}),
    ],
)
def test_each_threshold_of_the_recipe_lets_its_fault_pass(fault: str, keys: dict[str, Any]) -> None:
    trace = a_trace(**FAULTS[fault])
    strict = {"language": "en", "tokens": [2, 50]}
    assert sifted([trace], [a_verdict(trace)], a_domain(**strict))[1][0].reason == fault
    assert sifted([trace], [a_verdict(trace)], a_domain(**(strict | keys)))[1] == []


def test_a_truncated_trace_is_dropped_as_truncated_whatever_the_verdict() -> None:
    trace = a_trace(finish_reason="length")
    for verdict in ("correct", "no_answer"):
        _, dropped = sifted([trace], [a_verdict(trace, verdict)], a_domain())
        assert [row.reason for row in dropped] == ["truncated"]


def test_problems_outside_the_pass_rates_lose_their_right_traces_too() -> None:
    names: dict[str, list[Any]] = {
        "p": ["correct"] * 4,
        "q": ["correct", "wrong", "correct", "no_answer"],
        "r": ["correct", "wrong", "wrong", "wrong"],
    }
    traces, verdicts = [], []
    for problem, verdicts_of in names.items():
        for number, name in enumerate(verdicts_of):
            trace = a_trace(id=f"{problem}{number}", problem_id=problem)
            traces.append(trace)
            verdicts.append(a_verdict(trace, name))
    candidates, dropped = sifted(traces, verdicts, a_domain(pass_rate=[0.5, 0.9]))
    assert {candidate.problem_id for candidate in candidates} == {"q"}
    reasons = {row.id: row.reason for row in dropped}
    assert (reasons["p0"], reasons["r0"]) == ("pass_rate_high", "pass_rate_low")


TRACES = st.lists(
    st.builds(
        a_trace,
        id=st.integers(0, 10**6).map(str),
        problem_id=st.sampled_from("pqr"),
        model=st.sampled_from(["alice", "bob"]),
        reasoning=st.text(max_size=80),
        answer=st.text(max_size=20),
        finish_reason=st.sampled_from(["stop", "stop", "length", "error", "odd"]),
    ),
    unique_by=lambda trace: trace.id,
    max_size=12,
)


@given(TRACES, st.integers(1, 2), st.none() | st.integers(1, 4), st.data())
def test_every_trace_ends_as_one_example_or_one_dropped_row(
    traces: list[Trace], per_problem: int, target: int | None, data: st.DataObject
) -> None:
    named = st.sampled_from(["correct", "correct", "wrong", "no_answer", "not_checked"])
    verdicts = [a_verdict(trace, data.draw(named)) for trace in traces]
    domain = a_domain(tokens=[0, 10], per_problem=per_problem, target=target)
    candidates, unfit = sifted(traces, verdicts, domain)
    groups = group_problems(ASKED, judged(verdicts).tallies, domain.select)
    choice = choose(candidates, select=domain.select, groups=groups, seed=3)
    left = leftovers(choice, "math")
    ended = [chosen.id for chosen in choice.chosen] + [row.id for row in unfit + left]
    assert sorted(ended) == sorted(trace.id for trace in traces)
    assert {row.reason for row in unfit + left} <= set(REASONS)


@pytest.mark.parametrize("fault", ["missing", "twice", "stranger", "trace twice"])
def test_traces_and_verdicts_that_do_not_pair_are_refused(fault: str) -> None:
    traces = [a_trace(id="a"), a_trace(id="b")]
    verdicts = {
        "missing": [a_verdict(traces[0])],
        "twice": [a_verdict(trace) for trace in [*traces, traces[0]]],
        "stranger": [a_verdict(trace) for trace in [*traces, a_trace(id="c")]],
        "trace twice": [a_verdict(trace) for trace in traces],
    }[fault]
    if fault == "trace twice":
        traces.append(traces[0])
    with pytest.raises(DataError, match="do not pair one to one"):
        sifted(traces, verdicts, a_domain())


def test_a_trace_of_no_problem_is_refused() -> None:
    trace = a_trace(problem_id="elsewhere")
    with pytest.raises(DataError, match="no problem elsewhere in the domain"):
        sifted([trace], [a_verdict(trace)], a_domain())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"policy": "closest"}, "length"),
        ({"length": 9}, "length"),
        ({"pass_rate": [0.9, 0.1]}, "pass_rate"),
        ({"balance": ["source"]}, "set target too"),
        ({"balance": ["source", "source"], "target": 5}, "once"),
        ({"agreement": 0.5}, "agreement"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a_domain(**keys)


def test_a_vote_is_refused_where_answers_cannot_be_told_equal() -> None:
    source = {"source": "generator:functions", "count": 1}
    data = {"problems": [source], "verifier": "code", "select": {"agreement": 0.8}}
    with pytest.raises(ValueError, match="verifier math or choice; got 'code'"):
        Domain.model_validate(data)


# The stage


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resolve("random:two-layer", cache=tmp_path_factory.mktemp("cache"))


def a_run(tmp_path: Path, base: Path, **select: Any) -> Run:
    domain = a_domain(**select).model_dump(mode="json")
    recipe = parse_recipe(
        {
            "name": "test",
            "base": str(base),
            "domains": {"math": domain},
            "teachers": [{"name": name, "scripted": {}} for name in ("alice", "bob")],
        },
        where="test",
    )
    run = Run(tmp_path / "run", recipe)
    problems = [a_problem(f"p{number}") for number in range(6)]
    write_rows(run.problems("math"), problems, Problem)
    verdicts = []
    for teacher in ("alice", "bob"):
        traces = [
            a_trace(
                id=f"{teacher}{number}",
                problem_id=f"p{number}",
                model=teacher,
                answer=f"{teacher.title():5} finds \\boxed{{22}}.",
            )
            for number in range(6)
        ]
        write_rows(run.traces("math", teacher), traces, Trace)
        right = ["wrong" if number == 5 else "correct" for number in range(6)]
        verdicts += [a_verdict(t, name) for t, name in zip(traces, right, strict=True)]
    write_rows(run.verdicts("math"), verdicts, Verdict)
    return run


def work(run: Run) -> dict[str, Any]:
    with ExitStack() as resources:
        (task,) = tasks(run, resources)
        return dict(execute(run, task))


def test_the_stage_writes_examples_and_dropped_rows_that_add_up(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base, target=4)
    assert work(run) == {
        "traces": 12,
        "examples": 4,
        "not_chosen": 5,
        "verdict_wrong": 2,
        "over_target": 1,
    }
    examples = read_rows(run.examples("math"), Example)
    dropped = read_rows(run.dropped("select", "math"), Dropped)
    assert len({example.id for example in examples} | {row.id for row in dropped}) == 12
    assert Counter(example.teacher for example in examples) == {"alice": 2, "bob": 2}
    assert {example.prompt for example in examples} <= {
        f"Please: what is p{number}?" for number in range(5)
    }
    with ExitStack() as resources:
        (task,) = tasks(run, resources)
        assert is_done(run, task, read_manifest(run.path))


def test_the_funnel_says_what_each_reason_took_from_whom(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(tmp_path, base, target=4)
    work(run)
    shown = capsys.readouterr().err
    funnel = read_funnel(funnel_file(run, "math"))
    assert [(s.filter, s.reason, s.dropped, s.left) for s in funnel.steps] == [
        ("verdict", "verdict_wrong", 2, 10),
        ("choice", "not_chosen", 5, 5),
        ("choice", "over_target", 1, 4),
    ]
    assert funnel.steps[0].by_teacher == {"alice": 1, "bob": 1}
    counts = dataclasses.asdict(funnel.total)
    assert counts == {"traces": 12, "fit": 10, "chosen": 4, "problems": 6, "problems_chosen": 4}
    assert {name: found.chosen for name, found in funnel.teachers.items()} == {"alice": 2, "bob": 2}
    assert funnel.sources == {"test": funnel.total}
    bands = {band: found.problems for band, found in funnel.difficulty.items() if found.problems}
    assert bands == {"0.0-0.2": 5, "0.8-1.0": 1}
    for word in ("alice", "verdict_wrong", "-5", "examples"):
        assert word in shown


def test_a_file_that_is_no_funnel_is_refused_by_name(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"domain": 1}'):
        (tmp_path / "math.json").write_text(text)
        with pytest.raises(DataError, match=r"math\.json: not a readable funnel"):
            read_funnel(tmp_path / "math.json")


def test_problems_without_gold_are_voted_on(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base, agreement=0.6, votes=2, per_problem=2)
    stated = {  # alice's and bob's answers
        "p0": ("1/2", "0.5"),
        "p1": ("7", "8"),
        "p2": ("7", None),
    }
    verdicts = [
        dataclasses.replace(
            row,
            verdict="no_answer"
            if (said := pair[row.trace_id[0] == "b"]) is None
            else "not_checked",
            reason="no_final_answer" if said is None else "no_gold",
            extracted=said,
        )
        if (pair := stated.get(row.problem_id))
        else row
        for row in read_rows(run.verdicts("math"), Verdict)
    ]
    write_rows(run.verdicts("math"), verdicts, Verdict)
    work(run)
    chosen = {row.id for row in read_rows(run.examples("math"), Example)}
    assert {name for name in chosen if name[-1] in "012"} == {"alice0", "bob0"}
    reasons = {row.id: row.reason for row in read_rows(run.dropped("select", "math"), Dropped)}
    assert (reasons["alice1"], reasons["bob1"]) == ("tied_vote", "tied_vote")
    assert (reasons["alice2"], reasons["bob2"]) == ("too_few_votes", "verdict_no_answer")
    votes = [json.loads(line) for line in votes_file(run, "math").read_text().splitlines()]
    assert [(v["problem_id"], v["outcome"], v["share"]) for v in votes] == [
        ("p0", "voted", 1.0),
        ("p1", "tied_vote", 0.5),
        ("p2", "too_few_votes", 0.5),
    ]
    assert votes[0]["answers"] == {"0.5": 1, "1/2": 1}
    assert read_funnel(funnel_file(run, "math")).votes == {
        "tied_vote": 1,
        "too_few_votes": 1,
        "voted": 1,
    }


def test_tokens_are_those_that_training_will_see(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base)
    work(run)
    tokenizer = load_tokenizer(base)
    for example in read_rows(run.examples("math"), Example):
        encoded = encode_example(tokenizer, example.prompt, example.reasoning, example.answer)
        assert example.tokens == sum(label != -100 for label in encoded.labels)


def test_the_token_window_uses_the_students_tokenizer(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base)
    work(run)
    tokens = read_rows(run.examples("math"), Example)[0].tokens
    at_the_edge = a_run(tmp_path / "edge", base, tokens=[tokens, tokens])
    assert work(at_the_edge)["examples"] == 5
    over = a_run(tmp_path / "over", base, tokens=[1, tokens - 1])
    with pytest.raises(DataError, match="too_long 10"):
        work(over)


def test_no_example_at_all_is_an_error_that_says_what_took_them(tmp_path: Path, base: Path) -> None:
    run = a_run(tmp_path, base, tokens=[5000, 6000])
    with pytest.raises(DataError, match=r"none of 12 traces.*too_short 10, verdict_wrong 2"):
        work(run)
    assert not run.examples("math").exists()
    assert len(read_rows(run.dropped("select", "math"), Dropped)) == 12


def test_changed_filters_tokenizer_or_verdicts_select_again(tmp_path: Path, base: Path) -> None:
    def settings(**select: Any) -> Any:
        with ExitStack() as resources:
            (task,) = tasks(a_run(tmp_path, base, **select), resources)
            return task.settings, task.inputs

    plain, inputs = settings()
    assert settings()[0] == plain
    assert settings(tokens=[2, 9])[0] != plain
    assert settings(policy="shortest")[0] != plain
    assert {path.name for path in inputs} >= {"tokenizer.json", "alice.parquet", "bob.parquet"}
