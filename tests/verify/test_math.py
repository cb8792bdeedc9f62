import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from cuvee.recipe import Verify
from cuvee.verify.judgement import Judgement
from cuvee.verify.math import pool
from cuvee.verify.math.compare import check_math, compare_at_once

SLOW = "10^{10^{10}}"
"""What math-verify does not finish with in any time."""


@pytest.fixture(autouse=True, scope="module")
def _no_worker_stays() -> Iterator[None]:
    yield
    pool.close()


def check(*pairs: tuple[str, str], math_seconds: float = 20) -> list[Judgement]:
    limits = Verify(math_seconds=math_seconds, processes=1)
    return check_math(pairs, limits=limits, tick=lambda _: None)


TABLE = [
    # gold, answer, reason: each false friend beside its true one
    (r"3\sqrt{13}", "3", "different"),
    (r"3\sqrt{13}", r"\sqrt{117}", "equal"),
    (r"12\pi", "12", "different"),
    (r"12\pi", r"12 π", "equal"),
    (r"1 \pm \sqrt{19}", "1", "different"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}", "equal"),
    (r"\pm 3", "3", "different"),
    (r"\pm 3", "-3, 3", "equal"),
    ("3, 5, 7", "7", "different"),
    ("3, 5, 7", "7, 5, 3", "equal"),
    ("1/2", "0.5", "equal"),
    ("1/2", "0.4", "different"),
    (r"\frac{1}{3}", "0.33", "different"),
    (r"\frac{1}{3}", "0.333333", "equal"),
    (r"\frac{1}{3}", r"0.\overline{3}", "equal"),
    ("0.000001", "0.0000012", "different"),
    ("33", "033", "equal"),
    ("033", "33", "equal"),
    ("33", "33.0", "equal"),
    ("33", "33.", "equal"),
    ("1000", "1,000", "equal"),
    ("10000", "10{,}000", "equal"),
    ("10000", r"10,\!000", "equal"),
    ("1234", "1, 234", "different"),
    ("2.5", r"2\frac{1}{2}", "equal"),
    ("3.5", "3 1/2", "equal"),
    ("-2.5", r"-2\frac12", "equal"),
    (r"2\frac{1}{2}", "1", "different"),
    ("1500", r"1.5\times 10^3", "equal"),
    ("1500", "1.5e3", "equal"),
    ("18", "１８", "equal"),
    ("(1, 2)", "（１，２）", "equal"),
    (r"\text{even}", "even", "equal"),
    (r"\text{even}", "Even.", "equal"),
    (r"\text{even}", r"\text{odd}", "different"),
    (r"\text{no solution}", r"\text{No solution}", "equal"),
    (r"\text{(C)}", "C", "equal"),
    (r"\text{(C)}", "(D)", "different"),
    ("5", "x=5", "equal"),
    ("x=5", "5", "equal"),
    ("x=5", "y=5", "different"),
    (r"90^\circ", "90", "equal"),
    (r"90^\circ", "90 degrees", "equal"),
    ("18", r"\$18.00", "equal"),
    ("18", "18 dollars", "equal"),
    ("18", "18 apples", "equal"),
    ("0.50", "50 cents", "different"),
    (r"\$0.50", "50 cents", "equal"),
    (r"5\text{ cm}", "5", "equal"),
    (r"5\text{ cm}^2", "5 cm^2", "equal"),
    (r"5\text{ cm}", r"5\text{ m}", "different"),
    (r"1\text{ km}", "1000 m", "equal"),
    ("5", "5 m", "equal"),
    ("5m", "5", "different"),
    ("3x+2t", "3x+2", "different"),
    (r"3\text{ p.m.}", r"3\text{ a.m.}", "different"),
    (r"50\%", "50", "equal"),
    (r"50\%", "0.5", "equal"),
    (r"50\%", "5", "different"),
    ("0.5", "50", "different"),
    (r"12.5\%", r"\frac{1}{8}", "equal"),
    ("1011_2", "1011_{2}", "equal"),
    ("1011_2", "1011_3", "different"),
    ("1011_2", "1011", "equal"),
    ("(1,2)", "(2,1)", "different"),
    ("(1,2)", "[1,2]", "different"),
    ("[0,1)", "[0, 1)", "equal"),
    (r"\{1,2\}", r"\{2,1\}", "equal"),
    (r"x \in [0,1]", "[0,1]", "equal"),
    (r"(-\infty,1)\cup(1,\infty)", r"(-\infty, 1) \cup (1, \infty)", "equal"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", "equal"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", "different"),
    (r"x \ne 3", "x != 3", "equal"),
    (r"x \ne 3", "x = 3", "different"),
    ("x \\ge 5", "x >= 5", "equal"),
    ("x<3", "3>x", "equal"),
    (r"(x+1)^2", "x^2+2x+1", "equal"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt{2}}{2}", "equal"),
    (r"\sin^2 t", r"1-\cos^2 t", "equal"),
    (r"\boxed{5}", "5", "equal"),
    ("$5$", "5", "equal"),
    (r"So $x^2=25$ and $x=\boxed{5}$.", "5", "equal"),
    ("5", "", "different"),
    ("", "5", "unusable_gold"),
    (r"\frac", "5", "unusable_gold"),
]


