"""The fast path against the symbolic engine, and both against what is published."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.recipe import Verify
from cuvee.verify.answers import final_answer
from cuvee.verify.math import pool
from cuvee.verify.math.compare import check_math, compare_at_once, sides
from cuvee.verify.math.symbolic import compare

COMMAND = [sys.executable, "-P", "-m", "cuvee.verify.math.symbolic", "1024"]

Labelled = tuple[str, str, bool]
"""Gold, answer, and whether it is published as right."""

UNREADABLE = {
    # OlympiadBench golds that math-verify cannot read: correct only where repeated as they are
    r"$m_{\max }=n^{2}-n-1$",
    "$f(x)=a x+b$, where $b$ is an arbitrary integer, and $a$ is an arbitrary positive integer "
    r"with $\mho(a)=0$",
    "$t(0,4]$",
}
MISLABELLED = {  # published as wrong
    ("10{,}000", "10000"),  # the label is wrong: a thousands separator
    ("1320", "1320 km"),  # the question asks for kilometres
    ("81", "(x+y)^2=81"),  # the question asks for (x+y)^2
}


@pytest.fixture(autouse=True, scope="module")
def _no_worker_stays() -> Iterator[None]:
    yield
    pool.close()


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        loaded: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return loaded
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def golds(data: Path) -> list[str]:
    found = [r["answer"] for r in rows(data / "math500/test.jsonl")]
    for part in ("train", "test"):
        found += [
            r["answer"].rpartition("####")[2].strip() for r in rows(data / f"gsm8k/{part}.jsonl")
        ]
    for name in ("amc23/test.jsonl", "aime24/test.jsonl", "aime_1983_2023/aime.json"):
        found += [str(r["answer"]) for r in rows(data / name)]
    found += [str(r["expected_answer"]) for r in rows(data / "aime25/aime25_nemo.jsonl")]
    found += [g for r in rows(data / "olympiadbench/test.jsonl") for g in r["final_answer"] or []]
    return found


def outputs(data: Path) -> list[Labelled]:
    """Return published outputs that state an answer, with their labels."""
    found: list[tuple[str | None, str | None, bool]] = []
    for row in rows(data / "outputs_gsm8k_openai_models/example_model_solutions.jsonl"):
        gold = _as_gsm8k(row["ground_truth"])
        names = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
        for name in names:
            found.append((gold, _as_gsm8k(row[name]["solution"]), row[name]["is_correct"]))
    for row in rows(data / "outputs_qwen25math_rm_maj/math_cot_100.jsonl"):
        for reply, label in zip(row["code"], row["score"], strict=True):
            found.append((str(row["gt"]), final_answer(reply), label))
    for row in rows(data / "outputs_nemo_math/output-rs0.jsonl"):
        answer = final_answer(row["generation"])
        found.append((row["expected_answer"], answer, row["symbolic_correct"]))
    return [(gold, answer, label) for gold, answer, label in found if gold and answer]


def _as_gsm8k(solution: str) -> str | None:
    return final_answer(solution.replace("\nA: ", "\n#### "))  # as this data set writes it


def differing(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return pairs of which the fast path says what the symbolic engine does not."""
    quick = {pair: judgement for pair in pairs if (judgement := compare_at_once(*pair)) is not None}
    tasks = [[(side.text, side.percent) for side in sides(*pair)] for pair in quick]
    outcomes = pool.run(COMMAND, tasks, processes=2, seconds=20, tick=lambda _: None)
    return [
        pair
        for (pair, judgement), outcome in zip(quick.items(), outcomes, strict=True)
        if pair[0] not in UNREADABLE
        and (outcome.status, (outcome.value or {}).get("reason")) != ("done", judgement.reason)
    ]


def sample(pairs: list[tuple[str, str]], size: int) -> list[tuple[str, str]]:
    unique = sorted(set(pairs))
    return random.Random(4).sample(unique, min(size, len(unique)))


def test_a_sample_is_judged_as_by_the_symbolic_engine(data: Path) -> None:
    pairs = [(gold, answer) for gold, answer, _ in outputs(data)]
    assert differing(sample(pairs, 300)) == []
    assert differing([(g, g) for g in sorted(set(golds(data)))[::40]]) == []


@pytest.mark.slow
def test_all_real_data_is_judged_as_by_the_symbolic_engine(data: Path) -> None:
    pairs = {(gold, answer) for gold, answer, _ in outputs(data)}
    known = sorted(set(golds(data)))
    shifted = zip(known, known[1:] + known[:1], strict=True)  # unequal neighbours
    assert differing([*sorted(pairs), *((g, g) for g in known), *shifted]) == []


def test_published_labels_are_reproduced(data: Path) -> None:
    labelled = outputs(data)
    assert len(labelled) > 6000
    pairs = [(gold, answer) for gold, answer, _ in labelled]
    judged = check_math(pairs, limits=Verify(processes=2), tick=lambda _: None)
    against = {
        pair
        for pair, (_, _, label), judgement in zip(pairs, labelled, judged, strict=True)
        if (judgement.verdict == "correct") != label
    }
    assert against == MISLABELLED


def test_golds_verify_themselves_boxed_and_plain(data: Path) -> None:
    known = golds(data)
    assert len(known) > 11_000
    stated = [
        final_answer(f"<think>...</think>\nThe answer is \\boxed{{{gold}}}.") for gold in known
    ]
    for gold, answer in zip(known, stated, strict=True):
        assert answer is not None
        for side in (gold, rf"\boxed{{{gold}}}"):
            judgement = compare_at_once(side, answer)
            assert judgement is not None, side
            assert judgement.verdict == "correct", side


def test_nearly_all_real_pairs_need_no_symbolic_engine(data: Path) -> None:
    labelled = outputs(data)
    unknown = [pair for *pair, _ in labelled if compare_at_once(*pair) is None]
    assert len(unknown) < len(labelled) / 100


number = st.one_of(
    st.integers(-99, 99).map(str),
    st.from_regex(r"\A-?[0-9]{1,5}\.[0-9]{1,5}\Z"),
    st.builds(lambda a, b: f"\\frac{{{a}}}{{{b}}}", st.integers(-20, 20), st.integers(1, 20)),
    st.builds(lambda a, b: f"{a}\\sqrt{{{b}}}", st.integers(2, 9), st.integers(2, 30)),
    st.sampled_from([r"\pi", "x", "2n", "3!", r"2^{-3}", r"1\frac{1}{2}", r"50\%", r"\sqrt{8}"]),
)
formula = st.one_of(
    number,
    st.builds("{}+{}".format, number, number),
    st.builds("({})({})".format, number, number),
    st.builds(r"\frac{{{}}}{{{}}}".format, number, number),
)
answers = st.one_of(
    formula,
    st.builds("({}, {})".format, formula, formula),
    st.builds("{}, {}".format, number, number),
)


@settings(max_examples=25, deadline=None)
@given(answers, answers)
def test_any_formulas_are_judged_as_by_the_symbolic_engine(gold: str, answer: str) -> None:
    for pair in ((gold, answer), (gold, gold.replace("frac", "dfrac").replace(" ", ""))):
        quick = compare_at_once(*pair)
        if quick is not None:
            one, other = sides(*pair)
            asked = compare((one.text, one.percent), (other.text, other.percent))
            assert asked["reason"] in (quick.reason, "unusable_gold", "math_crash"), asked
