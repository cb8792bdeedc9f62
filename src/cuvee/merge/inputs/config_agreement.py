"""Whether two models compute the same function of their weights, as their config.json say it.

Files of transformers 4 and 5 spell one thing in two ways, and leave out what is the default:
`normal_config` writes both in one spelling, `compare_configs` compares them. Not here: tied
embeddings, which concern what tensors are stored (`cuvee.merge.inputs.agreement`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuvee.merge.inputs.headers import read_json

Config = Mapping[str, Any]
Labels = tuple[str, str]
"""What the messages call the two checkpoints."""

BOOKKEEPING = frozenset({
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "pad_token_id",
    "_attn_implementation", "_attn_implementation_autoset", "attention_dropout",
    "initializer_range", "output_router_logits", "router_aux_loss_coef",
})  # fmt: skip
"""Keys that may differ: they change no result of the model (some change its training)."""

USE = frozenset({"bos_token_id", "eos_token_id"})
"""Keys that say how a model is used, not what it computes: a difference is a warning."""

ELSEWHERE = frozenset({"tie_word_embeddings"})

ROPE_KEYS = (
    "rope_parameters", "rope_theta", "rope_scaling", "rope_local_base_freq",
    "partial_rotary_factor", "original_max_position_embeddings",
)  # fmt: skip

_COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
_QWEN2 = _COMMON | {
    "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
    "num_key_value_heads": 32,
}  # fmt: skip
DEFAULTS: Mapping[str, Config] = {
    "llama": _COMMON | {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1},
    "mistral": _COMMON | {"sliding_window": 4096, "num_key_value_heads": 8},
    "qwen2": _QWEN2,
    "qwen3": _QWEN2 | {"attention_bias": False, "head_dim": 128},
}
"""What transformers takes where a file lacks the key, by `model_type` (tested against it).

Of other model types a key that only one file has cannot be compared: that is a warning.
"""


def compare_configs(
    one: tuple[str, Config], two: tuple[str, Config]
) -> tuple[list[str], list[str]]:
    """Return (errors, warnings): where two configs, each with its label, differ.

    Both have a key (or a default for it is known, `DEFAULTS`) and the values differ: an error,
    if the key changes results; `USE` keys, and `max_position_embeddings` where RoPE is not
    scaled, are a warning. A key that only one file has, of unknown default: a warning.
    """
    labels = (one[0], two[0])
    first, second = normal_config(one[1]), normal_config(two[1])
    free = set(USE)
    if _plain_rope(first) and _plain_rope(second):
        free.add("max_position_embeddings")
    both = sorted(key for key in first.keys() & second.keys() if first[key] != second[key])
    said = {
        key: f"config {key}: {_shown(first[key])} in {labels[0]}, "
        f"{_shown(second[key])} in {labels[1]}"
        for key in both
    }
    errors = [text for key, text in said.items() if key not in free]
    warnings = [text for key, text in said.items() if key in free]
    for label, config, other in ((labels[0], first, second), (labels[1], second, first)):
        if only := sorted(config.keys() - other.keys()):
            listed = ", ".join(f"{key} ({_shown(config[key])})" for key in only)
            warnings.append(f"config keys only in {label}, compared with nothing: {listed}")
    return errors, warnings


def normal_config(config: Config) -> dict[str, Any]:
    """Return a config in one spelling, without what changes no result.

    Defaults are filled in, then null is left out (it means what an absent key means where
    there is no default); RoPE becomes one key `rope`, windows that no layer uses are dropped,
    and so are `layer_types` that only say full attention.
    """
    filled = dict(DEFAULTS.get(str(config.get("model_type")), {})) | dict(config)
    rope = _rope(filled)
    dropped = BOOKKEEPING | ELSEWHERE | set(ROPE_KEYS)
    if filled.get("use_sliding_window") is False:
        dropped |= {"sliding_window", "max_window_layers", "use_sliding_window"}
    if set(filled.get("layer_types") or ()) <= {"full_attention"}:
        dropped |= {"layer_types"}
    normal = {k: v for k, v in filled.items() if k not in dropped and v is not None}
    heads, width = filled.get("num_attention_heads"), filled.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int) and heads > 0:
        normal.setdefault("num_key_value_heads", heads)
        normal.setdefault("head_dim", width // heads)
    if isinstance(text := filled.get("text_config"), dict):
        normal["text_config"] = normal_config(text)
    return normal | ({"rope": rope} if rope else {})


def compare_generation(one: tuple[str, Path], two: tuple[str, Path]) -> list[str]:
    """Return a warning that names the keys in which generation_config.json differ, or none."""
    configs = [_generation_config(path) for _, path in (one, two)]
    keys = sorted(
        key
        for key in configs[0].keys() | configs[1].keys()
        if configs[0].get(key) != configs[1].get(key)
    )
    if not keys:
        return []
    pair = f"{one[0]} and {two[0]}"
    return [f"generation_config.json of {pair} differ in {', '.join(keys)}"]


def _generation_config(path: Path) -> dict[str, Any]:
    file = path / "generation_config.json"
    found = read_json(file) if file.exists() else {}
    return {
        k: v for k, v in found.items() if k not in ("transformers_version", "_from_model_config")
    }


def _rope(config: Config) -> dict[str, Any]:
    """Return the RoPE of each kind of layer; transformers 4 spells most models' one kind.

    transformers 5: `rope_parameters`, with theta inside, flat or by kind of layer. 4:
    `rope_theta`, `rope_scaling` and, in Gemma 3, `rope_local_base_freq`.
    """
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kinds = {name: part for name, part in found.items() if isinstance(part, dict)}
    if kinds:
        return {name: _one_rope(part, config) for name, part in kinds.items()}
    rope = _one_rope(found, config)
    if local := config.get("rope_local_base_freq"):
        sliding = {"rope_theta": local, "rope_type": "default"}
        return {"full_attention": rope, "sliding_attention": sliding}
    return rope if rope.keys() - {"rope_type"} else {}


def _one_rope(part: Config, config: Config) -> dict[str, Any]:
    outer = {key: config.get(key) for key in ("rope_theta", "partial_rotary_factor")}
    rope = outer | dict(part)
    old = rope.pop("type", None)
    rope["rope_type"] = rope.get("rope_type") or old or "default"
    if rope["rope_type"] in ("llama3", "yarn", "longrope"):
        # As transformers 5 does: the length of pretraining is the model's where it is not said.
        length = config.get("original_max_position_embeddings")
        rope.setdefault(
            "original_max_position_embeddings", length or config.get("max_position_embeddings")
        )
    return {key: value for key, value in rope.items() if value is not None}


def _plain_rope(normal: Config) -> bool:
    """Say whether positions turn with their number alone, at whatever maximal length."""
    return bool(normal.get("rope", {}).get("rope_type") == "default")


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
