"""A packed row is its parts: same loss, same gradients; with our loss and with TRL's."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from cuvee.models.tokens import IGNORED, Encoded
from cuvee.train.labelled import labelled_loss
from cuvee.train.preflight import PACKING, dataset

Loss = Callable[[torch.nn.Module, dict[str, Any]], torch.Tensor]


def trl_loss(model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    out = model(**inputs, use_cache=False, fused_lm_head=True)
    loss: torch.Tensor = -out.log_probs.sum() / out.label_mask.sum()
    return loss


def rows_of(lengths: list[int]) -> list[Encoded]:
    rng = random.Random(1)
    rows = []
    for length in lengths:
        ids = [rng.randrange(3, 265) for _ in range(length)]
        prompt = max(1, length // 3)
        rows.append(Encoded(ids, [IGNORED] * prompt + ids[prompt:]))
    return rows


def batches(rows: list[Encoded], *, packed: bool) -> list[dict[str, Any]]:
    data = pack_dataset(dataset(rows), 64, PACKING) if packed else dataset(rows)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packed)
    return [dict(collate([row])) for row in data]


def gradients(base: Path, inputs: list[dict[str, Any]], loss: Loss) -> dict[str, Any]:
    """Return the token-weighted mean loss over batches, and its gradient of each weight."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    add_fused_lm_head(model)
    labels = [int((i["labels"][:, 1:] != IGNORED).sum()) for i in inputs]
    total = sum(loss(model, i) * n for i, n in zip(inputs, labels, strict=True)) / sum(labels)
    torch.as_tensor(total).backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad for name, p in model.named_parameters()}
    return {"loss": torch.as_tensor(total).detach(), **found}


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=2e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("loss", [labelled_loss, trl_loss], ids=["ours", "trl"])
def test_a_packed_row_has_the_loss_and_gradients_of_its_parts(base: Path, loss: Loss) -> None:
    rows = rows_of([20, 30, 14, 33, 22])
    together, apart = batches(rows, packed=True), batches(rows, packed=False)
    assert len(together) == 2
    assert len(apart) == 5
    assert_same(gradients(base, together, loss), gradients(base, apart, loss))


@pytest.mark.parametrize("packed", [True, False])
def test_the_loss_of_labelled_positions_is_that_of_trl(base: Path, *, packed: bool) -> None:
    inputs = batches(rows_of([20, 30, 14, 33]), packed=packed)
    assert_same(gradients(base, inputs, labelled_loss), gradients(base, inputs, trl_loss))


def test_padded_rows_of_a_batch_count_by_their_labels(base: Path) -> None:
    rows = rows_of([20, 31, 14])
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    padded = dict(collate([{"input_ids": r.input_ids, "labels": r.labels} for r in rows]))
    apart = batches(rows, packed=False)
    assert_same(gradients(base, [padded], labelled_loss), gradients(base, apart, labelled_loss))


def test_a_batch_without_labels_is_zero_and_not_nan(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.full((1, 3), IGNORED)}
    assert labelled_loss(model, inputs).item() == 0.0
