"""`check_rows`: columns, chunks, order, bad rows, threads, processes, memory."""

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import DataError, RecipeError
from cuvee.problems.files import read_file
from cuvee.records import Verdict
from cuvee.verify import check_rows, rows

ADD = {"kind": "function", "fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}]}
GOOD = "```python\ndef f(a, b):\n    return a + b\n```"


def check(*given: Any, **how: Any) -> list[Verdict]:
    return list(check_rows(given, **how))


def reasons(verdicts: list[Verdict]) -> list[tuple[str, str]]:
    return [(v.verdict, v.reason) for v in verdicts]


def sums(count: int) -> Iterator[dict[str, Any]]:
    """Yield sums, every third one answered wrong, every fifth one not at all."""
    for n in range(count):
        stated = "I do not know." if n % 5 == 4 else rf"\boxed{{{2 * n + (n % 3 == 2)}}}"
        yield {"id": f"s{n}", "problem": f"{n} + {n}", "answer": str(2 * n), "response": stated}


def of_sum(n: int) -> str:
    return "no_final_answer" if n % 5 == 4 else "different" if n % 3 == 2 else "equal"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"problem": "?", "answer": "2", "response": r"\boxed{2}"}, "equal"),
        ({"question": "?", "gold": 2, "output": "The answer is 3"}, "different"),
        ({"gold": 2.0, "generation": "#### 2"}, "equal"),
        ({"expected_answer": "2", "answer": r"\boxed{2}"}, "equal"),
        ({"gold": "2", "answer": "so we"}, "no_final_answer"),
        ({"gold": "2", "answer": "so we", "finish_reason": "length"}, "truncated"),
        ({"gold": "2", "response": None}, "no_final_answer"),
        ({"gold": None, "response": r"\boxed{2}"}, "no_gold"),
        ({"gold": "", "response": r"\boxed{2}"}, "no_gold"),
        ({"answer": "<<9*2=18>>18\n#### 1,018", "response": r"\boxed{1018}"}, "equal"),
        ({"answer": ["2"], "response": r"\boxed{2}"}, "equal"),
        ({"verifier": "none", "response": "an essay"}, "no_verifier"),
        ({"verifier": "judge", "gold": "x", "response": "an essay"}, "no_judge"),
    ],
)
def test_usual_columns_are_found(row: dict[str, Any], reason: str) -> None:
    (verdict,) = check(row)
    assert verdict.reason == reason


def test_columns_may_be_mapped_and_the_verifier_given() -> None:
    row = {"answer": "nothing", "q": "?", "key": "B", "text": r"\boxed{B}"}
    columns = {"gold": "key", "reply": "text", "question": "q"}
    assert reasons(check(row, columns=columns)) == [("correct", "equal")]
    with pytest.raises(RecipeError, match="columns maps response; known: id, question"):
        check(row, columns={"response": "text"})
    with pytest.raises(RecipeError, match="verifier 'maths': allowed are math, code"):
        check(row, verifier="maths")


@pytest.mark.sandbox
@pytest.mark.parametrize("dumped", [False, True])
def test_rows_with_tests_are_code(dumped: bool) -> None:
    tests: Any = json.dumps(ADD) if dumped else ADD
    given = [
        {"tests": tests, "response": GOOD},
        {"tests": tests, "response": GOOD.replace("+", "-")},
        {"tests": tests, "response": "def f(a, b): ..."},
        {"tests": None, "response": GOOD},
        {"tests": {"kind": "prose"}, "response": GOOD},
        {"test_list": ["assert f(1, 2) == 3"], "text": "add", "response": GOOD},
    ]
    assert [v.reason for v in check(*given)] == [
        "passed",
        "wrong_output",
        "no_code_block",
        "no_tests",
        "malformed_tests",
        "passed",
    ]


def test_ids_are_the_rows_own_or_count_them() -> None:
    row = {"gold": "2", "response": r"\boxed{2}"}
    found = check({**row, "id": "x"}, row, {**row, "id": 7}, {**row, "id": None})
    assert [v.trace_id for v in found] == ["x", "2", "7", "4"]
    assert len({v.problem_id for v in found}) == 1
    assert {v.domain for v in found} == {"math"}


