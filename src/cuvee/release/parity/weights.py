"""The weights of a checkpoint folder and of a GGUF file under the same names, one at a time.

In: the folder, or the file. Out: `Weights`: the configuration that is computed with and a
function that gives any tensor in float32, dequantised. The file's configuration comes from
its own metadata, so that a wrong one shows. Not here: the forward pass
(`cuvee.release.parity.predictions`).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accelerate
import gguf
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from cuvee.errors import DataError
from cuvee.models.files import weight_files
from cuvee.models.gguf_layout import (
    ROPE_FACTORS,
    architecture,
    config_values,
    pairs_to_halves,
    rope_heads,
    tensor_name,
)

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_GGUF_EMBEDDINGS, _GGUF_HEAD = "token_embd.weight", "output.weight"


@dataclasses.dataclass(frozen=True)
class Weights:
    """A model whose weights are read when they are asked for."""

    config: PretrainedConfig
    tensor: Callable[[str], torch.Tensor]
    """transformers' name of a tensor -> the tensor in float32; raises DataError."""
    slowed: torch.Tensor | None = None
    """By what the file divides each frequency of the positions (llama 3); None: by nothing."""

    @property
    def head(self) -> torch.Tensor:
        """What makes logits of hidden states: [vocabulary, width]."""
        return self.tensor(EMBEDDINGS if self.config.tie_word_embeddings else HEAD)

    def skeleton(self) -> PreTrainedModel:
        """Return the model without its weights; what it computes positions with is there."""
        with accelerate.init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(self.config, dtype=torch.float32)
        if self.slowed is not None:
            model.model.rotary_emb.inv_freq /= self.slowed
        return model.eval()


@contextmanager
def checkpoint_weights(folder: Path) -> Iterator[Weights]:
    """Give a folder's weights while the block runs. Raises DataError where it is incomplete."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    architecture(config.model_type)
    with contextlib.ExitStack() as opened:
        where: dict[str, Any] = {}
        for path in weight_files(folder):
            shard = opened.enter_context(safe_open(path, framework="pt"))
            where |= dict.fromkeys(shard.keys(), shard)

        def tensor(name: str) -> torch.Tensor:
            if name not in where:
                raise DataError(f"{folder}: no tensor {name}")
            found: torch.Tensor = where[name].get_tensor(name)
            return found.float()

        yield Weights(config, tensor)


def file_weights(file: Path) -> Weights:
    """Return a GGUF file's weights.

    Raises DataError, naming the file, where it is cut short or holds another architecture,
    other tensors or other shapes than the model that its metadata describes.
    """
    try:
        reader = gguf.GGUFReader(file)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file}: not a whole GGUF file: {error}") from error
    try:
        return _of_tensors(_config(reader), {tensor.name: tensor for tensor in reader.tensors})
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _config(reader: gguf.GGUFReader) -> PretrainedConfig:
    kind = reader.fields.get(gguf.Keys.General.ARCHITECTURE)
    name = str(kind.contents()) if kind else "(none)"
    architecture(name)
    metadata = {k: f.contents() for k, f in reader.fields.items() if k.startswith(f"{name}.")}
    rows = {tensor.name: int(tensor.shape[1]) for tensor in reader.tensors if len(tensor.shape) > 1}
    if _GGUF_EMBEDDINGS not in rows:
        raise DataError(f"no tensor {_GGUF_EMBEDDINGS}")
    return AutoConfig.for_model(
        name,
        **config_values(name, metadata),
        vocab_size=rows[_GGUF_EMBEDDINGS],
        tie_word_embeddings=_GGUF_HEAD not in rows,
    )


def _of_tensors(config: PretrainedConfig, tensors: dict[str, Any]) -> Weights:
    factors = tensors.pop(ROPE_FACTORS, None)
    slowed = None if factors is None else torch.from_numpy(factors.data.copy()).float()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    given = {name: tensors.get(tensor_name(config, name)) for name in wanted}
    if missing := sorted(name for name, found in given.items() if found is None):
        raise DataError(f"tensors are missing: {', '.join(missing)}")
    if unknown := sorted(set(tensors) - {tensor_name(config, name) for name in wanted}):
        raise DataError(f"tensors that {config.model_type} does not have: {', '.join(unknown)}")

    def tensor(name: str) -> torch.Tensor:
        weight = _dequantised(given[name])
        if tuple(weight.shape) != wanted[name]:
            raise DataError(f"{name}: shape {tuple(weight.shape)}, expected {wanted[name]}")
        heads = rope_heads(config, name)
        return weight if heads is None else pairs_to_halves(weight, heads)

    return Weights(config, tensor, slowed)


def _dequantised(stored: Any) -> torch.Tensor:
    try:
        values = gguf.quants.dequantize(stored.data, stored.tensor_type)
    except NotImplementedError as error:
        raise DataError(f"{stored.name}: type {stored.tensor_type.name} is not known") from error
    return torch.from_numpy(values.copy()).float()
