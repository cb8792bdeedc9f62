"""A packed row is its parts: same loss, same gradients; with our loss and with TRL's."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import AutoModelForCausalLM
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from cuvee.models.tokens import IGNORED, Encoded
from cuvee.recipe import Lora
from cuvee.train.arguments import lora_config
from cuvee.train.labelled import labelled_loss
from cuvee.train.preflight import PACKING

pytestmark = pytest.mark.filterwarnings(
    # peft uses the old names; transformers warns of them until version 6.
    "ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning"
)
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


def dataset(rows: list[Encoded]) -> Dataset:
    return Dataset.from_dict(
        {"input_ids": [r.input_ids for r in rows], "labels": [r.labels for r in rows]}
    )


def batches(rows: list[Encoded], *, packed: bool) -> list[dict[str, Any]]:
    data = pack_dataset(dataset(rows), 64, PACKING) if packed else dataset(rows)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packed)
    return [dict(collate([row])) for row in data]


def gradients(
    base: Path,
    inputs: list[dict[str, Any]],
    loss: Loss,
    *,
    attention: str = "sdpa",
    checkpointing: bool = False,
    lora: bool = False,
) -> dict[str, Any]:
    """Return the token-weighted mean loss over batches, and its gradient of each weight."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation=attention
    )
    add_fused_lm_head(model)
    if lora:
        torch.manual_seed(4)
        model = get_peft_model(model, lora_config(Lora(rank=4, dropout=0.0)))
        for name, weight in model.named_parameters():  # else B is 0, and A's gradient with it
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    model.train()
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    labels = [int((i["labels"][:, 1:] != IGNORED).sum()) for i in inputs]
    total = sum(loss(model, i) * n for i, n in zip(inputs, labels, strict=True)) / sum(labels)
    torch.as_tensor(total).backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {"loss": torch.as_tensor(total).detach(), **found}


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=2e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("loss", [labelled_loss, trl_loss], ids=["ours", "trl"])
def test_a_packed_row_has_the_loss_and_gradients_of_its_parts(
    base: Path, loss: Loss, attention: str, *, lora: bool
) -> None:
    rows = rows_of([20, 30, 14, 33, 22])
    together, apart = batches(rows, packed=True), batches(rows, packed=False)
    assert len(together) == 2
    assert len(apart) == 5
    packed, alone = (
        gradients(base, inputs, loss, attention=attention, lora=lora)
        for inputs in (together, apart)
    )
    assert all(grad.abs().max() > 0 for name, grad in packed.items() if "bias" not in name)
    assert_same(packed, alone)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_gradient_checkpointing_gives_the_same_gradients(base: Path, *, lora: bool) -> None:
    inputs = batches(rows_of([20, 30, 14, 33]), packed=True)
    plain, again = (
        gradients(base, inputs, labelled_loss, checkpointing=checkpointing, lora=lora)
        for checkpointing in (False, True)
    )
    assert plain.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in plain.items())


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