def test_verdicts_keep_the_order_of_the_rows_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 7)
    found = list(check_rows(sums(50)))
    assert [(v.trace_id, v.reason) for v in found] == [(f"s{n}", of_sum(n)) for n in range(50)]


def test_rows_are_read_as_verdicts_are_taken() -> None:
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for row in itertools.cycle(sums(1)):
            taken += 1
            yield row

    verdicts = check_rows(endless())
    assert taken == 0
    assert next(verdicts).reason == "equal"
    assert taken <= rows.CHUNK_ROWS


def test_a_row_that_cannot_be_read_is_a_row_and_says_where() -> None:
    good = {"gold": "2", "response": r"\boxed{2}", "id": "g"}
    found = check(
        good,
        {"gold": "2"},
        {"response": "x"},
        {"gold": "2", "response": ["a", "b"]},
        {"gold": {"a": 1}, "response": "x"},
        {"gold": "2", "response": b"\xff"},
        {"gold": "2", "response": "x", "verifier": "maths", "id": "m"},
        [1],
        DataError("answers.jsonl, line 9: not JSON"),
        good,
    )
    assert reasons(found) == [
        ("correct", "equal"),
        *[("not_checked", "bad_row")] * 8,
        ("correct", "equal"),
    ]
    details = [str(v.detail) for v in found[1:-1]]
    expected = [
        "row 2: no column for the reply: looked for reply, response",
        "row 3: no column for the gold: looked for gold",
        "row 4: column 'response': wanted the reply as text, got list of 2",
        "row 5: column 'gold': wanted text or a number, got dict of 1",
        "row 6: column 'response': wanted the reply as text, got bytes of 1",
        "row 7: column 'verifier': 'maths', allowed are math, code",
        "row 8: wanted a mapping, got list",
        "answers.jsonl, line 9: not JSON",
    ]
    for detail, beginning in zip(details, expected, strict=True):
        assert detail.startswith(beginning)
    assert [v.trace_id for v in found][:2] == ["g", "2"]
    assert found[6].trace_id == "m"


def test_a_first_row_without_a_column_is_an_error_before_anything_is_checked() -> None:
    with pytest.raises(DataError, match=r"no column for the reply: .*the row has answer, said"):
        check({"answer": "2", "said": r"\boxed{2}"})
    with pytest.raises(DataError, match="no column for the gold: looked for key;"):
        check({"answer": "2", "response": "x"}, columns={"gold": "key"})
    with pytest.raises(DataError, match="no column for the tests"):
        check({"answer": "2", "response": "x"}, verifier="code")


def test_a_huge_answer_costs_its_own_row_only() -> None:
    huge = "x" * 50_000_000
    found = check(
        {"gold": "2", "response": huge},
        {"gold": "2", "response": "{" * 50_000_000},
        {"gold": "2", "response": huge + r" so \boxed{2}"},
        {"gold": "2", "response": rf"\boxed{{{huge[:500_000]}}}"},
        {"gold": huge, "response": r"\boxed{2}"},
        {"gold": "2", "response": r"\boxed{2}"},
    )
    assert [v.reason for v in found] == [
        "no_final_answer",
        "no_final_answer",
        "equal",
        "too_long",
        "too_long",
        "equal",
    ]
    assert all(len(v.extracted or "") < 10**4 for v in found)


def test_odd_text_is_no_error() -> None:
    odd = ["\ud800", "\x00", "\u2028", "", "٣", "\\boxed{", "</think>", "$" * 1000]
    found = check(*({"gold": "2", "response": rf"\boxed{{{text}}}"} for text in odd))
    assert {v.verdict for v in found} <= {"wrong", "no_answer", "not_checked"}
    found = check(*({"gold": text, "response": r"\boxed{2}"} for text in odd))
    assert {v.verdict for v in found} <= {"wrong", "not_checked"}


