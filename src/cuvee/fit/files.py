"""How large the files of a model are, from its sizes alone.

The weights are exact, for safetensors and for every GGUF type in `cuvee.fit.mixing.TYPES`. A
GGUF file also holds the vocabulary: exact where a header or a tokenizer says it, else taken
from the number of tokens, with its error stated. Not here: what serving takes beside the file
(`cuvee.fit.serving`).
"""

import collections
import dataclasses
import json
from pathlib import Path

import gguf

from cuvee.errors import DataError
from cuvee.fit.mixing import BLOCKS, Tensor, kind_of
from cuvee.models.gguf_header import read_header
from cuvee.models.shape import LINEAR, ModelShape

ALIGNMENT = 32
"""Bytes: every tensor of a GGUF file begins at a multiple of it."""
BYTES_A_TOKEN, TOKEN_ERROR = 45, 0.5
"""Of vocabulary and merges a token: 36 in SmolLM2's file, 39 in Qwen2.5's, 61 in Llama 3's."""
_OTHER_METADATA = 8_000
"""Keys, sizes and a chat template, as commonly seen."""
_SAFETENSORS = {"F32": 4, "F16": 2, "BF16": 2}


@dataclasses.dataclass(frozen=True)
class FileSize:
    """Bytes of a file (or, of safetensors, of all files of a checkpoint's weights)."""

    total: int
    weights: int
    """Of the tensors, with the gaps between them."""
    metadata: int
    """Of everything before them."""
    error: int
    """By how much `total` may be wrong, either way; all of it is in the metadata."""
    fallbacks: int
    """Matrices whose rows are no multiple of their type's block, so that they get another."""
    kinds: tuple[tuple[str, int], ...]
    """How many tensors have which type."""
    source: str
    """Where the metadata's size is from, in words."""


def tensors(shape: ModelShape) -> tuple[Tensor, ...]:
    """Return the tensors of a model as a GGUF file names them."""
    found = [Tensor("token_embd.weight", (shape.vocabulary, shape.hidden))]
    if shape.rope_factors:
        found.append(Tensor("rope_freqs.weight", (shape.head_size // 2,)))
    for layer in range(shape.layers):
        found += _layer(shape, f"blk.{layer}.")
    found.append(Tensor("output_norm.weight", (shape.hidden,)))
    if not shape.tied:
        found.append(Tensor("output.weight", (shape.vocabulary, shape.hidden)))
    return tuple(found)


def tensor_bytes(tensor: Tensor, shape: ModelShape, quantization: str) -> int:
    """Return the bytes of a tensor in a GGUF file. Raises DataError as `kind_of` does."""
    return _stored(tensor, kind_of(tensor, shape, quantization)[0])


def gguf_bytes(shape: ModelShape, quantization: str, *, metadata: int | None = None) -> FileSize:
    """Return the size of a GGUF file of a type in `TYPES`.

    `metadata`: bytes of its keys and values, where they are known (`known_metadata`); None
    takes them from the number of tokens. Raises DataError for an unknown type, or one that
    cannot hold the model's rows.
    """
    all_tensors = tensors(shape)
    kinds = [kind_of(tensor, shape, quantization) for tensor in all_tensors]
    weights = sum(
        _aligned(_stored(tensor, kind))
        for tensor, (kind, _) in zip(all_tensors, kinds, strict=True)
    )
    keys = metadata
    error, source = 0, "the metadata is counted"
    if keys is None:
        keys = BYTES_A_TOKEN * shape.vocabulary + _OTHER_METADATA
        error = int(TOKEN_ERROR * keys)
        source = f"the metadata is taken as {BYTES_A_TOKEN} bytes a token, within {TOKEN_ERROR:.0%}"
    announced = sum(_announced(tensor.name, tensor.shape) for tensor in all_tensors)
    header = _aligned(24 + keys + announced)
    return FileSize(
        total=header + weights,
        weights=weights,
        metadata=header,
        error=error,
        fallbacks=sum(fell for _, fell in kinds),
        kinds=tuple(collections.Counter(kind for kind, _ in kinds).most_common()),
        source=source,
    )


def safetensors_bytes(shape: ModelShape, kind: str = "BF16") -> FileSize:
    """Return the size of a checkpoint's weights in F32, F16 or BF16, tied ones written once.

    Its headers are some 120 bytes a tensor, within half of that. Raises DataError for another
    type.
    """
    if kind not in _SAFETENSORS:
        raise DataError(f"safetensors of {kind!r}: known are {', '.join(_SAFETENSORS)}")
    written = [tensor for tensor in tensors(shape) if tensor.name != "rope_freqs.weight"]
    weights, header = _SAFETENSORS[kind] * shape.parameters, 120 * len(written)
    return FileSize(
        total=weights + header,
        weights=weights,
        metadata=header,
        error=header // 2,
        fallbacks=0,
        kinds=((kind, len(written)),),
        source="headers of about 120 bytes a tensor",
    )


def type_of(file: Path) -> str | None:
    """Return the type that a GGUF file says it is of, e.g. `Q4_K_M`; None where it says none.

    Raises DataError where the file is no GGUF file.
    """
    number = read_header(file).metadata.get(gguf.Keys.General.FILE_TYPE)
    if number not in list(gguf.LlamaFileType):
        return None
    name = str(gguf.LlamaFileType(number).name)
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def known_metadata(model: Path) -> int | None:
    """Return the bytes of metadata that a GGUF file of a model has, where its files say so.

    Of a `.gguf` file: those in its header. Of a folder with `tokenizer.json`: those of its
    vocabulary, merges and template, and 1,000 for the rest. None where there is neither.
    Raises DataError where the file cannot be read.
    """
    if model.suffix == ".gguf":
        header = read_header(model)
        return header.size - 24 - sum(_announced(t.name, t.shape) for t in header.tensors)
    folder = model.parent if model.suffix == ".json" else model
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        return None
    return _of_tokenizer(tokenizer)


def _of_tokenizer(file: Path) -> int | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
        added = {token["content"] for token in content["added_tokens"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: no readable tokenizer: {error!r}") from error
    if not isinstance(vocabulary, dict):
        return None  # not a byte-level one: its file would have scores, too
    texts = set(vocabulary) | added
    joined = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    template = file.with_name("chat_template.jinja")
    return (
        sum(12 + len(text.encode()) for text in texts)  # a length, the text, a type
        + sum(8 + len(merge.encode()) for merge in joined)
        + (template.stat().st_size if template.exists() else 0)
        + 1_000
    )


def _layer(shape: ModelShape, prefix: str) -> list[Tensor]:
    found = [
        Tensor(f"{prefix}{name}.weight", (out, wide))
        for name, (wide, out) in zip(LINEAR, shape.linear, strict=True)
    ]
    found += [
        Tensor(f"{prefix}{name}.bias", (out,))
        for name, (_, out) in zip(LINEAR, shape.linear, strict=True)
        if name in shape.biased
    ]
    norms = {"attn_norm": shape.hidden, "ffn_norm": shape.hidden}
    if shape.architecture == "qwen3":
        norms |= {"attn_q_norm": shape.head_size, "attn_k_norm": shape.head_size}
    return found + [Tensor(f"{prefix}{name}.weight", (size,)) for name, size in norms.items()]


def _announced(name: str, shape: tuple[int, ...]) -> int:
    """Return the bytes that a header spends on a tensor: name, sizes, type and place."""
    return 24 + len(name.encode()) + 8 * len(shape)


def _stored(tensor: Tensor, kind: str) -> int:
    weights, size = BLOCKS[kind]
    count = 1
    for length in tensor.shape:
        count *= length
    return count // weights * size


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
