"""What each filter keeps and drops of real traces, at the recipe's defaults, looked at by eye.

Each test names the rows: honest ones are kept, those that are dropped have the fault.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cuvee.recipe import Select
from cuvee.records import Trace
from cuvee.select.objection import Objection
from cuvee.select.prose import answers_early, copied, copied_share, foreign, gives_up
from cuvee.select.repetition import repeated_share, repetitive
from cuvee.select.structure import malformed, syntax_fault, unrunnable

from .conftest import a_trace, json_lines, reason

DEFAULT = Select()


def qwen(data: Path, name: str) -> Iterator[tuple[Trace, str]]:
    folder = data / "cot_thinking_traces_qwen3"
    items = {item["id"]: item["prompt"] for item in json.loads((folder / "items.json").read_text())}
    for row in json_lines(folder / f"{name}.jsonl"):
        yield (
            a_trace(
                id=row["item_id"],
                reasoning=row["thinking"] or "",
                answer=row["content"],
                finish_reason=row["done_reason"],
            ),
            items[row["item_id"]],
        )


def marco(data: Path) -> Iterator[tuple[Trace, str]]:
    rows = json.loads((data / "cot_marco_o1_demo" / "CoT_demo.json").read_text())
    for number, row in enumerate(rows):
        thought, _, answer = row["response"].partition("</Thought>")
        reasoning = thought.replace("<Thought>", "")
        yield a_trace(id=str(number), reasoning=reasoning, answer=answer), row["instruction"]


def gemini(data: Path) -> Iterator[tuple[Trace, str]]:
    table = pq.read_table(data / "cot_s1k_gemini_sample" / "reasoning_dataset.parquet")
    for number, row in enumerate(table.to_pylist()):
        reasoning, answer = row["gemini_thinking_trajectory"], row["gemini_attempt"]
        yield a_trace(id=str(number), reasoning=reasoning, answer=answer), row["question"]


def solutions(data: Path) -> Iterator[tuple[Trace, str]]:
    """Yield solutions by models that do not think apart, taken as if they were reasoning."""
    for row in json_lines(data / "outputs_qwen25math_rm_maj" / "math_cot_100.jsonl"):
        for number, text in enumerate(row["code"]):
            trace = a_trace(id=f"{row['idx']}/{number}", reasoning=text, answer=text)
            yield trace, row["question"]
    for number, row in enumerate(
        json_lines(data / "outputs_nemo_math" / "openmathinstruct2_100.jsonl")
    ):
        text = row["generated_solution"]
        yield a_trace(id=f"omi/{number}", reasoning=text, answer=text), row["problem"]


def said(trace: Trace, question: str) -> Objection | None:
    """Return the first objection of the filters of text, at the recipe's defaults in English."""
    return (
        malformed(trace, verifier="math")
        or foreign(trace, language="en", least=DEFAULT.language_share)
        or repetitive(trace, most=DEFAULT.max_repetition)
        or copied(trace, question, most=DEFAULT.max_copied)
        or gives_up(trace)
        or answers_early(trace, question, least=DEFAULT.answer_after)
    )


def dropped(rows: Iterator[tuple[Trace, str]]) -> dict[str, str]:
    found = {trace.id: reason(said(trace, question)) for trace, question in rows}
    return {name: why for name, why in found.items() if why is not None}


@pytest.mark.parametrize(
    ("name", "kept", "expected"),
    [
        # "I'm not certain. I'll go with the BMI calculation as the best possible estimate".
        ("qwen3-8b__think-on", 189, {"overthink-30": "gives_up"}),
        ("qwen3.5-9b__think-on", 140, {}),
    ],
)
def test_finished_reasoning_is_kept(
    data: Path, name: str, kept: int, expected: dict[str, str]
) -> None:
    finished = [(t, q) for t, q in qwen(data, name) if t.finish_reason == "stop"]
    assert len(finished) == kept
    assert dropped(iter(finished)) == expected


