"""The preflight on files of examples: what is written, what is counted, what is refused."""

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase

from cuvee.errors import DataError, TrainError
from cuvee.models.tokens import IGNORED, encode_example, text_ids
from cuvee.recipe import Train
from cuvee.records import Example, write_rows
from cuvee.train.preflight import Findings, encode, preflight, read_findings, row_ids, tokenised

CHATML_THINK = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{{ m['content'].split('</think>')[-1] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)
"""As R1's own: opens the reasoning itself, and drops the reasoning of an assistant's turn."""

Check = Callable[..., Findings]


def row(number: int = 0, *, reasoning: str = "It is so.", answer: str = "So.") -> Example:
    return Example(
        f"row{number}", f"p{number}", "math", "alice", f"Why {number}?", reasoning, answer, 0
    )


@pytest.fixture
def check(base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Check:
    """Return what runs the preflight over rows into `tmp_path/out`; keywords are of `train`."""

    def run(
        rows: Sequence[Example], other: PreTrainedTokenizerBase | None = None, **train: Any
    ) -> Findings:
        write_rows(tmp_path / "examples.parquet", rows, Example)
        return preflight(
            tmp_path / "examples.parquet",
            copy.deepcopy(other or tokenizer),
            base=base,
            train=Train.model_validate({"max_tokens": 256, "batch_size": 2, **train}),
            out=tmp_path / "out",
        )

    return run


def written(tmp_path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(tmp_path / "out" / "tokens.parquet").to_pylist())


def checks(findings: Findings) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    return {found.check: (found.level, found.count, found.ids) for found in findings.findings}


def test_the_mask_is_what_one_writes_by_hand(
    check: Check, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    check([dataclasses.replace(row(), prompt="Hi", reasoning="a", answer="b")])
    [found] = written(tmp_path)
    prompt = "<|im_start|> u s e r Ċ H i <|im_end|> Ċ <|im_start|> a s s i s t a n t Ċ".split()
    target = "< t h in k > Ċ a Ċ < / t h in k > Ċ Ċ b <|im_end|>".split()
    assert tokenizer.convert_ids_to_tokens(found["input_ids"]) == prompt + target
    assert found["labels"][: len(prompt)] == [IGNORED] * len(prompt)
    assert tokenizer.convert_ids_to_tokens(found["labels"][len(prompt) :]) == target


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(*3 * [st.text(st.characters(exclude_categories=["Cs"]), max_size=30)]),
        min_size=1,
        max_size=8,
    )
)
def test_rows_in_batches_are_those_of_one_at_a_time(
    tokenizer: PreTrainedTokenizerBase, texts: list[tuple[str, str, str]]
) -> None:
    examples = [Example(f"{n}", "p", "d", "t", *text, 0) for n, text in enumerate(texts)]
    batch = encode.encode(examples, tokenizer, end="<|im_end|>")
    for number, text in enumerate(texts):
        one = encode_example(tokenizer, *text)
        begin, end = batch.starts[number : number + 2]
        assert batch.ids[begin:end].tolist() == one.input_ids
        assert batch.labels[begin:end].tolist() == one.labels


def test_batches_change_nothing(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(n, reasoning="word " * (n % 7 + 1) + "x" * (300 * (n == 5))) for n in range(23)]
    whole, before = check(rows, held_out=0.3), written(tmp_path)
    monkeypatch.setattr(encode, "BATCH_ROWS", 3)
    assert check(rows, held_out=0.3) == whole
    assert written(tmp_path) == before


def test_a_think_tag_opened_by_the_template_is_not_trained_twice(
    check: Check, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    other = copy.deepcopy(tokenizer)
    other.chat_template = CHATML_THINK
    findings = check([row()], other)
    trained = [label for label in written(tmp_path)[0]["labels"] if label != IGNORED]
    assert findings.think_opened_by_prompt
    assert tokenizer.decode(trained) == "It is so.\n</think>\n\nSo.<|im_end|>"


def test_the_figures_are_those_of_the_rows(
    check: Check, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = [row(n, reasoning="word " * (n % 5 + 1)) for n in range(9)]
    findings = check(rows, epochs=2.5)
    lengths = [len(found["input_ids"]) for found in written(tmp_path)]
    assert findings.tokens == sum(lengths)
    assert findings.answer_tokens == sum(
        len(text_ids(tokenizer, f"<think>\n{r.reasoning.strip()}\n</think>\n\nSo.<|im_end|>"))
        for r in rows
    )
    assert findings.longest == max(lengths)
    assert findings.packing_efficiency == findings.tokens / (findings.rows * 256)
    assert findings.steps_per_epoch == math.ceil(findings.rows / 2)
    assert findings.steps == math.ceil(2.5 * findings.steps_per_epoch)


def test_without_packing_each_example_is_a_row(check: Check) -> None:
    findings = check([row(n) for n in range(5)], packing=False, epochs=1)
    assert (findings.rows, findings.steps, findings.packing_efficiency) == (5, 3, None)


def test_processes_that_share_a_sequence_read_the_same_rows(
    base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    write_rows(tmp_path / "e.parquet", [row(n) for n in range(8)], Example)
    train = Train.model_validate(
        {"max_tokens": 256, "batch_size": 4, "packing": False, "epochs": 1}
        | {"launcher": {"gpus": 4, "sequence_parallel": 4}}
    )
    found = preflight(
        tmp_path / "e.parquet", tokenizer, base=base, train=train, out=tmp_path, processes=4
    )
    assert found.steps == 2  # 8 rows, 4 a step; four processes read each together


def test_what_is_too_long_is_dropped_by_name_and_counted(check: Check, tmp_path: Path) -> None:
    findings = check([row(0), row(1, reasoning="x" * 300), row(2)])
    assert findings.kept == 2
    assert [found["id"] for found in written(tmp_path)] == ["row0", "row2"]
    assert findings.dropped_too_long == ["row1"]
    # Bytes are tokens here: <think>\n, \n</think>\n\n, "So." and the end ("in" is one token).
    assert findings.answer_tokens_dropped == 300 + (7 + 1 - 1) + (1 + 8 - 1 + 2) + 3 + 1
    assert checks(findings)["too_long"] == ("warning", 1, ("row1",))


def test_a_row_of_exactly_the_limit_is_kept(
    check: Check, tokenizer: PreTrainedTokenizerBase
) -> None:
    e = row()
    tokens = len(encode_example(tokenizer, e.prompt, e.reasoning, e.answer).input_ids)
    assert check([e], max_tokens=tokens).kept == 1
    with pytest.raises(TrainError, match=f"the shortest has {tokens} tokens"):
        check([e], max_tokens=tokens - 1)


def test_every_length_is_in_one_bin_and_the_limit_is_an_edge(
    check: Check, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [row(n, reasoning="x" * (7 * n)) for n in range(60)]
    findings = check(rows, max_tokens=200)
    edges, counts = findings.lengths["edges"], findings.lengths["counts"]
    lengths = [
        len(encode_example(tokenizer, e.prompt, e.reasoning, e.answer).input_ids) for e in rows
    ]
    bins = pairwise(edges)
    assert counts == [sum(low < n <= high for n in lengths) for low, high in bins]
    assert sum(counts) == 60
    assert sum(counts[: edges.index(200)]) == findings.kept


def test_an_empty_set_names_the_cause(check: Check, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="training set is empty"):
        check([])
    assert [found.check for found in read_findings(tmp_path / "out").errors] == ["empty"]
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reasoning": "so </think> far"}, "do not stand once each"),
        ({"answer": "<think> again"}, "do not stand once each"),
        ({"answer": "So.<|im_end|> More."}, "the end of the turn is not the last"),
    ],
)
def test_text_that_breaks_the_frame_is_refused_by_row(
    check: Check, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(TrainError, match=message) as error:
        check([row(0), row(1, **changes), row(2)])
    assert "1 row: row1" in str(error.value)


def test_many_broken_rows_are_counted_and_some_named(check: Check, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="25 rows: row0, row1, row2, row3, row4 and 20 more"):
        check([row(n, answer="</think>") for n in range(25)])
    [found] = read_findings(tmp_path / "out").errors
    assert (found.check, found.count) == ("think_tags", 25)
    assert found.ids == tuple(f"row{n}" for n in range(20))


def test_every_error_is_named_at_once(check: Check) -> None:
    with pytest.raises(TrainError) as error:
        check([row(0, answer="</think>"), row(1, answer="a<|im_end|>")])
    assert "1 row: row0" in str(error.value)
    assert "1 row: row1" in str(error.value)


def test_a_tokenizer_that_rewrites_the_reasoning_is_refused(
    check: Check, tokenizer: PreTrainedTokenizerBase
) -> None:
    lossy = copy.deepcopy(tokenizer)
    lossy.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(TrainError, match="not in the trained tokens as written"):
        check([row()], lossy)


def test_a_tokenizer_that_composes_characters_is_no_fault(
    check: Check, tokenizer: PreTrainedTokenizerBase
) -> None:
    composing = copy.deepcopy(tokenizer)
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    assert check([row(reasoning="e\u0301t\u00e9")], composing).kept == 1


def test_special_tokens_in_texts_are_reported_by_row(check: Check) -> None:
    rows = [
        row(0),
        row(1, reasoning="then <|endoftext|> so"),
        dataclasses.replace(row(2), prompt="What is <|im_start|>?"),
    ]
    found = checks(check(rows))
    assert found["special_in_text"] == ("warning", 1, ("row1",))
    assert found["special_in_prompt"] == ("warning", 1, ("row2",))


def test_rows_without_reasoning_are_counted(check: Check) -> None:
    findings = check([row(0), row(1, reasoning=" \n")])
    assert findings.without_reasoning == 1
    assert checks(findings)["without_reasoning"] == ("warning", 1, ("row1",))


def test_equal_rows_are_duplicates_whatever_their_ids(check: Check) -> None:
    rows = [row(0), row(1), dataclasses.replace(row(0), id="again"), row(2)]
    findings = check(rows)
    assert findings.duplicates == 1
    assert checks(findings)["duplicates"] == ("warning", 1, ("again",))


def test_bf16_weights_are_a_warning(check: Check) -> None:
    assert checks(check([row()], weights="bf16"))["bf16_weights"] == ("warning", 0, ())


def test_a_clean_set_has_no_findings(check: Check) -> None:
    assert check([row(n) for n in range(4)]).findings == []


def test_what_was_found_is_read_as_it_was_written(check: Check, tmp_path: Path) -> None:
    findings = check([row(0), row(0), row(1, reasoning="x" * 300)])
    assert len(findings.findings) == 2
    assert read_findings(tmp_path / "out") == findings
    assert json.loads((tmp_path / "out" / "preflight.json").read_text())["examples"] == 3


def test_a_broken_record_of_findings_is_named(tmp_path: Path) -> None:
    (tmp_path / "preflight.json").write_text("{}")
    with pytest.raises(DataError, match=r"preflight\.json: not the findings"):
        read_findings(tmp_path)


def test_the_trainer_gets_the_written_rows_of_each_side(check: Check, tmp_path: Path) -> None:
    findings = check([row(n) for n in range(20)], held_out=0.25)
    assert 0 < findings.held_out < 20
    rows = written(tmp_path)
    for side in (True, False):
        expected = [found for found in rows if found["held_out"] is side]
        given_rows = tokenised(tmp_path / "out", held_out=side)
        assert given_rows.column_names == ["input_ids", "labels"]
        assert given_rows[:]["input_ids"] == [found["input_ids"] for found in expected]
        assert given_rows[:]["labels"] == [found["labels"] for found in expected]
        assert row_ids(tmp_path / "out", held_out=side) == [found["id"] for found in expected]
        assert given_rows.cache_files, "memory-mapped"
    assert row_ids(tmp_path / "out", held_out=True) == findings.held_out_ids


def test_a_second_preflight_replaces_what_the_trainer_gets(check: Check, tmp_path: Path) -> None:
    check([row(n) for n in range(3)])
    assert len(tokenised(tmp_path / "out", held_out=False)) == 3
    check([row(n) for n in range(5)])
    assert len(tokenised(tmp_path / "out", held_out=False)) == 5


def test_rows_that_nobody_wrote_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokens\.parquet: no such file"):
        tokenised(tmp_path, held_out=False)
