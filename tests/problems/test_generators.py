import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import RecipeError
from cuvee.problems import arithmetic, functions, operations
from cuvee.problems.items import Item
from cuvee.problems.operations import KINDS, Pipeline
from cuvee.recipe import Domain, Verify
from cuvee.records import Problem, dumps, problem_id
from cuvee.verify.check import check_golds

GENERATORS = {"arithmetic": arithmetic.generate, "functions": functions.generate}


def as_problem(item: Item, verifier: str) -> Problem:
    return Problem(
        id=problem_id(item.question, item.gold, item.tests),
        domain="d",
        source="generator:x",
        question=item.question,
        prompt=item.question,
        verifier=verifier,
        gold=item.gold,
        tests=item.tests,
        meta=dumps(item.meta),
    )


@pytest.mark.parametrize("generate", GENERATORS.values(), ids=list(GENERATORS))
def test_the_same_seed_gives_the_same_problems_and_fewer_are_a_prefix(generate) -> None:  # type: ignore[no-untyped-def]
    many = generate(60, seed=3, args={})
    assert many == generate(60, seed=3, args={})
    assert many[:20] == generate(20, seed=3, args={})
    assert many != generate(60, seed=4, args={})


@pytest.mark.parametrize("generate", GENERATORS.values(), ids=list(GENERATORS))
def test_two_thousand_problems_are_distinct(generate) -> None:  # type: ignore[no-untyped-def]
    items = generate(2000, seed=0, args={})
    assert len({item.question for item in items}) == 2000


def test_arithmetic_golds_pass_the_verifier() -> None:
    args = {"operations": ["+", "-", "*"], "terms": [2, 4]}
    items = arithmetic.generate(300, seed=1, args=args)
    problems = [as_problem(item, "math") for item in items]
    verdicts = check_golds(problems, limits=Verify(), sandbox="bubblewrap", label="golds")
    assert {v.verdict for v in verdicts} == {"correct"}


def test_reference_programs_give_what_their_cases_expect() -> None:
    for item in functions.generate(1000, seed=1, args={}):
        scope: dict[str, Any] = {}
        exec(item.gold or "", scope)  # noqa: S102 - composed of our own operations
        for case in json.loads(item.tests or "")["cases"]:
            assert scope["solve"](*case["args"]) == case["expected"]


@pytest.mark.sandbox
def test_reference_programs_pass_their_own_tests_in_the_sandbox() -> None:
    items = functions.generate(60, seed=1, args={})
    problems = [as_problem(item, "code") for item in items]
    verdicts = check_golds(problems, limits=Verify(), sandbox="bubblewrap", label="golds")
    failed = [(p.gold, v) for p, v in zip(problems, verdicts, strict=True)]
    assert not [pair for pair in failed if pair[1].verdict != "correct"]


