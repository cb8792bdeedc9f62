"""What a merge is asked to do: the config, read from YAML and checked before the models are.

The language is mergekit's, as people have it (`merge_method`, `base_model`, `models`,
`parameters`, `dtype`, ...), with a few keys of our own (`order`, `anchor`, `mode`, `version`,
`seed`, `reference`, `allow_nonfinite`). Every value is honoured or refused by name, and all
that is wrong is said at once. A mapping in, a `MergeConfig` out. Not here: which value a
parameter has for a tensor (`cuvee.merge.config.parameters`), and whatever only the
checkpoints tell.
"""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from cuvee.errors import RecipeError
from cuvee.merge.config.entries import (
    ARCEE_FUSION,
    ModelSpec,
    parse_model,
    parse_models,
    parse_parameters,
    unknown_keys,
)
from cuvee.merge.config.roles import Roles, assign_roles, fusion_roles, missing_parameters
from cuvee.merge.config.settings import Setting, setting_json
from cuvee.merge.methods.table import METHODS

Dtype = Literal["bfloat16", "float16", "float32"]
Anchor = Literal["later", "earlier"]
Mode = Literal["exact", "mergekit"]
Version = Literal["0.1.0", "0.1.5"]

CHOICES = {
    "dtype": ("bfloat16", "float16", "float32"),
    "out_dtype": ("bfloat16", "float16", "float32"),
    "anchor": ("later", "earlier"),
    "mode": ("exact", "mergekit"),
    "version": ("0.1.0", "0.1.5"),
}
"""Keys whose value is one of a few, with those."""
FUSION_KEYS = ("order", "anchor", "mode", "version")
KEYS = (
    "merge_method", "method", "base_model", "models", "parameters", "dtype", "out_dtype",
    "tokenizer_source", "tokenizer", "chat_template", *FUSION_KEYS, "seed", "reference",
    "allow_nonfinite",
)  # fmt: skip
REFUSED = {
    "slices": "not supported: every layer is merged with the same layer of the others; where "
    "the slices take all layers of each model, list the models under `models`",
    "modules": "not supported: all tensors are merged alike; list the models under `models`",
}
"""Keys of mergekit's that are not honoured: why, and what to do."""
MOST = 2**64 - 1


@dataclasses.dataclass(frozen=True)
class MergeConfig:
    """A merge, resolved: which models in which roles, and how."""

    method: str
    models: tuple[ModelSpec, ...]
    """Without the base; for arcee_fusion in the order they are fused. May repeat."""
    base: ModelSpec | None = None
    parameters: Mapping[str, Setting] = dataclasses.field(default_factory=dict)
    """What counts where a model has no setting of its own."""
    dtype: Dtype | None = None
    """What `mode: mergekit` computes in (None: the inputs' own); all else is in float32."""
    out_dtype: Dtype | None = None
    """None: the inputs' own."""
    tokenizer: str | None = None
    """The model whose tokenizer and template are copied; None: that of `source_of_files`."""
    chat_template: str | None = None
    """Text of a Jinja template to write; None: the copied one."""
    files_from: ModelSpec | None = None
    """The model whose small files are copied, where the config names one that has no other
    role; see `source_of_files`."""
    anchor: Anchor = "later"
    """Of arcee_fusion, as `mode` and `version` are."""
    mode: Mode = "exact"
    version: Version | None = None
    """The mergekit that `mode: mergekit` follows; None in the other mode."""
    seed: int = 0
    reference: ModelSpec | None = None
    """A checkpoint from which the diagnostics measure deltas."""
    allow_nonfinite: bool = False


def source_of_files(config: MergeConfig) -> ModelSpec:
    """Return the model whose config, generation config, tokenizer and template are copied.

    What the config names as `base_model`; without one the last anchor of arcee_fusion, and
    of any other method the first model.
    """
    if named := config.base or config.files_from:
        return named
    later = config.method == ARCEE_FUSION and config.anchor == "later"
    return config.models[-1 if later else 0]


def read_config(path: Path, flags: Mapping[str, Any] | None = None) -> MergeConfig:
    """Return the config of a YAML file; `flags` are keys of it that the command line gives.

    Raises RecipeError for a file that cannot be read, a flag that contradicts the file, and
    whatever `parse_config` refuses.
    """
    flags = flags or {}
    data = load_yaml(path)
    if other := [key for key in flags if key in data and data[key] != flags[key]]:
        shown = ", ".join(f"{key}: {data[key]!r}" for key in other)
        raise RecipeError(f"{path}: says {shown}, and the command line another; give it once")
    return parse_config({**data, **flags}, where=str(path))


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises RecipeError where it cannot be read or holds something else, and for a key that
    stands twice in a mapping, of which YAML readers silently drop the first.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data, tree = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the config: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a YAML document: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a config is a mapping, this is {type(data).__name__}")
    if repeated := _repeated_keys(tree):
        raise RecipeError(f"{path}: given twice in one mapping: {', '.join(repeated)}")
    return {str(key): value for key, value in data.items()}


