"""A Hugging Face folder becomes a GGUF file that llama.cpp serves: the same model, exactly.

llama, qwen2 and qwen3; F32, F16, BF16 and Q8_0. Vectors (norms, biases) stay float32. One
tensor is in memory at a time. Not here: other quantisations (llama.cpp's own tools make
them from an F16 or BF16 file).

A chat template that breaks is exported mended (`cuvee.models.template.adapt`), and said so:
a base is then served in the form in which its specialists were trained.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from cuvee.atomic import replacing
from cuvee.errors import DataError
from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.files import weight_files
from cuvee.models.gguf_layout import (
    ROPE_FACTORS,
    architecture,
    halves_to_pairs,
    rope_heads,
    tensor_name,
)
from cuvee.models.gguf_vocabulary import to_metadata
from cuvee.models.template import adapt
from cuvee.progress import bar, say

TYPES = {
    "F32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "F16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "BF16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "Q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_HEAD = "lm_head.weight"


def write_gguf(checkpoint: Path, out: Path, *, quantization: str) -> None:
    """Write the folder `checkpoint` as the file `out`, atomically; same folder, same bytes.

    Raises DataError, naming the folder, for what cannot be exported without changing the
    model: an unknown architecture, tokenizer, position encoding or tensor; a chat template
    that cannot be mended; a shape or value that the quantisation cannot hold. Raises OSError
    naming `out` where it cannot be written.
    """
    if quantization not in TYPES:
        raise DataError(f"quantization {quantization!r}: known are {', '.join(TYPES)}")
    try:
        with replacing(out) as temporary:
            _write(checkpoint, temporary, quantization=quantization)
    except DataError as error:
        raise DataError(f"{checkpoint}: {error}") from error


def _write(checkpoint: Path, file: Path, *, quantization: str) -> None:
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    _check_config(config)
    kind, file_type = TYPES[quantization]
    plan = _plan(checkpoint, config)
    writer = gguf.GGUFWriter(file, config.model_type)
    _add_config(writer, config)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, checkpoint, rows=config.vocab_size)
    factors = _rope_factors(config)
    if factors is not None:
        _announce(writer, ROPE_FACTORS, factors.shape, gguf.GGMLQuantizationType.F32)
    for name, (_, shape) in plan.items():
        _announce(writer, tensor_name(config, name), shape, _kind_of(name, shape, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    try:
        if factors is not None:
            writer.write_tensor_data(factors)
        with bar(f"{quantization} export", total=len(plan), unit="tensors") as tick:
            for data in _data(config, plan, kind):
                writer.write_tensor_data(data)
                tick(1)
    finally:
        writer.close()


def _check_config(config: PretrainedConfig) -> None:
    """Refuse what llama.cpp's code for the architecture would compute in another way."""
    architecture(config.model_type)
    if config.hidden_act != "silu":
        raise DataError(f"config.json: hidden_act {config.hidden_act!r}; only 'silu' is exported")
    if getattr(config, "use_sliding_window", False):
        raise DataError("config.json: use_sliding_window is not exported")
    rope = config.rope_parameters["rope_type"]
    if rope not in ("default", "llama3"):
        raise DataError(f"config.json: rope_type {rope!r}; exported are 'default' and 'llama3'")


def _plan(checkpoint: Path, config: PretrainedConfig) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Return file and shape of every tensor to write, by name."""
    plan = {}
    for file in weight_files(checkpoint):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                plan[name] = (file, tuple(tensors.get_slice(name).get_shape()))
    if config.tie_word_embeddings:
        plan.pop(_HEAD, None)  # the embeddings again
    elif _HEAD not in plan:
        raise DataError(f"no tensor {_HEAD}, and config.json does not tie it to the embeddings")
    return plan


def _kind_of(
    name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType
) -> gguf.GGMLQuantizationType:
    """Return how a tensor is stored."""
    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if shape[-1] % block:
        raise DataError(f"tensor {name}: {kind.name} needs rows of a multiple of {block}: {shape}")
    return kind


def _announce(
    writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType
) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(numpy.prod(shape))
    # float32 stands for "the shape is in elements": the type is `kind`.
    writer.add_tensor_info(name, shape, numpy.dtype("float32"), count // block * size, kind)


def _data(
    config: PretrainedConfig,
    plan: dict[str, tuple[Path, tuple[int, ...]]],
    kind: gguf.GGMLQuantizationType,
) -> Iterator[NDArray[Any]]:
    """Yield the stored form of each tensor, in the plan's order."""
    for name, (file, shape) in plan.items():
        with safe_open(file, framework="pt") as tensors:
            weight = tensors.get_tensor(name).float()
        heads = rope_heads(config, name)
        if heads is not None:
            weight = halves_to_pairs(weight, heads)
        stored = _kind_of(name, shape, kind)
        _check_range(name, weight, half=stored == gguf.GGMLQuantizationType.F16)
        yield gguf.quants.quantize(weight.numpy(), stored)


def _check_range(name: str, weight: torch.Tensor, *, half: bool) -> None:
    low, high = (float(end) for end in torch.aminmax(weight))
    limit = torch.finfo(torch.float16 if half else torch.float32).max
    if not (-limit <= low and high <= limit):  # NaN compares false, too
        raise DataError(f"tensor {name}: values from {low} to {high}; allowed is +-{limit}")


def _add_config(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    writer.add_type("model")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path, *, rows: int) -> None:
    tokenizer_json = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(checkpoint)
    for change in adapt(tokenizer):
        say(f"{checkpoint}: mended in the export: {change}")
    metadata = to_metadata(tokenizer, tokenizer_json, rows=rows)
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)


def _rope_factors(config: PretrainedConfig) -> NDArray[Any] | None:
    """Return by what llama 3 divides each frequency, [head size / 2]; None by default."""
    if config.rope_parameters["rope_type"] == "default":
        return None
    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device="cpu")
    size = 2 * len(slowed)
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    plain = 1.0 / config.rope_parameters["rope_theta"] ** exponents
    factors: NDArray[Any] = (plain / slowed).float().numpy()
    return factors
