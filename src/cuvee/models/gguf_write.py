"""A Hugging Face folder becomes a GGUF file that llama.cpp serves: the same model, exactly.

llama, qwen2 and qwen3. F32, F16, BF16 and Q8_0 are written here, with vectors (norms, biases)
in float32 and one tensor in memory at a time. K-quants are made by llama.cpp's own quantiser
(`cuvee.models.gguf_quantize`) from a temporary file that holds every weight exactly: BF16, or
F32 where a weight of the checkpoint is not bfloat16. It stands beside the output, without a
name, so that its disk space is free again however this ends. Not here: keeping a file that
is still right (`cuvee.models.gguf_kept`).

A chat template that breaks is exported mended (`cuvee.models.template.adapt`), and said so:
a base is then served in the form in which its specialists were trained.
"""

import collections
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig

from cuvee.atomic import replacing
from cuvee.errors import DataError
from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.files import weight_files
from cuvee.models.gguf_encode import encode
from cuvee.models.gguf_header import read_header
from cuvee.models.gguf_layout import ROPE_FACTORS, halves_to_pairs, rope_heads, tensor_name
from cuvee.models.gguf_metadata import (
    About,
    add_about,
    add_config,
    check_config,
    rope_factors,
)
from cuvee.models.gguf_quantize import FILE_TYPES, fallbacks, quantize, require_quantizer
from cuvee.models.gguf_vocabulary import to_metadata
from cuvee.models.template import adapt
from cuvee.progress import bar, say

__all__ = ["ALL_TYPES", "About", "Exported", "write_gguf"]

TYPES = {
    "F32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "F16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "BF16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "Q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
"""What is written here; all others are llama.cpp's."""
ALL_TYPES = (*TYPES, *FILE_TYPES)
_HEAD = "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was written."""

    bytes: int
    tensors: int
    types: Mapping[str, int]
    """Type of GGUF, e.g. `Q4_K`, -> tensors stored in it."""
    detail: str
    """Which tensors fell back to another type and why, in words; "" where none did."""


@dataclasses.dataclass(frozen=True)
class _Weight:
    """A tensor of the checkpoint that is to be written."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it."""


_Plan = dict[str, _Weight]
"""By the tensor's name in the checkpoint, in the order of the file."""


def write_gguf(
    checkpoint: Path, out: Path, *, quantization: str, about: About | None = None
) -> Exported:
    """Write the folder `checkpoint` as the file `out`, atomically; same folder, same bytes.

    `quantization` is one of `ALL_TYPES`; what fell back to another type is said. `about` goes
    into the file's metadata and so into its identity.

    Raises DataError, naming the folder, for what cannot be exported without changing the
    model: an unknown architecture, tokenizer, position encoding or tensor; a chat template
    that cannot be mended; a shape or value that the quantisation cannot hold. Raises OSError
    naming `out` where it cannot be written, and as `cuvee.models.gguf_quantize.quantize`.
    """
    if quantization not in ALL_TYPES:
        raise DataError(f"quantization {quantization!r}: known are {', '.join(ALL_TYPES)}")
    if quantization in FILE_TYPES:
        require_quantizer(quantization)
    write = _write if quantization in TYPES else _write_quantized
    try:
        with replacing(out) as temporary:
            stored = write(checkpoint, temporary, quantization=quantization, about=about)
    except DataError as error:
        raise DataError(f"{checkpoint}: {error}") from error
    types = collections.Counter(kind for _, kind in stored.values())
    detail = fallbacks(quantization, stored) if quantization in FILE_TYPES else ""
    if detail:
        say(f"{out.name}: {detail}")
    return Exported(out.stat().st_size, len(stored), dict(types), detail)


_Stored = dict[str, tuple[tuple[int, ...], str]]
"""What a file holds: name -> sizes, the row's length first, and type."""


def _write_quantized(
    checkpoint: Path, file: Path, *, quantization: str, about: About | None
) -> _Stored:
    dtypes = {weight.dtype for weight in _plan(checkpoint, _config(checkpoint)).values()}
    exact = "BF16" if dtypes == {"BF16"} else "F32"
    with tempfile.TemporaryFile(dir=file.parent) as scratch:
        # The quantiser inherits the open file, under the same number.
        source = Path(f"/proc/self/fd/{scratch.fileno()}")
        tensors = _write(checkpoint, source, quantization=exact, about=about)
        say(f"quantising a temporary {exact} file of {source.stat().st_size / 1e6:.0f} MB")
        quantize(
            source,
            file,
            quantization=quantization,
            tensors=len(tensors),
            files=(scratch.fileno(),),
        )
    return {
        tensor.name: (tensor.shape, gguf.GGMLQuantizationType(tensor.kind).name)
        for tensor in read_header(file).tensors
    }


def _write(checkpoint: Path, file: Path, *, quantization: str, about: About | None) -> _Stored:
    config = _config(checkpoint)
    kind, file_type = TYPES[quantization]
    plan = _plan(checkpoint, config)
    writer = gguf.GGUFWriter(file, config.model_type)
    add_config(writer, config)
    if about is not None:
        add_about(writer, about)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, checkpoint, rows=config.vocab_size)
    factors = rope_factors(config)
    stored: _Stored = {}
    if factors is not None:
        stored[ROPE_FACTORS] = _announce(
            writer, ROPE_FACTORS, factors.shape, gguf.GGMLQuantizationType.F32
        )
    for name, weight in plan.items():
        known = tensor_name(config, name)
        stored[known] = _announce(writer, known, weight.shape, _kind_of(name, weight.shape, kind))
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
    return stored


def _config(checkpoint: Path) -> PretrainedConfig:
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    check_config(config)
    return config


def _plan(checkpoint: Path, config: PretrainedConfig) -> _Plan:
    """Return every tensor to write."""
    plan = {}
    for file in weight_files(checkpoint):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                header = tensors.get_slice(name)
                plan[name] = _Weight(file, tuple(header.get_shape()), header.get_dtype())
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
) -> tuple[tuple[int, ...], str]:
    """Add a tensor to the file's list; return its sizes, the row's length first, and type."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(numpy.prod(shape))
    # float32 stands for "the shape is in elements": the type is `kind`.
    writer.add_tensor_info(name, shape, numpy.dtype("float32"), count // block * size, kind)
    return tuple(reversed(shape)), kind.name


def _data(
    config: PretrainedConfig, plan: _Plan, kind: gguf.GGMLQuantizationType
) -> Iterator[NDArray[Any]]:
    """Yield the stored form of each tensor, in the plan's order."""
    for name, planned in plan.items():
        with safe_open(planned.file, framework="pt") as tensors:
            weight: torch.Tensor = tensors.get_tensor(name)
        heads = rope_heads(config, name)
        if heads is not None:
            weight = halves_to_pairs(weight, heads)
        try:
            yield encode(weight, _kind_of(name, planned.shape, kind))
        except DataError as error:
            raise DataError(f"tensor {name}: {error}") from error


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
