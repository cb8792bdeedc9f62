"""The sizes of a dense transformer, read from its `config.json` or its GGUF header alone.

What files, memory and time depend on. Reads no weights and loads neither torch nor
transformers, so that a plan can be made where none of them is. Not here: what follows from
the sizes (`cuvee.fit`, `cuvee.train.memory`, `cuvee.train.duration`); mixtures of experts and
other architectures, which are refused by name.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from cuvee.errors import DataError
from cuvee.models.gguf_header import Header, read_header

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
LINEAR = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""The matrices of a layer, by the names that GGUF files give them."""


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
    biased: tuple[str, ...] = ()
    """Which of `LINEAR` have a bias."""
    context: int | None = None
    """Tokens that the model was made for; None where it does not say."""
    rope_factors: bool = False
    """Whether a GGUF file holds a tensor of frequency factors (llama 3's positions)."""

    @classmethod
    def of(cls, folder: Path) -> "ModelShape":
        """Return the sizes of a checkpoint from its `config.json`, which may be named itself.

        Raises DataError where that cannot be read, lacks a size, or is of no architecture
        in `ARCHITECTURES`.
        """
        file = folder if folder.suffix == ".json" else folder / "config.json"
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

    @classmethod
    def of_gguf(cls, file: Path) -> "ModelShape":
        """Return the sizes that the header of a GGUF file states; its weights are not read.

        Raises DataError where it is no GGUF file, lacks a size, or is of no architecture in
        `ARCHITECTURES`.
        """
        return of_header(read_header(file), file)

    @property
    def biases(self) -> int:
        """Return how many numbers a layer adds in the biases of its linear layers."""
        widths = dict(zip(LINEAR, (out for _, out in self.linear), strict=True))
        return sum(widths[name] for name in self.biased)

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


def shape_of(path: Path) -> ModelShape:
    """Return the sizes of a checkpoint folder, of its `config.json`, or of a `.gguf` file.

    Raises what `ModelShape.of` and `ModelShape.of_gguf` raise.
    """
    return ModelShape.of_gguf(path) if path.suffix == ".gguf" else ModelShape.of(path)


def of_header(header: Header, file: Path) -> ModelShape:
    """Return the sizes that a GGUF header states; `file` is named in errors.

    Raises DataError where a size is missing or the architecture is not in `ARCHITECTURES`.
    """
    kind = header.metadata.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise DataError(
            f"{file}: sizes are known for {', '.join(ARCHITECTURES)}, not for the "
            f"architecture {kind!r}"
        )
    rows = {tensor.name: tensor.shape for tensor in header.tensors}

    def size(key: str, default: int | None = None) -> int:
        value = header.metadata.get(f"{kind}.{key}", default)
        if not _is_size(value):
            raise DataError(f"{file}: {kind}.{key} is {value!r}, no whole number above 0")
        return int(value)  # type: ignore[arg-type]  # _is_size has said so

    embedding = rows.get("token_embd.weight")
    if embedding is None or len(embedding) != 2:
        raise DataError(f"{file}: no tensor token_embd.weight of two dimensions")
    heads, hidden = size("attention.head_count"), size("embedding_length")
    return ModelShape(
        architecture=str(kind),
        vocabulary=embedding[1],  # the width of a row comes first
        hidden=hidden,
        intermediate=size("feed_forward_length"),
        layers=size("block_count"),
        heads=heads,
        key_value_heads=size("attention.head_count_kv", heads),
        head_size=size("attention.key_length", hidden // heads),
        tied="output.weight" not in rows,
        biased=tuple(name for name in LINEAR if f"blk.0.{name}.bias" in rows),
        context=size("context_length") if f"{kind}.context_length" in header.metadata else None,
        rope_factors="rope_freqs.weight" in rows,
    )


def _shape(config: dict[str, Any]) -> ModelShape:
    kind, hidden = config["model_type"], config["hidden_size"]
    heads = config["num_attention_heads"]
    context = config.get("max_position_embeddings")
    return ModelShape(
        architecture=kind,
        vocabulary=config["vocab_size"],
        hidden=hidden,
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim")
        or (_HEAD_OF_QWEN3 if kind == "qwen3" else hidden // heads),
        tied=bool(config.get("tie_word_embeddings", False)),
        biased=_biased(config),
        context=context if _is_size(context) else None,
        rope_factors=_rope_type(config) == "llama3",
    )


def _biased(config: dict[str, Any]) -> tuple[str, ...]:
    if config["model_type"] == "qwen2":
        return LINEAR[:3]
    on_attention = LINEAR[:4] if config.get("attention_bias", False) else ()
    on_mlp = config["model_type"] == "llama" and config.get("mlp_bias", False)
    return on_attention + (LINEAR[4:] if on_mlp else ())


def _rope_type(config: dict[str, Any]) -> Any:
    """Return how positions are scaled; transformers 5 renamed the key."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