@pytest.mark.sandbox
def test_golds_are_checked_as_replies() -> None:
    found = check(
        {"question": "?", "answer": r"3\sqrt{13}"},
        {"question": "?", "answer": "... #### 1,000"},
        {"question": "?", "answer": None},
        {"tests": ADD, "solution": "no", "code": "def f(a, b):\n    return a + b"},
        {"tests": ADD, "code": "def f(a, b):\n    return a * b"},
        golds=True,
    )
    assert [v.reason for v in found] == ["equal", "equal", "no_gold", "passed", "wrong_output"]


def test_threads_and_async_code_get_the_same_verdicts() -> None:
    symbolic = {"problem": "?", "answer": r"\frac{x^2-1}{x-1}", "response": "#### x+1"}
    given = [*sums(20), symbolic]
    expected = reasons(list(check_rows(given)))
    found: dict[int, list[tuple[str, str]]] = {}

    def work(number: int) -> None:
        found[number] = reasons(list(check_rows(given)))

    for _ in range(2):  # threads that end take nothing with them that the next ones need
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found.pop(n) for n in range(4)] == [expected] * 4

    async def both() -> list[list[tuple[str, str]]]:
        checks = [asyncio.to_thread(lambda: reasons(list(check_rows(given)))) for _ in range(2)]
        return await asyncio.gather(*checks)

    assert asyncio.run(both()) == [expected] * 2


@pytest.mark.sandbox
def test_programs_are_checked_from_threads_that_come_and_go() -> None:
    given = [{"tests": ADD, "response": GOOD}, {"tests": ADD, "response": GOOD.replace("+", "-")}]
    found: list[list[str]] = []
    for _ in range(3):
        thread = threading.Thread(
            target=lambda: found.append([v.reason for v in check_rows(given)])
        )
        thread.start()
        thread.join()
    assert found == [["passed", "wrong_output"]] * 3


def test_real_outputs_are_read_as_they_are_published(data: Path) -> None:
    columns = {"gold": "expected_answer", "reply": "generation"}
    file = data / "outputs_nemo_math" / "output-rs0.jsonl"
    given = [row for _, row in read_file(file)]
    found = check(*given, columns=columns)
    assert len(found) == len(given) == 50
    assert all(v.verdict != "not_checked" for v in found)
    golds = check(
        *itertools.islice((r for _, r in read_file(data / "gsm8k" / "test.jsonl")), 200), golds=True
    )
    assert reasons(golds) == [("correct", "equal")] * 200


WORKERS = r"""
import json, multiprocessing
from cuvee.verify import check_rows

TESTS = {"kind": "function", "fn_name": "f", "cases": [{"args": [1, 2], "expected": 3}]}
PROGRAM = "```python\ndef f(a, b):\n    return a + b\n```"
ROWS = [
    {"tests": TESTS, "response": PROGRAM},
    {"answer": r"\frac{x^2-1}{x-1}", "response": "#### x+1"},
    {"answer": "2", "response": "#### 3"},
]

def work(_):
    return [verdict.reason for verdict in check_rows(ROWS)]

if __name__ == "__main__":
    found = [work(0)]
    for kind in ("spawn", "fork"):
        with multiprocessing.get_context(kind).Pool(2) as pool:
            found += pool.map(work, range(3))
    print(json.dumps(found))
"""


@pytest.mark.sandbox
def test_worker_processes_of_another_program_get_the_same_verdicts(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "workers.py")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == [["passed", "equal", "different"]] * 7


MANY = r"""
import resource, sys
from cuvee.verify import check_rows
from tests_rows import sums

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

count = int(sys.argv[1])
for number, verdict in enumerate(check_rows(sums(count)), start=1):
    if number == 10_000:
        early = peak()
print(number, peak() - early)
"""


@pytest.mark.slow
def test_the_memory_of_the_caller_is_flat_over_100_000_rows(tmp_path: Path) -> None:
    (tmp_path / "tests_rows.py").write_text(Path(__file__).read_text())
    (tmp_path / "many.py").write_text(MANY)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "many.py"), "100000"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows_done, grown = done.stdout.split()
    assert int(rows_done) == 100_000
    assert float(grown) < 20, f"{grown} MiB more after 100,000 rows than after 10,000"