def _repeated_keys(node: yaml.Node | None) -> list[str]:
    if isinstance(node, yaml.SequenceNode):
        return [name for part in node.value for name in _repeated_keys(part)]
    if not isinstance(node, yaml.MappingNode):
        return []
    counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
    line = node.start_mark.line + 1
    found = [f"{name} (from line {line} on)" for name, times in counts.items() if times > 1]
    return found + [name for _, part in node.value for name in _repeated_keys(part)]


def parse_config(data: Mapping[str, Any], *, where: str) -> MergeConfig:
    """Return a mapping, as YAML gives it, as a checked config; `where` names it in errors.

    A key whose value is null counts as not given. Raises RecipeError that lists all that is
    wrong: unknown keys (with the nearest known one), what is not supported, values out of
    range, and models or parameters that the method does not take, or lacks.
    """
    problems = _key_problems(data)
    given = {key: value for key, value in data.items() if value is not None}
    method = _method(given, problems)
    listed: tuple[ModelSpec, ...] = ()
    if "models" in given or not any(given.get(key) for key in REFUSED):
        listed = parse_models(given.get("models"), method, problems=problems)
    base = _model(given, "base_model", problems)
    parameters = parse_parameters(
        given.get("parameters"), method, key="parameters", of_model=False, problems=problems
    )
    chosen = {key: _choice(given, key, problems) for key in CHOICES}
    roles = Roles(listed, base)
    if method is not None:
        roles = _roles(given, method, roles, problems)
        problems += _fusion_problems(given, method)
        if listed:
            problems += missing_parameters(METHODS[method], roles.models, parameters)
    config = MergeConfig(
        method=method or "",
        models=roles.models,
        base=roles.base,
        parameters=parameters,
        dtype=cast("Dtype | None", chosen["dtype"]),
        out_dtype=cast("Dtype | None", chosen["out_dtype"] or chosen["dtype"]),
        tokenizer=_tokenizer(given, base, problems),
        chat_template=_chat_template(given.get("chat_template"), problems),
        files_from=roles.files_from,
        anchor=cast("Anchor", chosen["anchor"] or "later"),
        mode=cast("Mode", chosen["mode"] or "exact"),
        version=cast("Version | None", _version(chosen)),
        seed=_seed(given.get("seed", 0), problems),
        reference=_model(given, "reference", problems),
        allow_nonfinite=_flag(given.get("allow_nonfinite", False), "allow_nonfinite", problems),
    )
    if problems:
        raise RecipeError(f"{where}:\n  " + "\n  ".join(dict.fromkeys(problems)))
    return config


def config_json(config: MergeConfig) -> dict[str, Any]:
    """Return a config as plain JSON values in its own language; parsed, they give it again."""
    tokenizer = {"model": config.tokenizer, "adapter": None} if config.tokenizer else None
    named: dict[str, Any] = {
        "merge_method": config.method,
        "models": [_model_json(model) for model in config.models],
        "base_model": _model_json(config.base or config.files_from),
        "parameters": _settings_json(config.parameters) or None,
        "dtype": config.dtype,
        "out_dtype": config.out_dtype,
        "tokenizer_source": tokenizer,
        "chat_template": config.chat_template,
        "seed": config.seed,
        "reference": _model_json(config.reference),
        "allow_nonfinite": config.allow_nonfinite,
    }
    if config.method == ARCEE_FUSION:
        named |= {"anchor": config.anchor, "mode": config.mode, "version": config.version}
    return {key: value for key, value in named.items() if value is not None}


def _model_json(model: ModelSpec | None) -> dict[str, Any] | None:
    if model is None:
        return None
    named = {"model": model.spec, "adapter": model.adapter}
    return named | ({"parameters": _settings_json(model.parameters)} if model.parameters else {})


