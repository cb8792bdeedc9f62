"""Configs as people write them: mergekit's and ours, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import RecipeError
from cuvee.merge.config.entries import ModelSpec
from cuvee.merge.config.read import (
    MergeConfig,
    config_json,
    load_yaml,
    parse_config,
    read_config,
    source_of_files,
)
from cuvee.merge.config.settings import Filtered
from cuvee.merge.methods.table import METHODS

LINEAR = """
models:
  - model: org/orca-13b
    parameters:
      weight: 1.0
  - model: org/wizard-13b
    parameters:
      weight: 0.3
merge_method: linear
dtype: float16
"""

SLERP = """
merge_method: slerp
base_model: models/chat
models:
  - model: models/chat
  - model: models/code
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: bfloat16
"""

TIES = """
models:
  - model: org/mistral-base
    # no parameters necessary for base model
  - model: org/instruct
    parameters:
      density: [1, 0.7, 0.1]
      weight: 1.0
  - model: org/math
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: org/mistral-base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
"""

DARE = """
models:
  - model: org/base-7b
  - model: org/sam-7b
    parameters: {density: 0.53, weight: 0.4}
  - model: org/slerp-7b
    parameters: {density: 0.53, weight: 0.3}
merge_method: dare_ties
base_model: org/base-7b
parameters:
  int8_mask: true
  lambda: 1.1
dtype: bfloat16
tokenizer_source: union
"""

STOCK = """
models:
  - model: org/a
  - model: org/b
merge_method: model_stock
base_model: org/base
parameters:
  filter_wise: false
dtype: torch.bfloat16
tokenizer: {source: base}
chat_template: auto
"""

FUSION = """
models:
  - model: model_a
  - model: model_b
merge_method: arcee_fusion
base_model: model_a
dtype: bfloat16
"""


def config(text: str, **changes: Any) -> MergeConfig:
    """Return a config's text, with keys changed, as parsed; None removes a key."""
    return parse_config({**yaml.safe_load(text), **changes}, where="x.yml")


