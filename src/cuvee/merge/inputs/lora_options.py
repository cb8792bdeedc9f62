"""The options of a PEFT LoRA adapter (`adapter_config.json`): honoured, of no effect, or refused.

Not here: the adapter's tensors (`cuvee.merge.inputs.lora`).
"""

import re
from collections.abc import Mapping
from math import sqrt
from typing import Any

HONOURED = frozenset({
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias",
    "fan_in_fan_out", "modules_to_save", "init_lora_weights", "base_model_name_or_path",
})  # fmt: skip
WITHOUT_EFFECT = frozenset({
    "auto_mapping", "task_type", "peft_version", "revision", "inference_mode", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout", "megatron_core",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config",
    "qalora_group_size", "ensure_weight_tying",
})  # fmt: skip
"""Options that say how an adapter was trained or found; the file shows what they led to."""
INITIALISATIONS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Those that leave the base as it is. PiSSA, OLoRA, LoftQ, CorDA and LoRA-GA change it, and
such an adapter belongs to a base that nobody saved (unless PEFT converted it on saving, which
sets the option to true)."""


def option_problems(config: Mapping[str, Any]) -> list[str]:
    """Return a message for every option that changes the weights and is not honoured."""
    problems = []
    if config.get("peft_type") != "LORA":
        problems.append(f"peft_type {config.get('peft_type')!r}: only LORA is supported")
    start = config.get("init_lora_weights")
    if start not in INITIALISATIONS:
        problems.append(
            f"init_lora_weights {start!r}: it changes the base's weights, so the adapter does not "
            "fit the base; convert it with PEFT (path_initial_model_for_weight_conversion)"
        )
    others = sorted(config.keys() - HONOURED - WITHOUT_EFFECT)
    return problems + [f"{key} {config[key]!r}: not supported" for key in others if config[key]]


def number_problems(config: Mapping[str, Any]) -> list[str]:
    """Return a message for each value that ranks and scales cannot be computed from."""
    problems = [
        f"{key} {config.get(key)!r}: a number above 0 is needed"
        for key in ("r", "lora_alpha")
        if not _is_positive(config.get(key))
    ]
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict):
            problems.append(f"{key} {patterns!r}: a mapping of patterns to numbers is needed")
            continue
        problems += [
            f"{key} {pattern!r}: {value!r}: a regular expression and a number above 0 are needed"
            for pattern, value in patterns.items()
            if not (_is_pattern(pattern) and _is_positive(value))
        ]
    return problems


def rank_and_scale(module: str, config: Mapping[str, Any]) -> tuple[int, float]:
    """Return r and the factor of B @ A for a module, named as in the base.

    The first pattern of `rank_pattern` (`alpha_pattern`) that matches the whole name, or what
    follows one of its dots, stands in for `r` (`lora_alpha`): PEFT's rule.
    """

    def stated(patterns: Mapping[str, Any], default: Any) -> Any:
        matching = (p for p in patterns if re.match(rf"(.*\.)?({p})$", module))
        return patterns.get(next(matching, module), default)

    rank = stated(config.get("rank_pattern") or {}, config["r"])
    alpha = stated(config.get("alpha_pattern") or {}, config["lora_alpha"])
    return rank, alpha / (sqrt(rank) if config.get("use_rslora") else rank)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
