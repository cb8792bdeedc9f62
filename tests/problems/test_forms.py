r"""Each published form, read from a small file in its schema as facts are known of it."""

import base64
import json
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.errors import DataError
from cuvee.problems.forms import FORMS, licence_of, recognise
from cuvee.problems.items import Answered
from cuvee.problems.sources import Asked, Found, Outcome, open_source
from cuvee.recipe import Source
from cuvee.records import Dropped

from .conftest import WriteLines

OPEN_R1 = {
    "problem": "Solve $x + 2 = 5$.",
    "solution": "Subtract 2.",
    "answer": "3",
    "problem_type": "Algebra",
    "question_type": "math-word-problem",
    "source": "olympiads",
    "uuid": "586fd646-76d6-5070-8c81-9993ab9d8559",
    "is_reasoning_complete": [True, False],
    "generations": ["<think>\nTwo less.\n</think>\n\n\\boxed{3}", "<think>\nWait, wait"],
    "correctness_math_verify": [True, False],
    "correctness_llama": None,
    "finish_reasons": None,
    "correctness_count": 1,
    "messages": [
        {"content": "Solve $x + 2 = 5$.", "role": "user"},
        {"content": "<think>...</think>", "role": "assistant"},
    ],
}
METADATA = {
    "problem": "What is 6 times 7?",
    "deepseek_reasoning": "Six sevens.",
    "deepseek_solution": "It is \\boxed{42}.",
    "ground_truth_solution": "Multiply: $6 \\cdot 7 = \\boxed{42}$.",
    "domain": "math",
    "source": "numina_math",
    "test_cases": None,
    "starter_code": None,
}
THOUGHT = (
    "<|begin_of_thought|>\n\nSix sevens.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nIt is \\boxed{42}.\n\n<|end_of_solution|>"
)
BOXED = "Return your final response within \\boxed{}. What is 6 times 7?"


def outcomes(path: Path | str, verifier: str, **keys: Any) -> list[Outcome]:
    source = Source.model_validate({"source": str(path), **keys})
    without_gold = keys.get("traces") is not None and verifier == "math"
    asked = Asked("d", verifier, str, without_gold=without_gold)
    return list(open_source(source, asked, limit=None).outcomes)


def found(path: Path | str, verifier: str, **keys: Any) -> Found:
    (only,) = outcomes(path, verifier, **keys)
    assert isinstance(only, Found)
    return only


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Dropped)
    return outcome.reason


def test_open_r1_gives_its_generations_as_traces_and_its_verdicts_go_into_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist([OPEN_R1]), path)  # correctness_llama: dtype null
    got = found(path, "math", traces="deepseek-r1")
    assert (got.problem.question, got.problem.gold) == ("Solve $x + 2 = 5$.", "3")
    assert got.answers == (
        Answered("Two less.", "\\boxed{3}", "stop"),
        Answered("Wait, wait", "", "length"),
    )
    assert not [key for key in json.loads(got.problem.meta) if key.startswith("correctness")]
    assert got.problem.place == "train-00000-of-00001.parquet, row 1"


def test_finish_reasons_win_where_they_are_given(lines: WriteLines) -> None:
    row = OPEN_R1 | {"finish_reasons": ["length", "stop"], "is_reasoning_complete": [True, True]}
    got = found(lines("o.jsonl", [row]), "math", traces="r1")
    assert [answer.finish_reason for answer in got.answers] == ["length", "stop"]
    short = OPEN_R1 | {"finish_reasons": ["stop"]}
    with pytest.raises(DataError, match=r"line 1, column 'finish_reasons': wanted 2 values, got l"):
        outcomes(lines("s.jsonl", [short]), "math", traces="r1")


def test_traces_are_read_only_where_the_recipe_names_whose_they_are(lines: WriteLines) -> None:
    assert found(lines("o.jsonl", [OPEN_R1]), "math").answers == ()


def test_open_thoughts_metadata_of_math_has_the_gold_in_a_box(lines: WriteLines) -> None:
    got = found(lines("m.jsonl", [METADATA]), "math", traces="r1")
    assert got.problem.gold == "42"
    assert got.answers == (Answered("Six sevens.", "It is \\boxed{42}.", "stop"),)
    proof = METADATA | {"ground_truth_solution": "By induction."}
    (dropped,) = outcomes(lines("p.jsonl", [proof]), "math")
    assert reason(dropped) == "no_gold"