def refused(text: str, **changes: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        config(text, **changes)
    message = str(caught.value)
    assert message.startswith("x.yml:\n  ")
    return message


def specs(merge: MergeConfig) -> list[str]:
    return [model.name for model in merge.models]


# mergekit's YAML as it is


def test_linear() -> None:
    merge = config(LINEAR)
    assert merge.models == (
        ModelSpec("org/orca-13b", None, {"weight": 1.0}),
        ModelSpec("org/wizard-13b", None, {"weight": 0.3}),
    )
    assert merge.base is None
    assert merge.out_dtype == "float16"


def test_slerp_with_gradients_and_filters() -> None:
    merge = config(SLERP)
    assert (merge.base, specs(merge)) == (ModelSpec("models/chat"), ["models/code"])
    assert merge.parameters["t"] == (
        Filtered("self_attn", (0.0, 0.5, 0.3, 0.7, 1.0)),
        Filtered("mlp", (1.0, 0.5, 0.7, 0.3, 0.0)),
        Filtered(None, 0.5),
    )


def test_ties_drops_the_base_from_the_models() -> None:
    merge = config(TIES)
    assert merge.base == ModelSpec("org/mistral-base")
    assert specs(merge) == ["org/instruct", "org/math"]
    assert merge.models[0].parameters == {"density": (1.0, 0.7, 0.1), "weight": 1.0}


def test_dare_ties() -> None:
    merge = config(DARE)
    assert specs(merge) == ["org/sam-7b", "org/slerp-7b"]
    assert merge.parameters["lambda"] == 1.1
    assert merge.tokenizer is None  # the union of equal tokenizers


def test_model_stock() -> None:
    merge = config(STOCK)
    assert merge.out_dtype == "bfloat16"
    assert merge.tokenizer == "org/base"
    assert merge.chat_template is None


@pytest.mark.parametrize("listed", [["model_a", "model_b"], ["model_b"], ["model_b", "./model_a/"]])
def test_arcee_fusion_ends_on_the_base_which_is_the_anchor(listed: list[str]) -> None:
    merge = config(FUSION, models=listed)
    assert (merge.models[0].name, merge.anchor, merge.base) == ("model_b", "later", None)
    assert source_of_files(merge) == merge.models[1]
    assert merge.models[1].name == "model_a"


def test_a_merge_of_every_method_of_the_table_can_be_asked_for() -> None:
    for method in METHODS.values():
        needed = {p.name: 0.5 for p in method.parameters if p.default is None}
        data = {
            "merge_method": method.name,
            "models": ["a", "b", "c"][: method.models[0]],
            "parameters": needed,
            "base_model": "base" if method.base == "required" else None,
        }
        assert parse_config(data, where="x").method == method.name


# Roles


def test_a_fusion_of_many_is_a_chain_in_the_order_given() -> None:
    models = ["a", "b+lora", {"model": "c", "adapter": "d"}]
    changes = {"base_model": None, "models": models}
    merge = config(FUSION, order=["c+d", "a", "b+lora"], anchor="earlier", **changes)
    assert (specs(merge), merge.anchor) == (["c+d", "a", "b+lora"], "earlier")
    assert source_of_files(merge).name == "c+d"
    assert specs(config(FUSION, **changes)) == ["a", "b+lora", "c+d"]


def test_order_names_each_model_once() -> None:
    message = refused(FUSION, base_model=None, order=["model_b", "model_b", "model_c"])
    assert "order[1]: 'model_b'; models not yet named are: model_a" in message
    assert "order[2]: 'model_c'" in message
    assert "order: does not name model_a" in message


def test_base_model_and_order_say_the_same_in_two_ways() -> None:
    assert "base_model: order and anchor" in refused(FUSION, anchor="later")


def test_base_model_fuses_two_models_alone() -> None:
    message = refused(FUSION, models=["model_a", "b", "c"])
    assert "arcee_fusion with base_model takes exactly 1 beside it, got 2" in message
    assert "`order` and `anchor`" in message


def test_the_same_model_may_come_twice() -> None:
    assert specs(config(FUSION, models=["model_a", "model_a"])) == ["model_a", "model_a"]
    assert specs(config(SLERP, models=["models/chat", "models/chat"])) == ["models/chat"]
    assert specs(config(LINEAR, models=["a", "a"], parameters={"weight": 1})) == ["a", "a"]


def test_parameters_of_the_base_are_refused() -> None:
    models = [{"model": "org/base", "parameters": {"weight": 1}}, "org/a", "org/b"]
    changes = {"base_model": "org/base", "parameters": {"weight": 1}}
    assert "models[0].parameters: org/base is the base" in refused(TIES, models=models, **changes)


def test_a_method_without_base_takes_its_files_from_base_model() -> None:
    merge = config(LINEAR, base_model="org/wizard-13b")
    assert specs(merge) == ["org/orca-13b", "org/wizard-13b"]
    assert merge.base is None
    assert source_of_files(merge).name == "org/wizard-13b"
    assert "linear has no base; list it" in refused(LINEAR, base_model="org/other")


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (TIES, {"base_model": None}, "base_model: missing; ties needs"),
        (SLERP, {"models": ["a", "b"]}, "slerp takes exactly 1 beside the base, got 2"),
        (SLERP, {"models": ["models/chat"]}, "got 0"),
        (STOCK, {"models": ["org/base", "a"]}, "takes 2 or more beside the base, got 1"),
        (FUSION, {"models": ["model_a"]}, "takes exactly 1 beside it, got 0"),
        (LINEAR, {"models": []}, "a list of the models"),
        (LINEAR, {"models": None}, "a list of the models"),
        (LINEAR, {"models": "a"}, "a list of the models"),
    ],
)
def test_models_that_do_not_fit_the_method(
    text: str, changes: dict[str, Any], message: str
) -> None:
    assert message in refused(text, **changes)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a/b", ModelSpec("a/b")),
        ("a/b+c/d", ModelSpec("a/b", "c/d")),
        ({"model": "a", "adapter": "b"}, ModelSpec("a", "b")),
        ({"model": "a+b"}, ModelSpec("a", "b")),
        ({"model": "a+b", "adapter": None}, ModelSpec("a+b")),
    ],
)
def test_ways_to_name_a_model(value: Any, expected: ModelSpec) -> None:
    assert config(SLERP, models=[value]).models == (expected,)
    assert config(SLERP, base_model=value, models=["x"]).base == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "models[0]: 3; a model is PATH"),
        ("", "models[0]: ''"),
        ("a+", "models[0]: 'a+'"),
        ({"model": None}, "a model is PATH"),
        ({"model": "a", "lora": "b"}, "models[0].lora: unknown key"),
        ({"modle": "a"}, "did you mean 'model'?"),
        ("org/name@main", "revisions are not supported"),
    ],
)
def test_a_model_that_is_none_is_named(value: Any, message: str) -> None:
    assert message in refused(SLERP, models=[value])


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_modle": "a"}, "base_modle: unknown key; did you mean 'base_model'?"),
        ({"wibble": 1}, "wibble: unknown key; known keys: merge_method"),
        ({"int8_mask": True}, "int8_mask: belongs under `parameters`"),
        ({"weight": 1}, "weight: belongs under `parameters`"),
        ({"slices": [{"sources": []}]}, "slices: not supported"),
        ({"modules": {"default": {}}}, "modules: not supported"),
        ({"method": "linear"}, "merge_method: `method` says the same"),
        ({"merge_method": "linaer"}, "no method 'linaer'; did you mean 'linear'?"),
        ({"merge_method": None}, "merge_method: missing; there are"),
        ({"dtype": "float64"}, "dtype: 'float64'; allowed are bfloat16, float16, float32"),
        ({"out_dtype": "int8"}, "out_dtype: 'int8'"),
        ({"parameters": {"t": 0.5}}, "parameters.t: unknown key; known keys: normalize, weight"),
        ({"parameters": {"wieght": 1}}, "did you mean 'weight'?"),
        ({"parameters": {"normalize": 1}}, "parameters.normalize: 1; write true or false"),
        ({"parameters": {"int8_mask": True}}, "parameters.int8_mask: unknown key"),
        ({"parameters": [1]}, "parameters: [1]; a mapping"),
        ({"models": ["a", "b"]}, "parameters.weight: missing for a, b; linear has no default"),
        ({"order": ["a"]}, "order: of arcee_fusion alone, not of linear"),
        ({"anchor": "later"}, "anchor: of arcee_fusion alone"),
        ({"mode": "exact"}, "mode: of arcee_fusion alone"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": True}, "seed: True"),
        ({"seed": 2**64}, "from 0 to 2^64 - 1"),
        ({"allow_nonfinite": "yes"}, "allow_nonfinite: 'yes'; write true or false"),
        ({"reference": 5}, "reference: 5; a model is"),
        ({"tokenizer_source": "base"}, "tokenizer_source: base, but there is no base_model"),
        ({"tokenizer": "base"}, "tokenizer: 'base'; write {source: MODEL}"),
        ({"tokenizer": {"pad_to_multiple_of": 8}}, "tokenizer.pad_to_multiple_of: not supported"),
        ({"tokenizer": {"tokens": {"<a>": {}}}}, "tokenizer.tokens: not supported"),
        ({"tokenizer": {"sorce": "a"}}, "tokenizer.sorce: unknown key; did you mean 'source'?"),
        ({"tokenizer": {"source": 3}}, "tokenizer.source: 3; a model is"),
        ({"tokenizer": {}, "tokenizer_source": "union"}, "`tokenizer` says the same"),
        ({"chat_template": "chatml"}, "chat_template: 'chatml'; allowed are auto"),
        ({"chat_template": "none.jinja"}, "chat_template: 'none.jinja'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    assert message in refused(LINEAR, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "mergkit"}, "mode: 'mergkit'; allowed are exact, mergekit"),
        ({"version": "0.1.0"}, "version: only with `mode: mergekit`"),
        ({"mode": "exact", "version": "0.1.5"}, "version: only with `mode: mergekit`"),
        ({"mode": "mergekit", "version": 0.1}, "version: 0.1; allowed are 0.1.0, 0.1.5"),
        ({"parameters": {"weight": 1}}, "parameters: arcee_fusion has no parameters, got weight"),
    ],
)
def test_what_arcee_fusion_cannot_honour_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refused(FUSION, **changes)


