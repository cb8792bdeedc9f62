"""`train:` and `merge:`: how specialists are made, and how they become one model."""

from typing import Any, Literal

from pydantic import Field

from cuvee.recipe.base import Section


class Lora(Section):
    """LoRA instead of full fine-tuning; the adapter is merged into the specialist at the end."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Train(Section):
    """Hyper-parameters, the same for every specialist."""

    epochs: float = Field(default=5, gt=0)
    learning_rate: float = Field(default=1e-5, gt=0)
    scheduler: Literal["constant_with_warmup", "cosine", "linear"] = "constant_with_warmup"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps."""
    batch_size: int = Field(default=96, ge=1)
    """Rows (packed rows where `packing`) an optimizer step."""
    micro_batch: int = Field(default=1, ge=1)
    """Rows a forward pass; `batch_size` must be a multiple of it."""
    max_tokens: int = Field(default=16384, ge=16)
    """Longest row, and the length of a packed row. Longer examples are dropped and counted."""
    packing: bool = True
    weight_decay: float = Field(default=0.01, ge=0)
    adam_beta2: float = Field(default=0.95, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: bool = True
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the products; weights and optimizer are float32 in any case. `auto` is bf16, but
    fp32 on x86 CPUs without bfloat16 arithmetic, which would emulate it many times slower."""
    save_every: int = Field(default=100, ge=1)
    """Steps between checkpoints, from which a killed run goes on."""
    lora: Lora | None = None


class Merge(Section):
    """How the specialists become one model."""

    method: str = "arcee_fusion"
    """Any method of `cuvee merge`; one that needs a base has the recipe's."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Of the method, as in a merge config."""
    specialists: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Domain -> its own parameters, such as `weight`."""
    order: list[str] | None = None
    """Domains in the order they are fused; None: the order of `domains`."""
    anchor: Literal["later", "earlier"] = "later"
    """Whose weights stay where the rule adopts nothing, at each fusion (TinyR1: `later`)."""
    out_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    mode: Literal["exact", "mergekit"] = "exact"
    """`mergekit`: its arithmetic and its sampling, with the recipe's seed."""