@given(seed=st.integers(0, 10**6), largest=st.integers(3, 200), most=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_arithmetic_gold_is_what_python_says(seed: int, largest: int, most: int) -> None:
    args = {"terms": [2, most], "largest": largest, "operations": ["+", "-", "*"]}
    for item in arithmetic.generate(10, seed=seed, args=args):
        numbers, operators = item.meta["numbers"], item.meta["operators"]
        assert 2 <= len(numbers) <= most
        assert all(1 <= n <= largest for n in numbers)
        expected = numbers[0]
        if "*" not in operators:
            for sign, n in zip(operators, numbers[1:], strict=True):
                expected = expected + n if sign == "+" else expected - n
            assert item.gold == str(expected)
        assert item.gold == str(arithmetic.steps(numbers, operators)[-1][3])
        assert all(result >= 0 for *_, result in arithmetic.steps(numbers, operators))


def test_products_are_done_first() -> None:
    # 2 + 3 * 4 - 5 = 9, by hand
    assert arithmetic.steps([2, 3, 4, 5], ["+", "*", "-"]) == [
        (3, "*", 4, 12),
        (2, "+", 12, 14),
        (14, "-", 5, 9),
    ]


def test_one_expression_has_one_wording_whatever_the_seed() -> None:
    args = {"terms": [2, 2], "largest": 12}
    worded: dict[str, str] = {}
    for seed in range(5):
        for item in arithmetic.generate(60, seed=seed, args=args):
            expression = str((item.meta["numbers"], item.meta["operators"]))
            assert worded.setdefault(expression, item.question) == item.question


def test_a_small_space_is_used_up_and_said_so() -> None:
    args = {"terms": [2, 2], "largest": 2}
    # 1+1 1+2 2+1 2+2 and 1-1 2-1 2-2: seven without a negative result
    assert len(arithmetic.generate(7, seed=0, args=args)) == 7
    with pytest.raises(RecipeError, match="only 7 distinct"):
        arithmetic.generate(8, seed=0, args=args)


@pytest.mark.parametrize(
    ("generator", "args", "message"),
    [
        ("arithmetic", {"digits": 3}, r"unknown args \['digits'\]; known: largest, operations"),
        ("arithmetic", {"terms": [3, 2]}, r"args.terms must be \[low, high\]"),
        ("arithmetic", {"terms": 3}, "got 3"),
        ("arithmetic", {"largest": 0}, "at least 1, got 0"),
        ("arithmetic", {"largest": True}, "got True"),
        ("arithmetic", {"operations": ["/"]}, r"some of \+ - \*, got \['/'\]"),
        ("functions", {"step": [1, 2]}, r"unknown args \['step'\]; known: cases, kinds, steps"),
        ("functions", {"kinds": ["dict"]}, "some of .*'list'"),
        ("functions", {"steps": [0, 1]}, "1 <= low"),
        ("functions", {"steps": [1, 99]}, "got 99"),
    ],
)
def test_wrong_args_are_refused_by_name(
    generator: str, args: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        GENERATORS[generator](5, seed=0, args=args)


def test_a_worked_function_reads_as_it_should() -> None:
    pipeline = Pipeline("list", (("even", None), ("add", 3)), ("sum", None))
    assert functions.question(pipeline) == (
        "Write a Python function `solve(xs)` that takes a list of integers, keeps only the "
        "even numbers, then adds 3 to each number, and returns the sum."
    )
    assert operations.source(pipeline) == (
        "def solve(xs):\n"
        "    xs = [x for x in xs if x % 2 == 0]\n"
        "    xs = [x + 3 for x in xs]\n"
        "    return sum(xs)"
    )
    assert operations.run(pipeline, [1, 2, 4]) == 12
    assert operations.from_meta(json.loads(dumps(operations.as_meta(pipeline)))) == pipeline


def test_every_operation_runs_as_its_code_says() -> None:
    """Each constant of each operation, against Python's own reading of the expression."""
    rng = random.Random(0)
    values: dict[str, list[Any]] = {
        "list": [[3, -4, 3, 10, 0, 7, 12, 5], [1, 2]],
        "text": ["red Apple tree 7", "Oslo"],
        "number": [17, -8, 120],
    }
    for name, kind in KINDS.items():
        for table in (kind.steps, kind.finals):
            for operation in table.values():
                constant = rng.choice(list(operation.constants))
                code = operation.code.format(k=constant)
                for value in values[name]:
                    expected = eval(code, {kind.variable: value})  # noqa: S307 - our own table
                    assert operation.run(value, constant) == expected, code


def test_a_function_with_any_step_left_out_fails_its_tests() -> None:
    for item in functions.generate(200, seed=5, args={"steps": [1, 3]}):
        pipeline = operations.from_meta(item.meta)
        cases = json.loads(item.tests or "")["cases"]
        assert len(cases) == 5
        assert not functions.differs(pipeline, cases)
        for position in range(len(pipeline.steps)):
            assert functions.differs(operations.without(pipeline, position), cases)


def test_the_empty_list_is_a_case_where_the_function_is_defined() -> None:
    items = functions.generate(200, seed=2, args={"kinds": ["list"]})
    for item in items:
        cases = json.loads(item.tests or "")["cases"]
        undefined = item.meta["final"][0] in ("largest", "smallest", "spread")
        assert (cases[0]["args"] == [[]]) is not undefined


def test_questions_and_references_are_short() -> None:
    for item in functions.generate(500, seed=0, args={}):
        assert len(item.question.split()) <= 60
        assert len((item.gold or "").splitlines()) <= 5


def test_a_question_fits_the_default_prompts() -> None:
    domain = Domain.model_validate(
        {"problems": [{"source": "generator:functions"}], "verifier": "code"}
    )
    for item in functions.generate(50, seed=0, args={}):
        assert item.question in domain.ask(item.question)
