"""Makes random bfloat16 checkpoints in a real model's shapes, for benchmarks.

    python benchmarks/checkpoints.py FOLDER --shapes qwen2.5-1.5b --names a,b,c

`a` has normal weights; `b` and `c` are `a` plus small normal updates of their own. Written
chunk by chunk, so that little memory is needed; what is there already is left as it is.
"""

import argparse
import dataclasses
import json
import shutil
import struct
import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHT_SIGMA, UPDATE_SIGMA = 0.02, 3e-4
NAMES = ("a", "b", "c")
CHUNK = 1 << 22
"""Elements that are made at a time."""


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The sizes of a Qwen2 model."""

    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool
    layers: int

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return {name: shape}, in the order of the file."""
        h, inner = self.hidden, self.intermediate
        kv = h // self.heads * self.key_value_heads
        of_layer = {
            "input_layernorm.weight": (h,), "mlp.down_proj.weight": (h, inner),
            "mlp.gate_proj.weight": (inner, h), "mlp.up_proj.weight": (inner, h),
            "post_attention_layernorm.weight": (h,), "self_attn.k_proj.bias": (kv,),
            "self_attn.k_proj.weight": (kv, h), "self_attn.o_proj.weight": (h, h),
            "self_attn.q_proj.bias": (h,), "self_attn.q_proj.weight": (h, h),
            "self_attn.v_proj.bias": (kv,), "self_attn.v_proj.weight": (kv, h),
        }  # fmt: skip
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, h)}
        for layer in range(self.layers):
            found |= {f"model.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
        found["model.norm.weight"] = (h,)
        return found if self.tied else found | {"lm_head.weight": (self.vocabulary, h)}

    def config(self) -> dict[str, Any]:
        """Return what `config.json` holds."""
        return {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
            "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads, "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "torch_dtype": "bfloat16",
        }  # fmt: skip


SHAPES = {
    "qwen2.5-1.5b": Shapes(1536, 8960, 12, 2, 151936, tied=True, layers=28),
    "qwen2.5-32b-4layers": Shapes(5120, 27648, 40, 8, 152064, tied=False, layers=4),
    "tiny": Shapes(64, 160, 4, 2, 512, tied=True, layers=2),
}


def make_checkpoint(folder: Path, shapes: Shapes, number: int) -> None:
    """Write checkpoint `number`: 0 is `a`, others are `a` plus updates of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shapes.config(), indent=1))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.tensors().items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = folder / "model.partial"
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor, shape in enumerate(shapes.tensors().values()):
            for begin in range(0, prod(shape), CHUNK):
                count = min(CHUNK, prod(shape) - begin)
                values = WEIGHT_SIGMA * normal(count, 0, tensor, begin)
                if number:
                    values += UPDATE_SIGMA * normal(count, number, tensor, begin)
                file.write(bfloat16(values).data)
    partial.rename(folder / "model.safetensors")


def normal(count: int, *seed: int) -> NDArray[np.float32]:
    """Return normal numbers that the seed decides."""
    return np.random.default_rng(seed).standard_normal(count, dtype=np.float32)


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return float32 rounded to the nearest bfloat16, as its bits."""
    words = values.view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


def main() -> None:
    """Make the checkpoints that are not there."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shapes", choices=SHAPES, default="qwen2.5-1.5b")
    parser.add_argument("--layers", type=int, metavar="N", help="other than the shapes' own")
    parser.add_argument("--names", default=",".join(NAMES), help="of a,b,c")
    given = parser.parse_args()
    shapes = SHAPES[given.shapes]
    shapes = dataclasses.replace(shapes, layers=given.layers or shapes.layers)
    size = 2 * sum(prod(shape) for shape in shapes.tensors().values())
    for name in given.names.split(","):
        folder = given.folder / name
        if (folder / "model.safetensors").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if size > 0.95 * (free := shutil.disk_usage(folder).free):
            sys.exit(f"{folder}: {size / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
        print(f"making {folder}: {size / 1e9:.2f} GB", file=sys.stderr, flush=True)
        make_checkpoint(folder, shapes, NAMES.index(name))


if __name__ == "__main__":
    main()
