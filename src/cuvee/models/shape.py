"""The sizes of a dense transformer, read from its `config.json` alone.

What memory and time of a training depend on. Reads no weights and loads neither torch nor
transformers, so that a plan can be made where none of them is. Not here: what follows from
the sizes (`cuvee.train.memory`, `cuvee.train.duration`); mixtures of experts and other
architectures, which are refused by name.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from cuvee.errors import DataError

ARCHITECTURES = ("llama", "qwen2", "qwen3")
_HEAD_OF_QWEN3 = 128
"""Its head size where the configuration names none (transformers' Qwen3Config)."""
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """A decoder of equal layers: attention with shared key-value heads, gated MLP, RMSNorm."""

    architecture: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    tied: bool
    """Whether the head is the embedding itself."""
    biases: int
    """Numbers a layer adds in the biases of its linear layers."""

    @classmethod
    def of(cls, folder: Path) -> "ModelShape":
        """Return the sizes of a checkpoint from its `config.json`.

        Raises DataError where that cannot be read, lacks a size, or is of no architecture
        in `ARCHITECTURES`.
        """
        file = folder / "config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: no readable configuration: {error}") from error
        if not isinstance(config, dict) or config.get("model_type") not in ARCHITECTURES:
            name = config.get("model_type") if isinstance(config, dict) else config
            raise DataError(
                f"{file}: memory and time are estimated for {', '.join(ARCHITECTURES)}, not "
                f"for model_type {name!r}"
            )
        if wrong := [name for name in _SIZES if not _is_size(config.get(name))]:
            raise DataError(f"{file}: no whole number above 0 stands for {', '.join(wrong)}")
        return _shape(config)

    @property
    def query(self) -> int:
        """Return the width of all query heads together."""
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Return the width of all key heads together; that of the values is the same."""
        return self.key_value_heads * self.head_size

    @property
    def linear(self) -> tuple[tuple[int, int], ...]:
        """Return (width in, width out) of the linear layers of one layer."""
        h, q, k, i = self.hidden, self.query, self.key, self.intermediate
        return ((h, q), (h, k), (h, k), (q, h), (h, i), (h, i), (i, h))

    @property
    def layer_matrices(self) -> int:
        """Return the weights in the matrices of one layer."""
        return sum(wide * out for wide, out in self.linear)

    @property
    def layer_parameters(self) -> int:
        """Return all weights of one layer."""
        norms = 2 * self.hidden + (2 * self.head_size if self.architecture == "qwen3" else 0)
        return self.layer_matrices + self.biases + norms

    @property
    def head(self) -> int:
        """Return the weights of the head, which are as many as those of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def outside_layers(self) -> int:
        """Return the weights of embedding, head and last norm."""
        return self.head * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """Return all weights of the model."""
        return self.layers * self.layer_parameters + self.outside_layers

    def adapter_parameters(self, rank: int) -> int:
        """Return the weights LoRA adds: two matrices of `rank` at each linear layer."""
        return self.layers * sum(rank * (wide + out) for wide, out in self.linear)


def _shape(config: dict[str, Any]) -> ModelShape:
    kind, hidden = config["model_type"], config["hidden_size"]
    heads = config["num_attention_heads"]
    key_value_heads = config.get("num_key_value_heads") or heads
    head_size = config.get("head_dim") or (_HEAD_OF_QWEN3 if kind == "qwen3" else hidden // heads)
    query, key = heads * head_size, key_value_heads * head_size
    on_attention = config.get("attention_bias", False) and kind != "qwen2"
    biases = query + 2 * key if kind == "qwen2" or on_attention else 0
    biases += hidden if on_attention else 0
    if kind == "llama" and config.get("mlp_bias", False):
        biases += 2 * config["intermediate_size"] + hidden
    return ModelShape(
        architecture=kind,
        vocabulary=config["vocab_size"],
        hidden=hidden,
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        tied=bool(config.get("tie_word_embeddings", False)),
        biases=biases,
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