def test_open_thoughts_metadata_of_code_keeps_tests_and_program(lines: WriteLines) -> None:
    tests = json.dumps({"inputs": ["3\n"], "outputs": ["6\n"]})
    row = METADATA | {"test_cases": tests, "ground_truth_solution": "```python\nprint(6)\n```"}
    got = found(lines("c.jsonl", [row]), "code")
    assert got.problem.gold == "print(6)"
    assert json.loads(got.problem.tests or "")["kind"] == "stdin"


@pytest.mark.parametrize(
    ("author", "content", "user", "assistant"),
    [
        ("from", "value", "user", "assistant"),
        ("from", "value", "human", "gpt"),
        ("role", "content", "user", "assistant"),
        ("role", "content", "human", "gpt"),
    ],
)
@pytest.mark.parametrize("column", ["conversations", "messages"])
def test_conversations_in_every_dress_are_a_question_and_a_trace(
    lines: WriteLines, column: str, author: str, content: str, user: str, assistant: str
) -> None:
    talk = [{author: user, content: BOXED}, {author: assistant, content: THOUGHT}]
    row = {"system": "Your role as an assistant ...", column: talk}
    got = found(lines("t.jsonl", [row]), "none", traces="r1")
    assert got.problem.question == got.problem.prompt == "What is 6 times 7?"
    assert got.answers == (Answered("Six sevens.", "It is \\boxed{42}.", "stop"),)


def test_system_turns_are_passed_over_and_later_turns_are_counted(lines: WriteLines) -> None:
    talk = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "<think>\n\n</think>\n\nHello!"},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Bye."},
    ]
    got = found(lines("t.jsonl", [{"messages": talk}]), "none", traces="r1")
    assert (got.problem.question, got.later_turns) == ("Hello?", 2)
    assert got.answers == (Answered("", "Hello!", "stop"),)


def test_conversations_without_question_or_reply(lines: WriteLines) -> None:
    rows: list[Mapping[str, Any]] = [
        {"conversations": [{"from": "human", "value": "Why?"}]},
        {"conversations": [{"from": "gpt", "value": "Because."}]},
        {"conversations": []},
    ]
    first, second, third = outcomes(lines("t.jsonl", rows), "none", traces="r1")
    assert isinstance(first, Found)
    assert first.answers == ()
    assert [reason(second), reason(third)] == ["no_question", "no_question"]


def test_mixture_of_thoughts_is_messages_with_small_columns_kept(tmp_path: Path) -> None:
    talk = [
        {"content": "You will be given a problem. Please reason step by step, and put your final "
         "answer within \\boxed{}:\nWhat is 1 + 1?", "role": "user"},
        {"content": "<think>\nOne more.\n</think>\n\\boxed{2}", "role": "assistant"},
    ]  # fmt: skip
    row = {"messages": talk, "num_tokens": 12, "source": "open-r1/OpenR1-Math-220k"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "m.parquet")
    got = found(tmp_path / "m.parquet", "math", traces="r1")
    assert got.problem.question == "What is 1 + 1?"
    assert got.problem.gold is None
    assert json.loads(got.problem.meta) == {"num_tokens": 12, "source": "open-r1/OpenR1-Math-220k"}
    (dropped,) = outcomes(tmp_path / "m.parquet", "math")
    assert reason(dropped) == "no_gold"


def test_open_thoughts_2_has_the_question_beside_the_conversation(lines: WriteLines) -> None:
    talk = [{"from": "user", "value": BOXED}, {"from": "assistant", "value": "<think>a</think>42"}]
    row = {"conversations": talk, "question": BOXED, "source": "x", "id": 7}
    got = found(lines("t.jsonl", [row]), "none", traces="r1")
    assert got.problem.question == "What is 6 times 7?"
    assert got.answers == (Answered("a", "42", "stop"),)


def test_light_r1_is_a_json_list_of_share_gpt(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "1 + 1? Please reason step by step, and put your final answer "
         "within \\boxed{}."},
        {"from": "gpt", "value": "<think>\n1\n</think>\n2"},
    ]  # fmt: skip
    path = tmp_path / "stage1-76k.json"
    path.write_text(json.dumps([{"conversations": talk}] * 3))
    got = outcomes(path, "none", traces="r1")
    assert [o.problem.question for o in got if isinstance(o, Found)] == ["1 + 1?"] * 3


