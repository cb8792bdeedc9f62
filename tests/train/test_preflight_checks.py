"""Each check of a row sees its own fault, and no other's."""

import copy
import dataclasses

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from cuvee.records import Example
from cuvee.train.preflight.checks import ROW_CHECKS, broken_rows, frame_of
from cuvee.train.preflight.encode import Batch, encode

VOCABULARY = 265
END = "<|im_end|>"


def example(number: int) -> Example:
    return Example(f"row{number}", "p", "d", "t", f"Why {number}?", "It is so.", f"{number}", 0)


def batch_of(tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Return three rows; the tests break the second."""
    return encode([example(n) for n in range(3)], tokenizer, end=END)


def broken(
    batch: Batch, tokenizer: PreTrainedTokenizerBase, vocabulary: int = VOCABULARY
) -> set[str]:
    """Return the checks the second row breaks; the others break none."""
    frame = frame_of(tokenizer, end=END, vocabulary=vocabulary)
    found = broken_rows(batch, tokenizer, frame)
    assert set(found) == set(ROW_CHECKS)
    assert not any(rows[0] or rows[2] for rows in found.values())
    return {name for name, rows in found.items() if rows[1]}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("none", set()),
        ("prompt_in_loss", {"prompt_in_loss"}),
        ("hole", {"target_outside_loss"}),
        ("end_masked", {"target_outside_loss", "end_of_turn"}),
        ("end_twice", {"end_of_turn"}),
        ("prompt_differs", {"prompt_not_prefix"}),
        ("outside", {"outside_vocabulary"}),
        ("another_target", {"text_changed"}),
    ],
)
def test_each_fault_of_the_tokens_is_seen(
    tokenizer: PreTrainedTokenizerBase, fault: str, expected: set[str]
) -> None:
    batch = batch_of(tokenizer)
    ids, labels = batch.ids.copy(), batch.labels.copy()
    begin, end = int(batch.starts[1]), int(batch.starts[2])
    target = begin + int(batch.prompt_lengths[1])
    letter = tokenizer.convert_tokens_to_ids("z")
    if fault == "prompt_in_loss":
        labels[target - 1] = ids[target - 1]
    elif fault == "hole":
        labels[end - 2] = -100
    elif fault == "end_masked":
        labels[end - 1] = -100
    elif fault == "end_twice":
        ids[end - 2] = labels[end - 2] = ids[end - 1]
    elif fault == "prompt_differs":
        ids[begin + 1] = letter
    elif fault == "outside":
        ids[begin + 9] = batch.prompt_ids[len(batch.prompt_ids) // 3 + 9] = VOCABULARY
    elif fault == "another_target":
        ids[end - 2] = labels[end - 2] = letter
    found = broken(dataclasses.replace(batch, ids=ids, labels=labels), tokenizer)
    # What stands in a broken row is rarely still the text of its example.
    assert found - {"text_changed", "prompt_rewritten"} == expected - {"text_changed"}
    assert "text_changed" in found or "text_changed" not in expected


def test_a_small_model_s_missing_rows_are_seen(tokenizer: PreTrainedTokenizerBase) -> None:
    frame = frame_of(tokenizer, end=END, vocabulary=100)
    assert broken_rows(batch_of(tokenizer), tokenizer, frame)["outside_vocabulary"].all()


def test_tags_that_are_tokens_of_their_own_are_no_special_ones(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens([AddedToken(tag, special=True) for tag in ("<think>", "</think>")])
    assert broken(batch_of(other), other, vocabulary=VOCABULARY + 2) == set()


def test_text_without_a_token_is_seen(tokenizer: PreTrainedTokenizerBase) -> None:
    other = copy.deepcopy(tokenizer)
    other.unk_token = "q"  # any token: what matters is that rows hold it
    rows = [example(0), dataclasses.replace(example(1), prompt="a q?"), example(2)]
    assert broken(encode(rows, other, end=END), other) == {"unknown_tokens"}


def test_a_prompt_that_the_template_changes_is_seen(tokenizer: PreTrainedTokenizerBase) -> None:
    other = copy.deepcopy(tokenizer)
    other.chat_template = str(tokenizer.chat_template).replace(
        "message['content']", "message['content'] | replace('@', '')"
    )
    rows = [example(0), dataclasses.replace(example(1), prompt="a@b?"), example(2)]
    assert broken(encode(rows, other, end=END), other) == {"prompt_rewritten"}


def test_some_rows_of_a_batch_are_a_batch(tokenizer: PreTrainedTokenizerBase) -> None:
    chosen = batch_of(tokenizer).only(np.array([True, False, True]))
    alone = encode([example(0), example(2)], tokenizer, end=END)
    assert chosen.examples == alone.examples
    assert chosen.prompts == alone.prompts
    for name in ("prompt_ids", "prompt_lengths", "ids", "labels", "starts"):
        assert np.array_equal(getattr(chosen, name), getattr(alone, name))