def test_reasoning_of_two_more_models_is_kept_unless_in_another_language(data: Path) -> None:
    # 1, 53 and 58 are Chinese; 43 and 112 quote Chinese sentences in every paragraph.
    assert dropped(marco(data)) == dict.fromkeys(("1", "43", "53", "58", "112"), "language")
    assert dropped(gemini(data)) == {}


def test_loops_of_cut_reasoning_are_found(data: Path) -> None:
    cut = {t.id: t for t, _ in qwen(data, "qwen3.5-9b__think-on") if t.finish_reason == "length"}
    found = {name: repetitive(trace, most=DEFAULT.max_repetition) for name, trace in cut.items()}
    looping = {name for name, objection in found.items() if objection is not None}
    assert looping == {
        *(f"instruct-{number}" for number in ("00", "31", "35", "36", "37", "38", "39")),
        "overthink-34",
        "overthink-39",
    }
    ending = {name for name in looping if repeated_share(cut[name].reasoning) < 0.4}
    assert ending == {"instruct-31", "instruct-35", "overthink-34", "overthink-39"}, "by its end"


def test_solutions_are_kept_but_for_garbage(data: Path) -> None:
    # After the answer come `summertheir口径納大自然 lista(` and the like; two are judged correct.
    assert dropped(solutions(data)) == {"25/1": "language", "45/5": "language", "48/3": "language"}


def test_a_run_on_that_boxes_the_answer_first_answers_early(data: Path) -> None:
    rows = json_lines(data / "outputs_nemo_math" / "output-rs0.jsonl")
    traces = [
        a_trace(id=str(number), reasoning=row["generation"]) for number, row in enumerate(rows)
    ]
    found = [t.id for t in traces if answers_early(t, "", least=DEFAULT.answer_after)]
    assert found == ["0"], "the answer, then a question of its own making"


def test_answers_that_give_up_are_told_from_stories_about_giving_up(data: Path) -> None:
    rows = json_lines(data / "outputs_champ" / "champ_first_wrong_step.jsonl")
    given = [number for number, row in enumerate(rows) if gives_up(a_trace(answer=row["solution"]))]
    assert given == [275, 501, 534], "we cannot determine ... without further information"
    rows = json_lines(data / "outputs_gsm8k_openai_models" / "example_model_solutions.jsonl")
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    texts = [row[model]["solution"] for row in rows for model in models]
    assert sum("gave up" in text or "guess" in text for text in texts) > 10
    assert not [text for text in texts if gives_up(a_trace(answer=text))]


def test_a_question_told_again_is_copied_and_a_matrix_written_again_is_not(data: Path) -> None:
    questions = {trace.id: (trace, question) for trace, question in solutions(data)}
    trace, question = questions["omi/84"]
    assert 0.4 < copied_share(trace.reasoning, question) < DEFAULT.max_copied
    retold = a_trace(reasoning=f"The question is: {question} So: {question}")
    assert reason(copied(retold, question, most=DEFAULT.max_copied)) == "copied"


def test_answers_without_thinking_have_no_reasoning(data: Path) -> None:
    found = dropped(qwen(data, "qwen3-8b__think-off"))
    assert len(found) == 200
    assert set(found.values()) == {"no_reasoning"}


def test_programs_of_a_real_model_compile(data: Path) -> None:
    rows: list[dict[str, Any]] = json.loads(
        (data / "outputs_livecodebench" / "o1-mini.json").read_text()
    )
    found = [(unrunnable(row["output_list"][0]), row["graded_list"][0]) for row in rows]
    bad = Counter((reason(fault), right) for fault, right in found if fault is not None)
    assert bad == {("not_python", False): 5, ("code_blocks", False): 1}, "880 answers, 602 right"


def test_human_programs_compile_and_their_first_halves_do_not(data: Path) -> None:
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        assert syntax_fault(row["prompt"] + row["canonical_solution"]) is None
        assert syntax_fault(row["canonical_solution"]) is not None, "indented"