def test_both_forms_of_deep_scale_r(tmp_path: Path, lines: WriteLines) -> None:
    plain = {"problem": "1 + 1?", "solution": "Add.", "answer": "2"}
    assert found(lines("d.jsonl", [plain]), "math").problem.gold == "2"
    training = {
        "data_source": "",
        "prompt": [
            {
                "role": "user",
                "content": "1 + 1? Let's think step by step and output the final answer within "
                "\\boxed{}.",
            }
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"split": "train", "index": 0},
    }
    pq.write_table(pa.Table.from_pylist([training]), tmp_path / "t.parquet")
    got = found(tmp_path / "t.parquet", "math").problem
    assert (got.question, got.gold) == ("1 + 1?", "2")


@pytest.mark.parametrize(
    ("golds", "expected"),
    [(["2"], "2"), (["2", " 2 "], "2"), (["2", "3"], "gold_is_many"), ([], "no_gold")],
)
def test_a_list_of_golds_is_one_gold_or_a_reason(
    lines: WriteLines, golds: list[str], expected: str
) -> None:
    row = {"prompt": "1 + 1?", "reward_model": {"ground_truth": golds}}
    (got,) = outcomes(lines("d.jsonl", [row]), "math")
    assert (got.problem.gold if isinstance(got, Found) else reason(got)) == expected


def test_math_has_its_gold_in_the_solution_and_math_500_in_a_column(lines: WriteLines) -> None:
    row = {"problem": "1 + 1?", "level": "Level 1", "type": "Algebra", "solution": "\\boxed{2}"}
    assert found(lines("m.jsonl", [row]), "math").problem.gold == "2"
    row |= {"answer": "two", "subject": "Algebra", "unique_id": "test/algebra/1.json"}
    assert found(lines("n.jsonl", [row]), "math").problem.gold == "two"


def test_live_code_bench_reads_public_and_private_tests(lines: WriteLines) -> None:
    public = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
    private = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(public)))).decode()
    row = {
        "question_title": "Add",
        "question_content": "Add one.",
        "platform": "atcoder",
        "question_id": "abc1",
        "contest_id": "abc",
        "contest_date": "2024-08-03T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": "{}",
    }
    got = found(lines("test5.jsonl", [row]), "code").problem
    assert len(json.loads(got.tests or "")["cases"]) == 2
    assert got.question == "Add one."
    broken = row | {"private_test_cases": "!"}
    with pytest.raises(DataError, match=r"b.jsonl, line 1, column private_test_cases: "):
        outcomes(lines("b.jsonl", [broken]), "code")


def test_mbpp_names_the_function_by_its_tests(lines: WriteLines) -> None:
    row = {"task_id": 1, "text": "Add.", "code": "def f(a): return a", "test_list": ["assert f(1)"],
           "test_setup_code": "", "challenge_test_list": []}  # fmt: skip
    got = found(lines("m.jsonl", [row]), "code").problem
    assert got.question == "Add.\n\nYour code should pass these tests:\nassert f(1)"
    clean = {k: v for k, v in row.items() if k != "text"} | {"prompt": "Sum.", "test_imports": []}
    assert found(lines("s.jsonl", [clean]), "code").problem.question.startswith("Sum.")


def test_gpqa_choices_are_in_the_same_shuffled_order_everywhere(lines: WriteLines) -> None:
    row = {"Question": "Which?", "Correct Answer": "right ", "Incorrect Answer 1": "w1",
           "Incorrect Answer 2": "w2", "Incorrect Answer 3": "w3"}  # fmt: skip
    rows = [row | {"Question": f"Which is {n}?"} for n in range(20)]
    got = [o.problem for o in outcomes(lines("g.jsonl", rows), "choice") if isinstance(o, Found)]
    for problem in got:
        assert f"{problem.gold}. right" in problem.question.splitlines()
    assert {problem.gold for problem in got} == {"A", "B", "C", "D"}
    again = outcomes(lines("h.jsonl", rows), "choice")
    assert [o.problem.id for o in again if isinstance(o, Found)] == [p.id for p in got]


