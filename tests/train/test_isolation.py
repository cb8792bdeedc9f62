"""A packed row whose parts see each other is found before the first step."""

import functools
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from cuvee.train.isolation import PART, TOLERANCE, leak
from cuvee.train.kernels import replaced


def causal_over_all(
    module: torch.nn.Module, query: Any, key: Any, value: Any, mask: Any, **given: Any
) -> tuple[torch.Tensor, None]:
    """Attend to all that came before: an attention that heeds no mask and no lengths."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return out.transpose(1, 2), None


def leak_of(base: Path, attention: str, *, packed: bool = True) -> float:
    model: Any = AutoModelForCausalLM.from_pretrained(base, attn_implementation=attention)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packed)

    def batch(ids: list[int]) -> dict[str, Any]:
        return dict(collate([{"input_ids": ids, "labels": ids, "seq_lengths": [PART, PART]}]))

    return leak(model.eval(), batch, vocabulary=model.config.vocab_size)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_attention_that_masks_the_parts_leaks_nothing(base: Path, attention: str) -> None:
    assert leak_of(base, attention) == 0.0


def test_an_attention_that_heeds_no_mask_is_seen(base: Path) -> None:
    ALL_ATTENTION_FUNCTIONS.register("causal_over_all", causal_over_all)
    assert leak_of(base, "causal_over_all") > 100 * TOLERANCE


def test_rows_put_together_without_their_lengths_are_seen(base: Path) -> None:
    assert leak_of(base, "sdpa", packed=False) > 100 * TOLERANCE


def test_a_layer_with_a_kernel_s_forward_is_told_from_its_own(base: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model.forward = functools.partial(model.forward)  # as autocast does
    assert replaced(model) == set()
    norm = model.model.norm
    norm.forward = types.MethodType(type(norm).forward, norm)  # what a fallback leaves
    assert replaced(model) == set()
    norm.forward = types.MethodType(lambda self, hidden: hidden, norm)
    assert replaced(model) == {type(norm).__name__}
