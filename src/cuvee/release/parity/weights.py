"""The weights of a checkpoint folder and of a GGUF file under the same names, one at a time.

In: the folder, or the file. Out: `Weights`: the configuration that is computed with and a
function that gives any tensor in float32, dequantised. The file's configuration comes from
its own metadata, so that a wrong one shows. Not here: the forward pass
(`cuvee.release.parity.predictions`).
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accelerate
import gguf
import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from cuvee.errors import DataError
from cuvee.models.files import weight_files
from cuvee.models.gguf_header import Header, read_header
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
    header = read_header(file)
    try:
        return _of_tensors(_config(header), _tensors(file, header))
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A tensor as the file holds it."""

    name: str
    kind: gguf.GGMLQuantizationType
    data: npt.NDArray[np.uint8]
    """Its bytes, in rows; read from the file when they are looked at."""


def _tensors(file: Path, header: Header) -> dict[str, _Stored]:
    """Return a file's tensors; gguf's own reader takes seconds for the vocabulary alone."""
    whole: npt.NDArray[np.uint8] = np.memmap(file, dtype=np.uint8, mode="r")
    found = {}
    for info in header.tensors:
        try:
            kind = gguf.GGMLQuantizationType(info.kind)
        except ValueError as error:
            raise DataError(f"{info.name}: type {info.kind} is not known") from error
        rows = gguf.quant_shape_to_byte_shape(info.shape[::-1], kind)
        begin = header.weights_begin + info.offset
        end = begin + math.prod(rows)
        if end > len(whole):
            raise DataError(
                f"not a whole GGUF file: {info.name} ends beyond its {len(whole)} bytes"
            )
        found[info.name] = _Stored(info.name, kind, whole[begin:end].reshape(rows))
    return found


def _config(header: Header) -> PretrainedConfig:
    name = str(header.metadata.get(gguf.Keys.General.ARCHITECTURE, "(none)"))
    architecture(name)
    metadata = {k: v for k, v in header.metadata.items() if k.startswith(f"{name}.")}
    rows = {info.name: info.shape[1] for info in header.tensors if len(info.shape) > 1}
    if _GGUF_EMBEDDINGS not in rows:
        raise DataError(f"no tensor {_GGUF_EMBEDDINGS}")
    return AutoConfig.for_model(
        name,
        **config_values(name, metadata),
        vocab_size=rows[_GGUF_EMBEDDINGS],
        tie_word_embeddings=_GGUF_HEAD not in rows,
    )


def _of_tensors(config: PretrainedConfig, tensors: dict[str, _Stored]) -> Weights:
    factors = tensors.pop(ROPE_FACTORS, None)
    slowed = None if factors is None else _dequantised(factors)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if missing := sorted(name for name in wanted if tensor_name(config, name) not in tensors):
        raise DataError(f"tensors are missing: {', '.join(missing)}")
    if unknown := sorted(set(tensors) - {tensor_name(config, name) for name in wanted}):
        raise DataError(f"tensors that {config.model_type} does not have: {', '.join(unknown)}")

    def tensor(name: str) -> torch.Tensor:
        weight = _dequantised(tensors[tensor_name(config, name)])
        if tuple(weight.shape) != wanted[name]:
            raise DataError(f"{name}: shape {tuple(weight.shape)}, expected {wanted[name]}")
        heads = rope_heads(config, name)
        return weight if heads is None else pairs_to_halves(weight, heads)

    return Weights(config, tensor, slowed)


def _dequantised(stored: _Stored) -> torch.Tensor:
    try:
        values = gguf.quants.dequantize(stored.data, stored.kind)
    except NotImplementedError as error:
        raise DataError(f"{stored.name}: type {stored.kind.name} is not known") from error
    return torch.from_numpy(values.copy()).float()