def test_marco_marks_are_reasoning_and_answer(lines: WriteLines) -> None:
    row = {"instruction": "Why?", "response": "<Thought>\nhm\n</Thought>\n<Output>\nso\n</Output>"}
    got = found(lines("m.jsonl", [row]), "none", traces="marco")
    assert got.answers == (Answered("hm", "so", "stop"),)


def test_columns_may_name_reply_and_reasoning(lines: WriteLines) -> None:
    row = {"q": "1 + 1?", "a": "2", "thinking": "one more", "content": "2"}
    columns = {"question": "q", "gold": "a", "reply": "content", "reasoning": "thinking"}
    got = found(lines("m.jsonl", [row]), "math", traces="t", columns=columns)
    assert got.answers == (Answered("one more", "2", "stop"),)
    with pytest.raises(DataError, match=r"no column for 'reply': looked for reply, response"):
        outcomes(lines("n.jsonl", [{"question": "1?", "answer": "2"}]), "math", traces="t")


@pytest.mark.parametrize(
    ("row", "verifier", "message"),
    [
        ({"question": "1?", "answer": {"a": 1}}, "math", "line 2, column 'answer': wanted text or"),
        ({"question": ["a", "b"], "answer": "1"}, "math", "line 2, column 'question': .*list of 2"),
        ({"question": "1?"}, "math", "line 2: no column 'answer', which the first row had"),
    ],
)
def test_a_row_of_another_shape_names_file_row_and_column(
    lines: WriteLines, row: dict[str, Any], verifier: str, message: str
) -> None:
    path = lines("x.jsonl", [{"question": "0?", "answer": "0"}, row])
    with pytest.raises(DataError, match=f"x.jsonl, {message}"):
        outcomes(path, verifier)


def test_a_turn_of_another_shape_is_named(lines: WriteLines) -> None:
    talk = [{"from": "human", "value": "a"}, {"speaker": "x", "text": "b"}]
    with pytest.raises(DataError, match=r"column 'conversations', turn 2: wanted .*'speaker'"):
        outcomes(lines("t.jsonl", [{"conversations": talk}]), "none", traces="t")
    with pytest.raises(DataError, match=r"column 'generations': wanted texts, got list of 1"):
        outcomes(lines("g.jsonl", [OPEN_R1 | {"generations": [3]}]), "math", traces="t")


def test_what_is_no_problem_set_is_refused_with_the_reason(lines: WriteLines) -> None:
    row = {"code": "def f(x): ...", "input": "1", "output": "2"}
    with pytest.raises(DataError, match=r"CRUXEval are no problems: a question would have"):
        outcomes(lines("c.jsonl", [row]), "none")
    pair: dict[str, Any] = {"conversations": [], "chosen": {}, "rejected": {}}
    with pytest.raises(DataError, match=r"pairs of a better and a worse answer"):
        outcomes(lines("p.jsonl", [pair]), "none")


def test_yaml_booleans_are_explained(lines: WriteLines) -> None:
    row = {"problem": "1?", "answer": "1", "problem_is_valid": "Yes"}
    with pytest.raises(DataError, match=r"bare Yes or No as true or false: write \"Yes\""):
        outcomes(lines("n.jsonl", [row]), "math", where={"problem_is_valid": True})


def test_notfound_is_a_problem_without_gold_where_teachers_vote(lines: WriteLines) -> None:
    rows = [{"problem": f"{n}?", "answer": a} for n, a in enumerate(("notfound", "proof", None))]
    source = Source(source=str(lines("n.jsonl", rows)))
    voted = Asked("d", "math", str, without_gold=True)
    first, second, third = open_source(source, voted, limit=None).outcomes
    assert isinstance(first, Found)
    assert isinstance(third, Found)
    assert first.problem.gold is None
    assert third.problem.gold is None
    assert reason(second) == "gold_is_proof"


def test_no_form_is_hidden_by_an_earlier_one() -> None:
    for form in FORMS:
        assert recognise(form.marks) == form, f"{form.name} stands after a form with fewer columns"
    assert recognise(["a"]) is None


def test_licences_are_known_by_hub_id_alone() -> None:
    assert licence_of("AI-MO/NuminaMath-1.5") == "Apache-2.0"
    assert licence_of("openai/GSM8K") == "MIT"
    assert licence_of("open-r1/Mixture-of-Thoughts") is None
    assert licence_of("somewhere/NuminaMath-1.5.parquet") is None
