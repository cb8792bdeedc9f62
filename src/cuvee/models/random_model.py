"""A seeded random two-layer model with a byte-level tokenizer: to try the pipeline with.

It knows nothing and is made in a moment, but it is a real checkpoint: it loads in
transformers, trains, exports to GGUF and is served by llama.cpp. Not here: caching it
(`cuvee.models.checkpoint`).
"""

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from cuvee.models.pretokenizers import PRETOKENIZERS

Architecture = Literal["llama", "qwen2", "qwen3"]
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("o", "n"), ("Ġ", "a")]
CONTEXT = 4096
STANDARD_DEVIATION = 0.2
"""Of matrices and biases: large enough that the model prefers some tokens to others."""


def write_random_model(
    folder: Path, *, architecture: Architecture = "llama", tied: bool = True, seed: int = 0
) -> None:
    """Write the checkpoint (float32): 2 layers, width 64, 265 tokens, 4,096 of context.

    Same arguments, same bytes. The folder is made; files in it are overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(PRETOKENIZERS["smollm"].rules)
    tokenizer.save_pretrained(folder)
    config = CONFIGS[architecture](
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        dtype="float32",
    )
    with torch.device("meta"):  # names and shapes alone; draws no random numbers
        model = AutoModelForCausalLM.from_config(config)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: _draw(name, parameter.shape, generator)
        for name, parameter in model.named_parameters()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Draw around 0, the gains of norms around 1."""
    centre = 1.0 if name.endswith("norm.weight") else 0.0
    return centre + STANDARD_DEVIATION * torch.randn(shape, generator=generator)


def _tokenizer(rules: object) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 3 special tokens, 256 bytes and a few merges."""
    special = [PAD, START, END]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [*special, *alphabet, *("".join(pair) for pair in MERGES)]
    vocabulary = {text: number for number, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    content = json.loads(tokenizer.to_str()) | {"pre_tokenizer": rules}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        eos_token=END,
        pad_token=PAD,
        chat_template=CHATML,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