@pytest.fixture(scope="module")
def judged() -> list[Judgement]:
    return check(*((gold, answer) for gold, answer, _ in TABLE))


@pytest.mark.parametrize("row", range(len(TABLE)), ids=lambda i: f"{TABLE[i][0]} {TABLE[i][1]}")
def test_answers_are_compared_as_mathematics(row: int, judged: list[Judgement]) -> None:
    gold, answer, reason = TABLE[row]
    verdict = {"equal": "correct", "different": "wrong"}.get(reason, "not_checked")
    judgement = judged[row]
    assert (judgement.verdict, judgement.reason) == (verdict, reason)
    assert (judgement.expected, judgement.extracted) == (gold, answer)


@pytest.mark.parametrize("row", range(len(TABLE)), ids=lambda i: f"{TABLE[i][0]} {TABLE[i][1]}")
def test_a_boxed_gold_gives_the_verdict_of_a_plain_one(row: int) -> None:
    gold, answer, _ = TABLE[row]
    if r"\boxed" in gold or not gold:
        return
    plain = compare_at_once(gold, answer)
    for wrapped in (rf"\boxed{{{gold}}}", rf"\( {gold} \)", rf"$\boxed{{{gold}}}$"):
        boxed = compare_at_once(wrapped, answer)
        assert (boxed and boxed.reason) == (plain and plain.reason)


POISON = [
    SLOW,
    r"\sqrt{" * 300 + "2" + "}" * 300,
    "(" * 2000 + "1" + ")" * 2000,
]


def test_in_a_thread_poisonous_answers_cost_their_own_rows_alone() -> None:
    poison = [(r"\sqrt{2}", text) for text in POISON]
    sound = [(r"\ln 4", r"2 \ln 2"), (r"\ln 4", r"\ln 2")] * len(poison)
    pairs = [pair for three in zip(sound[::2], poison, sound[1::2], strict=True) for pair in three]
    found: list[Judgement] = []
    thread = threading.Thread(target=lambda: found.extend(check(*pairs, math_seconds=2)))
    thread.start()
    thread.join()
    assert [j.reason for j in found[::3]] == ["equal"] * len(poison)
    assert [j.reason for j in found[2::3]] == ["different"] * len(poison)
    hurt = found[1::3]
    assert all(j.verdict != "correct" for j in hurt)
    assert hurt[0].reason == "math_timeout"
    assert 2 <= hurt[0].seconds < 10


@pytest.mark.parametrize("text", ["{" * 100_000, "1" * 50_000_000, "$" * 100_000])
def test_what_is_too_long_to_compare_is_not_checked_and_shown_in_part(text: str) -> None:
    judgement = compare_at_once("3", text)
    assert judgement is not None
    assert (judgement.verdict, judgement.reason) == ("not_checked", "too_long")
    assert judgement.extracted is not None
    assert len(judgement.extracted) == 2000


def test_equal_pairs_are_compared_once_and_counted_each() -> None:
    ticks: list[int] = []
    pairs = [("1", "1"), (r"\ln 4", r"2\ln 2"), (r"\ln 4", r"2\ln 2"), ("2", "3")]
    judged = check_math(pairs, limits=Verify(processes=1), tick=ticks.append)
    assert sum(ticks) == len(pairs)
    assert judged[1] is judged[2]  # compared once


def test_a_memory_cap_costs_its_own_row_alone() -> None:
    pairs = [
        (r"\ln 4", r"2\ln 2"),
        (r"\sqrt{2}", r"(3 \cdot 10^{8})^{10^8}"),
        (r"\ln 9", r"2\ln 3"),
    ]
    limits = Verify(math_seconds=2, memory_mb=64, processes=1)
    judged = check_math(pairs, limits=limits, tick=lambda _: None)
    assert [j.reason for j in (judged[0], judged[2])] == ["equal", "equal"]
    assert judged[1].verdict != "correct"


def test_comparing_at_once_loads_no_sympy() -> None:
    code = (
        "import sys; from cuvee.verify.math.compare import compare_at_once\n"
        r"print(compare_at_once('\\frac{1}{2}', '0.5').reason, 'sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["equal", "False"]