def test_a_parameter_for_the_whole_merge_is_refused_of_a_model() -> None:
    models = [{"model": "b", "parameters": {"t": 0.5}}]
    message = refused(SLERP, models=models)
    assert "models[0].parameters.t: one for the whole merge" in message


def test_all_that_is_wrong_is_said_at_once() -> None:
    message = refused(
        LINEAR, merge_method="slerp", dtype="fp16", seed="x", bas_model="a", parameters={"t": 2}
    )
    for part in ("bas_model", "base_model", "dtype", "seed", "parameters.t: 2", "models[0]"):
        assert part in message
    assert "missing; slerp has no default" not in message  # it is there, but out of range


@given(
    st.dictionaries(
        st.sampled_from([*"abc", "models", "merge_method", "parameters", "tokenizer", "order"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["model", "value", "x"]), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    )
)
def test_nothing_but_a_recipe_error_comes_of_a_wrong_config(changes: dict[str, Any]) -> None:
    try:
        config(TIES, **changes)
    except RecipeError as error:
        assert "x.yml" in str(error)


# Single keys


def test_the_method_has_two_names() -> None:
    assert config(LINEAR, merge_method=None, method="linear") == config(LINEAR)


def test_dtype_is_that_of_the_files_unless_out_dtype_says_another() -> None:
    assert config(LINEAR, dtype=None).out_dtype is None
    assert config(LINEAR, out_dtype="bfloat16").out_dtype == "bfloat16"
    assert config(LINEAR, out_dtype="bfloat16").dtype == "float16"


def test_mode_mergekit_follows_the_newest_version_by_default() -> None:
    assert config(FUSION).version is None
    assert config(FUSION, mode="mergekit").version == "0.1.5"
    assert config(FUSION, mode="mergekit", version="0.1.0").version == "0.1.0"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"tokenizer_source": "union"}, None),
        ({"tokenizer": {}}, None),
        ({"tokenizer": {"source": "base", "pad_to_multiple_of": None}}, "models/chat"),
        ({"tokenizer_source": "base"}, "models/chat"),
        ({"tokenizer_source": "org/another"}, "org/another"),
        ({"tokenizer": {"source": "models/code+lora"}}, "models/code"),
    ],
)
def test_whose_tokenizer_is_copied(changes: dict[str, Any], expected: str | None) -> None:
    assert config(SLERP, **changes).tokenizer == expected