def _settings_json(settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {name: setting_json(setting) for name, setting in settings.items()}


def _key_problems(data: Mapping[str, Any]) -> list[str]:
    problems = [f"{key}: {why}" for key, why in REFUSED.items() if data.get(key)]
    known = {*KEYS, *REFUSED}
    parameters = {parameter.name for method in METHODS.values() for parameter in method.parameters}
    misplaced = [key for key in data if key in parameters - known]
    problems += [f"{key}: belongs under `parameters`" for key in misplaced]
    strange = [key for key in data if key not in {*known, *misplaced}]
    return problems + unknown_keys(strange, KEYS, within="")


def _method(given: Mapping[str, Any], problems: list[str]) -> str | None:
    keys = [key for key in ("merge_method", "method") if key in given]
    names = sorted(METHODS)
    methods = ", ".join(names)
    if len(keys) != 1:
        both = "merge_method: `method` says the same; give one of the two"
        problems.append(both if keys else f"merge_method: missing; there are {methods}")
        return None
    name = given[keys[0]]
    if isinstance(name, str) and name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    problems.append(f"{keys[0]}: no method {name!r}; {hint}there are {methods}")
    return None


def _roles(given: Mapping[str, Any], method: str, named: Roles, problems: list[str]) -> Roles:
    """Return who is what; `named`: the models as listed, and the config's base_model."""
    if not named.models:  # said already
        return named
    if method != ARCEE_FUSION:
        return assign_roles(METHODS[method], named.models, base=named.base, problems=problems)
    return fusion_roles(
        METHODS[method],
        named.models,
        base=named.base,
        order=given.get("order"),
        anchored="anchor" in given,
        problems=problems,
    )


def _model(given: Mapping[str, Any], key: str, problems: list[str]) -> ModelSpec | None:
    return parse_model(given[key], key=key, problems=problems) if key in given else None


def _choice(given: Mapping[str, Any], key: str, problems: list[str]) -> str | None:
    if key not in given:
        return None
    value = str(given[key])
    name = value.removeprefix("torch.") if key.endswith("dtype") else value
    if name in CHOICES[key]:
        return name
    problems.append(f"{key}: {given[key]!r}; allowed are {', '.join(CHOICES[key])}")
    return None


def _fusion_problems(given: Mapping[str, Any], method: str) -> list[str]:
    if method != ARCEE_FUSION:
        return [
            f"{key}: of {ARCEE_FUSION} alone, not of {method}"
            for key in FUSION_KEYS
            if key in given
        ]
    if "version" in given and given.get("mode") != "mergekit":
        return ["version: only with `mode: mergekit`, whose arithmetic it chooses"]
    return []


def _version(chosen: Mapping[str, str | None]) -> str | None:
    return chosen["version"] or "0.1.5" if chosen["mode"] == "mergekit" else None


def _tokenizer(given: Mapping[str, Any], base: ModelSpec | None, problems: list[str]) -> str | None:
    """Return the model whose tokenizer is copied, by mergekit's two ways of naming it.

    `union` of tokenizers that are all the same, which a merge requires anyway, is any of them.
    """
    if "tokenizer" in given and "tokenizer_source" in given:
        problems.append("tokenizer_source: `tokenizer` says the same; give one of the two")
        return None
    key, source = "tokenizer_source", given.get("tokenizer_source", "union")
    if "tokenizer" in given:
        key, source = "tokenizer.source", "union"
        if not isinstance(given["tokenizer"], dict):
            problems.append(f"tokenizer: {given['tokenizer']!r}; write {{source: MODEL}}")
            return None
        for name, value in given["tokenizer"].items():
            if name in ("tokens", "pad_to_multiple_of") and value is not None:
                problems.append(
                    f"tokenizer.{name}: not supported: a merge neither adds nor moves nor cuts "
                    "rows of the vocabulary"
                )
            elif name == "source" and value is not None:
                source = value
        known = ("source", "tokens", "pad_to_multiple_of")
        problems += unknown_keys(given["tokenizer"], known, within="tokenizer.")
    if source == "union":
        return None
    if source == "base":
        if base is None:
            problems.append(f"{key}: base, but there is no base_model; name a model")
        return base.spec if base else None
    model = parse_model(source, key=key, problems=problems)
    return model.spec if model else None


def _chat_template(value: Any, problems: list[str]) -> str | None:
    """Return a template's text; `auto` is the models' own, which a merge requires to agree."""
    if value is None or value == "auto":
        return None
    if isinstance(value, str) and "{" in value:
        return value
    if isinstance(value, str) and value.endswith(".jinja") and Path(value).is_file():
        return Path(value).read_text(encoding="utf-8")
    problems.append(
        f"chat_template: {value!r}; allowed are auto, a template's text and the path of a .jinja "
        "file that is there (mergekit's built-in templates are not part of cuvee)"
    )
    return None


def _seed(value: Any, problems: list[str]) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return value
    problems.append(f"seed: {value!r}; a whole number from 0 to 2^64 - 1 is allowed")
    return 0


def _flag(value: Any, key: str, problems: list[str]) -> bool:
    if not isinstance(value, bool):
        problems.append(f"{key}: {value!r}; write true or false")
    return value is True
