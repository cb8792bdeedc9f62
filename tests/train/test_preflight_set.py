"""Of the whole set: packing, held-out problems, tokenizer against model."""

import copy
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase
from trl.data_utils import pack_dataset

from cuvee.errors import DataError, TrainError
from cuvee.models.checkpoint import load_tokenizer
from cuvee.recipe import Train
from cuvee.records import Example, write_rows
from cuvee.train.preflight import PACKING, Finding, packed_lengths, preflight, row_ids
from cuvee.train.preflight.agreement import agreement, read_config
from cuvee.train.preflight.held_out import held_out_problems

Agree = Callable[..., list[Finding]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_packed_rows_are_those_trl_makes(lengths: list[int]) -> None:
    made = pack_dataset(Dataset.from_dict({"input_ids": [[7] * n for n in lengths]}), 40, PACKING)
    assert packed_lengths(lengths, 40) == [len(ids) for ids in made["input_ids"]]


def test_packing_is_done_a_thousand_rows_at_a_time_as_trl_does() -> None:
    lengths = [31, *[10] * 998, 20, 9, *[30] * 501]
    made = pack_dataset(Dataset.from_dict({"input_ids": [[7] * n for n in lengths]}), 40, PACKING)
    assert packed_lengths(lengths, 40) == [len(ids) for ids in made["input_ids"]]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_packing_loses_nothing_and_needs_no_more_rows_than_examples(lengths: list[int]) -> None:
    packed = packed_lengths(lengths, 40)
    assert sum(packed) == sum(lengths)
    assert math.ceil(sum(lengths) / 40) <= len(packed) <= len(lengths)
    assert max(packed) <= 40


@given(st.sets(st.text(max_size=4), min_size=2, max_size=40), st.floats(0.001, 0.5))
def test_some_problems_are_held_out_and_some_are_left(problems: set[str], share: float) -> None:
    held = held_out_problems(problems, share)
    assert 0 < len(held) < len(problems)
    assert held <= problems


def test_a_problem_stands_on_the_same_side_in_every_set() -> None:
    math_set, code_set = {f"m{n}" for n in range(200)}, {f"c{n}" for n in range(300)}
    apart = held_out_problems(math_set, 0.1) | held_out_problems(code_set, 0.1)
    assert held_out_problems(math_set | code_set, 0.1) == apart


def test_the_share_of_many_problems_is_about_what_is_asked() -> None:
    held = held_out_problems((f"problem {n}" for n in range(20_000)), 0.1)
    assert 1_850 < len(held) < 2_150  # 2,000, with a standard deviation of 42


@pytest.mark.parametrize(("problems", "share"), [(["a", "b"], 0.0), (["a"], 0.5), ([], 0.5)])
def test_nothing_is_held_out_of_one_problem_or_where_nothing_is_asked(
    problems: list[str], share: float
) -> None:
    assert held_out_problems(problems, share) == frozenset()


def examples(count: int, *, problems: int) -> list[Example]:
    return [
        Example(f"row{n}", f"p{n % problems}", "m", "t", f"Why {n % problems}?", f"So {n}.", "a", 0)
        for n in range(count)
    ]


def run(
    rows: list[Example], tokenizer: PreTrainedTokenizerBase, base: Path, out: Path, **train: Any
) -> Any:
    write_rows(out / "examples.parquet", rows, Example)
    settings_ = Train.model_validate({"max_tokens": 256, "batch_size": 2, **train})
    return preflight(out / "examples.parquet", tokenizer, base=base, train=settings_, out=out)


def test_all_examples_of_a_problem_stand_on_one_side_and_are_counted_once(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = examples(60, problems=20)
    findings = run(rows, tokenizer, base, tmp_path, held_out=0.2, packing=False)
    held = set(findings.held_out_ids)
    problems = {row.problem_id for row in rows if row.id in held}
    assert held == {row.id for row in rows if row.problem_id in problems}
    assert (findings.kept, findings.rows) == (60, 60 - findings.held_out)
    assert not any(found.check == "prompt_on_both_sides" for found in findings.findings)


def test_a_question_on_both_sides_is_reported(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = [dataclasses.replace(row, prompt="The same?") for row in examples(8, problems=8)]
    findings = run(rows, tokenizer, base, tmp_path, held_out=0.5)
    assert "prompt_on_both_sides" in [found.check for found in findings.findings]


def test_one_problem_alone_cannot_be_held_out(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=r"train.held_out = 0.5 leaves no example held out"):
        run(examples(4, problems=1), tokenizer, base, tmp_path, held_out=0.5)


@pytest.mark.parametrize("kept_share", [0, 1])
def test_problems_whose_rows_are_all_too_long_leave_no_side_empty(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, kept_share: int
) -> None:
    """Whichever side they would have stood on: the choice is among what is kept."""
    rows = examples(6, problems=6)
    held = held_out_problems([row.problem_id for row in rows], 0.4)
    long = [
        dataclasses.replace(row, reasoning="x" * 300)
        if (row.problem_id in held) is (kept_share == 0)
        else row
        for row in rows
    ]
    findings = run(long, tokenizer, base, tmp_path, held_out=0.4)
    kept = {row.problem_id for row in long if len(row.reasoning) < 300}
    assert len(kept) > 1
    chosen = {row.problem_id for row in rows if row.id in findings.held_out_ids}
    assert chosen == held_out_problems(kept, 0.4)
    assert 0 < findings.held_out < findings.kept
    assert row_ids(tmp_path, held_out=True) == findings.held_out_ids


def test_memory_and_time_are_estimated_with_what_they_rest_on(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    few = run(examples(8, problems=8), tokenizer, base, tmp_path, epochs=1)
    assert few.memory is not None
    assert few.seconds is not None
    assert few.memory["total"] > few.memory["weights"] > 0
    assert few.memory["assumptions"][-1].startswith("time: ")
    more = run(examples(8, problems=8), tokenizer, base, tmp_path, epochs=100)
    assert more.seconds is not None
    assert more.seconds >= few.seconds


def test_a_model_of_unknown_shape_has_no_estimate_and_says_so(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    other = tmp_path / "base"
    shutil.copytree(base, other)
    said = json.loads((other / "config.json").read_text()) | {"model_type": "mistral"}
    (other / "config.json").write_text(json.dumps(said))
    findings = run(examples(4, problems=4), tokenizer, other, tmp_path)
    assert (findings.memory, findings.seconds) == (None, None)
    assert named(findings.findings) == [("note", "memory_unknown")]


@pytest.fixture
def agree(base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Agree:
    """Return what compares a tokenizer with a base whose JSON files have been changed."""

    def found(
        other: PreTrainedTokenizerBase | None = None,
        *,
        config: dict[str, Any] | None = None,
        generation: dict[str, Any] | None = None,
        **train: Any,
    ) -> list[Finding]:
        folder = tmp_path / "base"
        shutil.copytree(base, folder)
        for name, changes in (("config.json", config), ("generation_config.json", generation)):
            said = json.loads((folder / name).read_text()) | (changes or {})
            (folder / name).write_text(json.dumps(said))
        given_train = Train.model_validate({"max_tokens": 256, **train})
        return agreement(
            other or tokenizer,
            folder,
            config=read_config(folder),
            train=given_train,
            end="<|im_end|>",
        )

    return found


def named(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(found.level, found.check) for found in findings]


def test_a_base_that_agrees_with_itself_has_no_findings(agree: Agree) -> None:
    assert agree() == []


def test_rows_longer_than_the_model_s_context_are_refused(agree: Agree) -> None:
    [found] = agree(max_tokens=5000)
    assert (found.level, found.check) == ("error", "context_too_short")
    assert "set train.max_tokens to at most 4096" in found.message


@pytest.mark.parametrize("vocabulary", [264, 400])
def test_a_vocabulary_of_another_size_is_reported(agree: Agree, vocabulary: int) -> None:
    assert named(agree(config={"vocab_size": vocabulary})) == [("warning", "vocabulary")]


def test_an_embedding_that_is_rounded_up_is_no_finding(agree: Agree) -> None:
    assert agree(config={"vocab_size": 268}) == []


def test_added_tokens_are_reported(agree: Agree, tokenizer: PreTrainedTokenizerBase) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<mine>"])
    [found] = agree(other, config={"vocab_size": 266})
    assert found.check == "added_tokens"
    assert "<mine>" in found.message


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({}, {"eos_token_id": [0, 2]}, []),
        ({"eos_token_id": 0}, {}, []),
        ({}, {"eos_token_id": 0}, [("warning", "end_of_turn_config")]),
        ({"eos_token_id": 0}, {"eos_token_id": None}, [("warning", "end_of_turn_config")]),
        ({"eos_token_id": None}, {"eos_token_id": None}, [("warning", "end_of_turn_config")]),
    ],
)
def test_a_base_that_does_not_stop_at_the_end_of_a_turn_is_reported(
    agree: Agree,
    config: dict[str, Any],
    generation: dict[str, Any],
    expected: list[tuple[str, str]],
) -> None:
    assert named(agree(config=config, generation=generation)) == expected


def test_padding_with_the_end_of_the_turn_is_a_note(
    agree: Agree, tokenizer: PreTrainedTokenizerBase
) -> None:
    other = copy.deepcopy(tokenizer)
    other.pad_token = other.eos_token
    assert named(agree(other)) == [("note", "pad_token")]


@pytest.mark.parametrize(("packing", "level"), [(True, "note"), (False, "error")])
def test_padding_outside_the_vocabulary_is_refused_where_rows_are_padded(
    agree: Agree, tokenizer: PreTrainedTokenizerBase, *, packing: bool, level: str
) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"pad_token": "<pad>"})
    found = agree(other, packing=packing)
    assert (level, "pad_token") in named(found)
    assert {"vocabulary", "added_tokens"} <= {check for _, check in named(found)}


def test_a_broken_generation_config_is_named(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base" / "generation_config.json").write_text("[]")
    with pytest.raises(DataError, match="not a readable generation config"):
        run(examples(2, problems=2), tokenizer, tmp_path / "base", tmp_path)


def test_a_template_that_was_mended_is_in_the_findings(base: Path, tmp_path: Path) -> None:
    other = load_tokenizer(base)
    other.chat_template = None
    findings = run(examples(2, problems=2), other, base, tmp_path)
    assert findings.template_changes
    assert [found.check for found in findings.findings] == ["template_changed"]
    assert other.chat_template, "changed in place"