def test_a_chat_template_is_text_or_a_file(tmp_path: Path) -> None:
    text = "{% for message in messages %}{{ message.content }}{% endfor %}"
    assert config(LINEAR, chat_template=text).chat_template == text
    (tmp_path / "chat.jinja").write_text(text)
    assert config(LINEAR, chat_template=str(tmp_path / "chat.jinja")).chat_template == text


# Files


def test_a_file_is_read_with_the_flags_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text(LINEAR)
    assert read_config(file) == config(LINEAR)
    assert read_config(file, {"seed": 3}).seed == 3
    file.write_text(LINEAR + "seed: 4\n")
    assert read_config(file, {"seed": 4}).seed == 4
    with pytest.raises(RecipeError, match=r"c\.yml: says seed: 4, and the command line another"):
        read_config(file, {"seed": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "a (from line 1 on)"),
        ("x:\n  - b: 1\n    b: 2\n", "b (from line 2 on)"),
        ("- a\n", "a config is a mapping, this is list"),
        ("", "this is NoneType"),
        ("a: [", "not a YAML document"),
        ("a: 1\n---\na: 2\n", "not a YAML document"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_yaml(tmp_path / "c.yml")
    assert message in str(caught.value)
    assert "c.yml" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yml: cannot read the config"):
        read_config(tmp_path / "none.yml")


@pytest.mark.parametrize("text", [LINEAR, SLERP, TIES, DARE, STOCK, FUSION])
@pytest.mark.parametrize(
    "changes",
    [{}, {"seed": 5, "allow_nonfinite": True, "reference": "a+b", "tokenizer_source": "x"}],
)
def test_a_config_as_json_is_the_same_config(text: str, changes: dict[str, Any]) -> None:
    merge = config(text, **changes) if "tokenizer: " not in text else config(text)
    assert parse_again(merge) == merge


def parse_again(merge: MergeConfig) -> MergeConfig:
    """Return what a config's own JSON says; yaml checks that it is plain."""
    return parse_config(yaml.safe_load(yaml.safe_dump(config_json(merge))), where="json")


def test_json_of_a_fusion_says_order_and_anchor() -> None:
    written = config_json(config(FUSION, mode="mergekit", seed=7))
    assert [model["model"] for model in written["models"]] == ["model_b", "model_a"]
    assert (written["anchor"], written["mode"], written["version"]) == (
        "later",
        "mergekit",
        "0.1.5",
    )
    assert "base_model" not in written


DOCS = Path(__file__).parents[2] / "docs" / "merge.md"
EXAMPLES = [
    block.split("```")[0]
    for block in DOCS.read_text(encoding="utf-8").split("```yaml\n")[1:]
    if "method:" in block.split("```")[0]
]


def test_the_examples_of_the_docs_are_configs_and_two_of_them_the_same_merge() -> None:
    parsed = [parse_config(yaml.safe_load(text), where="docs") for text in EXAMPLES]
    mergekits, ours = (config_json(merge) for merge in parsed[1:3])
    assert mergekits.pop("dtype") == ours["out_dtype"]  # what arcee_fusion does not look at
    assert mergekits == ours
