"""The value of a parameter for a tensor: by hand, and as mergekit plans it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cuvee.errors import RecipeError
from cuvee.merge.blocks import Rule, Stack
from cuvee.merge.config.entries import ModelSpec
from cuvee.merge.config.parameters import method_parameters, missing_values, unused_filters
from cuvee.merge.config.read import MergeConfig, parse_config
from cuvee.merge.config.settings import Filtered, Setting, parse_setting, resolve, setting_json
from cuvee.merge.methods.spec import Method, Parameter
from cuvee.merge.methods.table import METHODS


def rule(stack: Stack, **parameters: Any) -> Rule:
    raise NotImplementedError("no test runs it")


WEIGHT = Parameter("weight", float, None, each_model=True)
DENSITY = Parameter("density", float, 1.0, low=0.0, high=1.0, each_model=True)
LAMBDA = Parameter("lambda", float, 1.0)
NORMALIZE = Parameter("normalize", bool, True)
STEPS = Parameter("max_iter", int, 10, low=1)
SPARSE = Method(
    "sparse", rule, "required", (1, None), (WEIGHT, DENSITY, LAMBDA, NORMALIZE), random=True
)
ALL = Parameter("any", float, 0.0)


def value(setting: Setting, tensor: str = "x", layer: int | None = 0, layers: int = 5) -> Any:
    return resolve(setting, tensor=tensor, layer=layer, layers=layers)


def parsed(raw: Any, parameter: Parameter = ALL) -> Setting:
    problems: list[str] = []
    setting = parse_setting(raw, parameter, key="k", problems=problems)
    assert setting is not None, problems
    return setting


def problems_of(raw: Any, parameter: Parameter) -> list[str]:
    problems: list[str] = []
    parse_setting(raw, parameter, key="k", problems=problems)
    return problems


def test_a_value_is_the_same_for_every_tensor() -> None:
    assert value(0.3, layer=None) == value(0.3, layer=4) == 0.3


@pytest.mark.parametrize(("layer", "expected"), [(0, 0), (1, 0.5), (2, 1), (3, 0.75), (4, 0.5)])
def test_a_gradient_is_spread_over_the_layers(layer: int, expected: float) -> None:
    assert value((0.0, 1.0, 0.5), layer=layer, layers=5) == expected


def test_a_gradient_gives_tensors_outside_the_layers_its_first_value() -> None:
    assert value((0.25, 1.0), layer=None) == 0.25


def test_a_gradient_gives_the_only_layer_its_last_value() -> None:
    assert value((0.25, 1.0), layer=0, layers=1) == 1.0


@pytest.mark.parametrize("layer", [0, 3, None])
def test_a_gradient_of_one_value_is_that_value(layer: int | None) -> None:
    assert value((0.7,), layer=layer) == 0.7


@pytest.mark.parametrize(("layer", "expected"), [(0, True), (1, True), (2, False), (4, True)])
def test_a_gradient_of_booleans_changes_in_steps(layer: int, expected: object) -> None:
    assert value((True, False, True), layer=layer, layers=5) is expected


def test_the_first_filter_that_fits_decides() -> None:
    setting = (Filtered("self_attn", (0.0, 1.0)), Filtered("attn", 0.3), Filtered(None, 0.5))
    assert value(setting, "model.layers.4.self_attn.q_proj.weight", layer=4) == 1.0
    assert value(setting, "model.layers.4.cross_attn.weight", layer=4) == 0.3
    assert value(setting, "model.norm.weight", layer=None) == 0.5


def test_no_filter_that_fits_gives_no_value() -> None:
    assert value((Filtered("mlp", 0.3),), "model.norm.weight") is None


def test_a_star_takes_every_tensor_and_a_single_mapping_is_a_list_of_one() -> None:
    assert parsed({"filter": "*", "value": 0.5}) == (Filtered(None, 0.5),)


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert parsed("1e-5") == 1e-5
    assert parsed(["1e-5", 1]) == (1e-5, 1.0)


def test_a_whole_number_stays_whole() -> None:
    assert parsed(5.0, STEPS) == 5
    assert isinstance(parsed(5.0, STEPS), int)


@pytest.mark.parametrize(
    ("raw", "parameter", "message"),
    [
        (1.5, DENSITY, "k: 1.5; allowed is a number from 0 to 1"),
        ([0.5, -0.1], DENSITY, "k[1]: -0.1; allowed is a number from 0 to 1"),
        ([{"filter": "a", "value": [0, 2]}], DENSITY, "k[0].value[1]: 2; allowed"),
        (0, STEPS, "k: 0; allowed is a whole number from 1 up"),
        (2.5, STEPS, "a whole number"),
        ([1, 5], STEPS, "no gradient"),
        (1, NORMALIZE, "k: 1; write true or false"),
        ("yes", NORMALIZE, "true or false"),
        (True, WEIGHT, "k: True; allowed is a number"),
        ("much", WEIGHT, "k: 'much'; allowed is a number"),
        (float("nan"), WEIGHT, "allowed is a number"),
        ("inf", WEIGHT, "allowed is a number"),
        (None, WEIGHT, "k: None"),
        ([], WEIGHT, "an empty list"),
        ([[1, 2]], WEIGHT, "k[0]: [1, 2]"),
        ([{"pattern": "mlp", "value": 1}], WEIGHT, "k[0].pattern: unknown key"),
        ([{"filter": "mlp"}], WEIGHT, "k[0]: no value"),
        ([{"filter": 3, "value": 1}], WEIGHT, "k[0].filter: 3"),
        ([{"filter": "mlp", "value": 1}, 0.5], WEIGHT, "k[1]: 0.5 among filters"),
        ([{"value": 1}, {"filter": "mlp", "value": 2}], WEIGHT, "k[0]: takes every tensor"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_named(
    raw: Any, parameter: Parameter, message: str
) -> None:
    assert message in "\n".join(problems_of(raw, parameter))


def test_every_wrong_number_of_a_setting_is_named() -> None:
    raw = [{"filter": "a", "value": [2, 3]}, {"value": -1}]
    assert len(problems_of(raw, DENSITY)) == 3


SCALARS = st.floats(0, 1) | st.integers(0, 1)
VALUES = SCALARS | st.lists(SCALARS, min_size=1, max_size=4)
FILTERS = st.sampled_from(["self_attn", "mlp", "embed", "layers.1", "weight", "*"])
RAW = VALUES | st.builds(
    lambda parts, last: [{"filter": f, "value": v} for f, v in parts if f != "*"] + last,
    st.lists(st.tuples(FILTERS, VALUES), max_size=3),
    st.lists(st.builds(lambda v: {"value": v}, VALUES), min_size=1, max_size=1),
)


@given(raw=RAW)
def test_a_setting_as_json_is_the_same_setting(raw: Any) -> None:
    setting = parsed(raw)
    assert parsed(json.loads(json.dumps(setting_json(setting)))) == setting


@given(raw=RAW, layer=st.integers(0, 6))
def test_every_value_lies_in_the_range_of_its_parameter(raw: Any, layer: int) -> None:
    name = f"model.layers.{layer}.mlp.weight"
    found = resolve(parsed(raw, DENSITY), tensor=name, layer=layer, layers=7)
    assert found is not None
    assert 0 <= found <= 1


def config(
    *models: dict[str, Setting], seed: int = 0, parameters: dict[str, Setting] | None = None
) -> MergeConfig:
    specs = tuple(ModelSpec(f"m{i}", None, own) for i, own in enumerate(models))
    return MergeConfig("sparse", specs, parameters=parameters or {}, seed=seed)


def arguments(merge: MergeConfig, tensor: str = "x", layer: int | None = None) -> dict[str, Any]:
    return method_parameters(merge, SPARSE, tensor=tensor, layer=layer, layers=3)


def test_arguments_are_those_of_the_method_with_its_defaults() -> None:
    found = arguments(config({"weight": 0.5}, {"weight": 2.0}, seed=7))
    assert found == {
        "seed": 7,
        "weight": (0.5, 2.0),
        "density": (1.0, 1.0),
        "lambda_": 1.0,
        "normalize": True,
    }


def test_a_models_own_setting_counts_before_the_configs() -> None:
    merge = config({"weight": 0.5}, {}, parameters={"weight": 0.1, "density": 0.3})
    found = arguments(merge)
    assert found["weight"] == (0.5, 0.1)
    assert found["density"] == (0.3, 0.3)


def test_an_own_setting_that_does_not_take_the_tensor_leaves_it_to_the_configs() -> None:
    merge = config({"weight": (Filtered("mlp", 0.9),)}, parameters={"weight": 0.1})
    assert arguments(merge, "a.mlp.b")["weight"] == (0.9,)
    assert arguments(merge, "a.norm")["weight"] == (0.1,)


def test_the_same_model_twice_has_two_values() -> None:
    merge = MergeConfig("sparse", (ModelSpec("a", None, {"weight": 1.0}),) * 2)
    assert arguments(merge)["weight"] == (1.0, 1.0)


def test_a_tensor_without_a_value_is_named_before_and_while_merging() -> None:
    merge = config({"weight": (Filtered("mlp", 0.9),)}, {"weight": 1.0})
    with pytest.raises(RecipeError, match=r"parameters\.weight of m0: no filter takes a\.norm"):
        arguments(merge, "a.norm")
    names = ["a.mlp", "a.norm", "b.norm", "c.norm", "d.norm"]
    (problem,) = missing_values(merge, SPARSE, names)
    assert "parameters.weight of m0: no filter takes a.norm, b.norm, c.norm and 1 more" in problem
    assert missing_values(merge, SPARSE, ["a.mlp"]) == []


def test_a_default_fills_what_filters_leave() -> None:
    merge = config({"weight": 1.0, "density": (Filtered("mlp", 0.2),)})
    assert arguments(merge, "a.norm")["density"] == (1.0,)
    assert missing_values(merge, SPARSE, ["a.norm"]) == []


def test_filters_that_decide_nothing_are_named() -> None:
    weight = (Filtered("attn", 1.0), Filtered("self_attn", 2.0), Filtered("mpl", 3.0))
    merge = config({"weight": (*weight, Filtered(None, 0.0))}, parameters={"lambda": 1.0})
    assert unused_filters(merge, ["a.self_attn.q", "a.mlp"]) == [
        "parameters.weight of m0: filter 'self_attn': earlier filters take all its tensors",
        "parameters.weight of m0: filter 'mpl': no tensor has it",
    ]


# As mergekit resolves and plans it. Its import warns of what its own dependencies do.
oracle = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
NAMES = ("model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight", "model.mlp.bias")


@oracle
@settings(max_examples=150, deadline=None)
@given(
    own=st.lists(st.none() | RAW, min_size=2, max_size=2),
    shared=RAW,
    normalize=st.none() | st.booleans() | st.lists(st.booleans(), min_size=1, max_size=3),
    layer=st.integers(0, 4),
    name=st.sampled_from(NAMES),
)
def test_values_are_those_of_mergekit(
    own: list[Any], shared: Any, normalize: Any, layer: int, name: str
) -> None:
    from mergekit import config as kit
    from mergekit import merge_methods
    from mergekit.common import ModelReference
    from mergekit.parameter_resolver import resolve_parameters

    models = [
        {"model": path} if weight is None else {"model": path, "parameters": {"weight": weight}}
        for path, weight in zip("ab", own, strict=True)
    ]
    top = {"weight": shared} if normalize is None else {"weight": shared, "normalize": normalize}
    data = {"merge_method": "linear", "models": models, "parameters": top}
    ours = method_parameters(
        parse_config(data, where="x"), METHODS["linear"], tensor=name, layer=layer, layers=5
    )
    theirs = kit.MergeConfiguration.model_validate(data)
    slices = [
        kit.InputSliceDefinition(model=m.model, layer_range=(0, 5), parameters=m.parameters)
        for m in theirs.models
    ]
    reader = kit.ConfigReader(
        config=theirs, t=layer / 4, slice_out=kit.OutputSliceDefinition(sources=slices)
    )
    inputs = {ModelReference.parse(path): name for path in "ab"}
    spec = merge_methods.get("linear").spec
    whole, each = resolve_parameters(
        spec, tensor_name=name, inputs=inputs, sources=reader.parameter_sources, t=reader.t
    )
    assert ours["normalize"] == whole["normalize"]
    assert ours["weight"] == tuple(each[ModelReference.parse(path)]["weight"] for path in "ab")


LAYER_TENSORS = (
    "input_layernorm mlp.down_proj mlp.gate_proj mlp.up_proj post_attention_layernorm "
    "self_attn.k_proj self_attn.o_proj self_attn.q_proj self_attn.v_proj"
).split()


def write_names(folder: Path, layers: int) -> list[str]:
    """Write what mergekit needs to plan: a config and a file with all tensors, each [1]."""
    names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    names += [f"model.layers.{i}.{part}.weight" for i in range(layers) for part in LAYER_TENSORS]
    folder.mkdir()
    described = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps({**described, "num_hidden_layers": layers}))
    save_file({name: np.zeros(1, np.float32) for name in names}, folder / "model.safetensors")
    return names


@oracle
@pytest.mark.parametrize("layers", [1, 4])
def test_each_tensor_gets_the_value_that_mergekit_plans(tmp_path: Path, layers: int) -> None:
    from mergekit.architecture import get_architecture_info
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    a, b = tmp_path / "a", tmp_path / "b"
    names = write_names(a, layers)
    write_names(b, layers)
    gradients = [
        {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
        {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
        {"value": [0.2, 0.9]},
    ]
    data = {
        "merge_method": "slerp",
        "base_model": str(a),
        "models": [{"model": str(a)}, {"model": str(b)}],
        "parameters": {"t": gradients},
    }
    config = parse_config(data, where="x")
    theirs, options = MergeConfiguration.model_validate(data), MergeOptions()
    LoaderCache().setup(options)
    planner = MergePlanner(
        theirs,
        get_architecture_info(theirs, options),
        options,
        theirs.base_model.config(),
    )
    planner._plan()
    planned = {weight.name: task.parameters["t"] for weight, task in planner._tensors}
    assert set(planned) == set(names)
    for name, t in planned.items():
        parts = name.split(".")
        layer = int(parts[2]) if parts[1] == "layers" else None
        found = method_parameters(config, METHODS["slerp"], tensor=name, layer=layer, layers=layers)
        assert found == {"t": t}, name
