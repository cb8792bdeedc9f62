"""Code over real data: reference programs pass their own tests, verdicts are the same twice."""

import gzip
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cuvee.recipe import Verify
from cuvee.records import Verdict
from cuvee.verify.rows import check_rows

pytestmark = pytest.mark.sandbox

HELPERS_NEEDED = {"HumanEval/32", "HumanEval/38", "HumanEval/50"}
"""Their tests call helpers of the program or reach into it, so both share a process."""
CLASSES_NEEDED = {367, 601, 927}
"""Their tests build the program's own classes."""
LIMITS = Verify(code_seconds=20, memory_mb=1024)
"""MBPP/123 and some of MBPP+ take longer than the 6 s that are the default."""


def lines(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def failed(rows: Sequence[dict[str, Any]]) -> dict[Any, Verdict]:
    verdicts = list(check_rows(rows, verifier="code", golds=True, limits=LIMITS))
    pairs = zip(rows, verdicts, strict=True)
    return {row["task_id"]: v for row, v in pairs if v.verdict != "correct"}


def forgeable(rows: Sequence[dict[str, Any]]) -> set[Any]:
    verdicts = list(check_rows(rows, verifier="code", golds=True, limits=LIMITS))
    pairs = zip(rows, verdicts, strict=True)
    return {row["task_id"] for row, v in pairs if v.checker.endswith("forgeable")}


def test_humaneval_verifies_itself(data: Path) -> None:
    rows = lines(data / "humaneval" / "HumanEval.jsonl.gz")
    assert len(rows) == 164
    assert failed(rows) == {}


def test_only_tests_that_need_the_program_itself_can_be_forged(data: Path) -> None:
    rows = lines(data / "humaneval" / "HumanEval.jsonl.gz")
    assert forgeable(rows) <= HELPERS_NEEDED
    rows = [row for row in lines(data / "mbpp" / "mbpp.jsonl") if row["task_id"] in CLASSES_NEEDED]
    assert forgeable(rows) <= CLASSES_NEEDED


@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow), 10], ids=["all", "every-tenth"]
)
def test_mbpp_verifies_itself(data: Path, step: int) -> None:
    rows = lines(data / "mbpp" / "mbpp.jsonl")
    assert len(rows) == 974
    assert failed(rows[::step]) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mbpp_plus_verifies_itself(data: Path) -> None:
    rows = lines(data / "mbpp_plus" / "MbppPlus-v0.1.0.jsonl")
    assert len(rows) == 399
    assert failed(rows) == {}


def test_some_of_mbpp_plus_verifies_itself(data: Path) -> None:
    rows = lines(data / "mbpp_plus" / "MbppPlus-v0.1.0.jsonl")[::40]
    assert failed(rows) == {}


def completions(data: Path, *, of_problem: int | None) -> list[dict[str, Any]]:
    """Return rows: each problem's first completions (None: all) beside its tests."""
    problems = lines(data / "humaneval" / "HumanEval.jsonl.gz")
    by_name = {problem["entry_point"]: problem for problem in problems}
    path = data / "outputs_codet_humaneval" / "humaneval_codegen16B_100samples.jsonl"
    rows = []
    for outputs in lines(path):  # in another order than the problems
        problem = by_name[re.findall(r"^def (\w+)\(", outputs["prompt"], re.MULTILINE)[-1]]
        code = f"{problem['test']}\ncheck({problem['entry_point']})\n"
        tests = json.dumps({"kind": "assert", "code": code})
        for sample in itertools.islice(outputs["samples"], of_problem):
            rows.append({"tests": tests, "reply": f"```python\n{outputs['prompt']}{sample}\n```"})
    return rows


@pytest.mark.parametrize(
    "of_problem",
    [pytest.param(None, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]), 1],
    ids=["all-16400", "one-a-problem"],
)
def test_verdicts_over_sampled_programs_are_the_same_twice(
    data: Path, of_problem: int | None
) -> None:
    rows = completions(data, of_problem=of_problem)
    first, second = (
        [(v.verdict, v.reason) for v in check_rows(rows, verifier="code", limits=Verify())]
        for _ in range(2)
    )
    assert len(first) == 164 * (of_problem or 100)
    # Programs that import what the sandbox does not have (numpy) cannot be judged there.
    assert {reason for verdict, reason in first if verdict == "not_checked"} <= {"missing_module"}
    changed = Counter(pair for pair in zip(first, second, strict=True) if pair[0] != pair[1])
    # A program at the edge of its time may fall on either side; no verdict else may.
    assert all("time_limit" in (a[1], b[1]) for a, b in changed), changed
