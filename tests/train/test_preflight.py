import copy
import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase

from cuvee.errors import TrainError
from cuvee.models.template import render_prompt
from cuvee.models.tokens import IGNORED, Encoded, encode_example, text_ids
from cuvee.recipe import Train
from cuvee.records import Example
from cuvee.train.preflight import CHECKS, Checked, Findings, packed_rows, preflight

VOCABULARY = 265
CHATML_THINK = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{{ m['content'].split('</think>')[-1] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)
"""As R1's own: opens the reasoning itself, and drops the reasoning of an assistant's turn."""


def row(number: int = 0, *, reasoning: str = "It is so.", answer: str = "So.") -> Example:
    return Example(
        f"row{number}", f"p{number}", "math", "alice", f"Why {number}?", reasoning, answer, 0
    )


def check(
    rows: list[Example], tokenizer: PreTrainedTokenizerBase, **given: Any
) -> tuple[list[Encoded], Findings]:
    vocabulary = given.pop("vocabulary", VOCABULARY)
    train = Train.model_validate({"max_tokens": 256, "batch_size": 2, **given})
    return preflight(rows, tokenizer, train=train, vocabulary=vocabulary)


def prefilled(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    other = copy.deepcopy(tokenizer)
    other.chat_template = CHATML_THINK
    return other


def test_the_mask_is_what_one_writes_by_hand(tokenizer: PreTrainedTokenizerBase) -> None:
    example = dataclasses.replace(row(), prompt="Hi", reasoning="a", answer="b")
    [encoded], _ = check([example], tokenizer)
    prompt = "<|im_start|> u s e r Ċ H i <|im_end|> Ċ <|im_start|> a s s i s t a n t Ċ".split()
    target = "< t h in k > Ċ a Ċ < / t h in k > Ċ Ċ b <|im_end|>".split()
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == prompt + target
    assert encoded.labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert tokenizer.convert_ids_to_tokens(encoded.labels[len(prompt) :]) == target


def test_a_think_tag_opened_by_the_template_is_not_trained_twice(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    [encoded], findings = check([row()], prefilled(tokenizer))
    trained = [label for label in encoded.labels if label != IGNORED]
    assert findings.think_opened_by_prompt
    assert tokenizer.decode(trained) == "It is so.\n</think>\n\nSo.<|im_end|>"


def test_the_figures_are_those_of_the_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [row(n, reasoning="word " * (n % 5 + 1)) for n in range(9)]
    encoded, findings = check(rows, tokenizer, epochs=2.5, batch_size=2)
    assert findings.tokens == sum(len(e.input_ids) for e in encoded)
    assert findings.answer_tokens == sum(
        len(text_ids(tokenizer, f"<think>\n{r.reasoning.strip()}\n</think>\n\nSo.<|im_end|>"))
        for r in rows
    )
    assert findings.longest == max(len(e.input_ids) for e in encoded)
    assert findings.packing_efficiency == findings.tokens / (findings.rows * 256)
    assert findings.steps_per_epoch == math.ceil(findings.rows / 2)
    assert findings.steps == math.ceil(2.5 * findings.steps_per_epoch)


def test_without_packing_each_example_is_a_row(tokenizer: PreTrainedTokenizerBase) -> None:
    _, findings = check([row(n) for n in range(5)], tokenizer, packing=False, epochs=1)
    assert (findings.rows, findings.steps, findings.packing_efficiency) == (5, 3, None)


def test_what_is_too_long_is_dropped_by_name_and_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    long = row(1, reasoning="x" * 300)
    encoded, findings = check([row(0), long, row(2)], tokenizer)
    assert len(encoded) == findings.kept == 2
    assert findings.dropped_too_long == ["row1"]
    assert findings.answer_tokens_dropped > 300
    assert all(len(e.input_ids) <= 256 for e in encoded)


def test_a_row_of_exactly_the_limit_is_kept(tokenizer: PreTrainedTokenizerBase) -> None:
    e = row()
    tokens = len(encode_example(tokenizer, e.prompt, e.reasoning, e.answer).input_ids)
    assert check([e], tokenizer, max_tokens=tokens)[1].kept == 1
    with pytest.raises(TrainError, match=f"the shortest has {tokens} tokens"):
        check([e], tokenizer, max_tokens=tokens - 1)


def test_an_empty_set_names_the_cause(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TrainError, match="training set is empty"):
        check([], tokenizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reasoning": "so </think> far"}, "do not stand once each"),
        ({"answer": "<think> again"}, "do not stand once each"),
        ({"answer": "So.<|im_end|> More."}, "the end of the turn is not the last"),
    ],
)
def test_text_that_breaks_the_frame_is_refused_by_row(
    tokenizer: PreTrainedTokenizerBase, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(TrainError, match=message) as error:
        check([row(0), row(1, **changes), row(2)], tokenizer)
    assert "1 rows: row1" in str(error.value)


def test_many_broken_rows_are_counted_and_some_named(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TrainError, match="8 rows: row0, row1, row2, row3, row4 and 3 more"):
        check([row(n, answer="</think>") for n in range(8)], tokenizer)


def test_a_tokenizer_that_rewrites_the_reasoning_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    lossy = copy.deepcopy(tokenizer)
    lossy.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(TrainError, match="not in the trained tokens as written"):
        check([row()], lossy)


def test_a_tokenizer_that_composes_characters_is_no_fault(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    composing = copy.deepcopy(tokenizer)
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    decomposed = "e\u0301t\u00e9"
    assert check([row(reasoning=decomposed)], composing)[1].kept == 1


def test_ids_outside_the_model_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TrainError, match="outside the model's vocabulary"):
        check([row()], tokenizer, vocabulary=100)


def checked(tokenizer: PreTrainedTokenizerBase, ids: list[int], labels: list[int]) -> Checked:
    rendered = render_prompt(tokenizer, row().prompt)
    target = tokenizer.decode([label for label in labels if label != IGNORED][:-1])
    prompt_ids = text_ids(tokenizer, rendered)
    return Checked(row(), Encoded(ids, labels), rendered, prompt_ids, target, 2, VOCABULARY)


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ("none", set()),
        ("prompt_in_loss", {"a token of the prompt is inside the loss"}),
        ("hole", {"a token of the target is outside the loss"}),
        (
            "end_masked",
            {
                "a token of the target is outside the loss",
                "the end of the turn is not the last trained token, and that alone",
            },
        ),
        ("prompt_differs", {"the prompt's tokens are not the beginning of the row"}),
    ],
)
def test_each_fault_of_the_mask_is_seen(
    tokenizer: PreTrainedTokenizerBase, fault: str, broken: set[str]
) -> None:
    e = row()
    encoded = encode_example(tokenizer, e.prompt, e.reasoning, e.answer)
    ids, labels = list(encoded.input_ids), list(encoded.labels)
    start = labels.index(next(label for label in labels if label != IGNORED))
    if fault == "prompt_in_loss":
        labels[start - 1] = ids[start - 1]
    elif fault == "hole":
        labels[-2] = IGNORED
    elif fault == "end_masked":
        labels[-1] = IGNORED
    elif fault == "prompt_differs":
        ids[1] = ids[2]
    seen = {name for name, holds in CHECKS.items() if not holds(checked(tokenizer, ids, labels))}
    text = {"reasoning or answer is not in the trained tokens as written"}
    assert seen - text == broken


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_packing_needs_no_fewer_rows_than_the_tokens_and_no_more_than_one_a_row(
    lengths: list[int],
) -> None:
    rows = [Encoded([7] * n, [7] * n) for n in lengths]
    assert math.ceil(sum(lengths) / 40) <= packed_rows(rows, 40) <= len(lengths)
