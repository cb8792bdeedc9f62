"""A GGUF file becomes a Hugging Face folder that trains: weights in float32, tokenizer, config.

float32 holds every dequantised value exactly, bfloat16 would not. Needs memory for all the
weights at once. Not here: when to convert, and where to keep it (`cuvee.models.checkpoint`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from cuvee.errors import DataError
from cuvee.models.gguf_layout import (
    architecture,
    config_values,
    pairs_to_halves,
    rope_heads,
    tensor_name,
)
from cuvee.models.gguf_vocabulary import to_folder
from cuvee.progress import bar

_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"


def read_gguf(file: Path, out: Path) -> None:
    """Write the folder `out` (config, model.safetensors, tokenizer, template) of a GGUF file.

    Raises DataError, naming the file and what is wrong, where it is cut short, or holds an
    architecture, tokenizer, quantisation or tensor that is not known.
    """
    try:
        reader = gguf.GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a whole GGUF file: {error}") from error
    out.mkdir(parents=True, exist_ok=True)
    try:
        config = _config(metadata, tensors)
        to_folder(metadata, out, context=config.max_position_embeddings)
        weights = _weights(config, tensors)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(out)


def _config(metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> PretrainedConfig:
    name = str(metadata.get("general.architecture"))
    architecture(name)
    if _EMBEDDINGS not in tensors:
        raise DataError(f"no tensor {_EMBEDDINGS}")
    return AutoConfig.for_model(
        name,
        **config_values(name, metadata),
        vocab_size=int(tensors[_EMBEDDINGS].shape[1]),
        tie_word_embeddings=_OUTPUT not in tensors,
        bos_token_id=metadata.get(gguf.Keys.Tokenizer.BOS_ID),
        eos_token_id=metadata.get(gguf.Keys.Tokenizer.EOS_ID),
        pad_token_id=metadata.get(gguf.Keys.Tokenizer.PAD_ID),
        dtype="float32",
    )


def _weights(config: PretrainedConfig, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return every weight of the model that `config` describes, by its transformers name."""
    with torch.device("meta"):  # names and shapes alone
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
    given = {tensor_name(config, name): name for name in wanted}
    if missing := sorted(set(given) - set(tensors)):
        raise DataError(f"tensors are missing: {', '.join(missing)}")
    if unknown := sorted(set(tensors) - set(given)):
        raise DataError(f"tensors that {config.model_type} does not have: {', '.join(unknown)}")
    weights = {}
    with bar("convert", total=len(given), unit="tensors") as tick:
        for gguf_name, name in given.items():
            weights[name] = _weight(config, name, tensors[gguf_name])
            if weights[name].shape != wanted[name]:
                shape = tuple(weights[name].shape)
                raise DataError(f"{gguf_name}: shape {shape}, expected {tuple(wanted[name])}")
            tick(1)
    return weights


def _weight(config: PretrainedConfig, name: str, tensor: Any) -> torch.Tensor:
    try:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise DataError(f"{tensor.name}: quantisation {tensor.tensor_type.name}") from error
    weight = torch.from_numpy(values.copy()).float()
    heads = rope_heads(config, name)
    return weight if heads is None else pairs_to_halves(weight, heads)
