"""The record of a merge: totals, rows, places, and that it can be compared byte for byte."""

import json
from typing import Any

import numpy as np
import pytest

from cuvee.merge.diagnostics.measures import measure
from cuvee.merge.diagnostics.record import (
    Input,
    TensorRow,
    merge_record,
    place,
    record_text,
    row_from_json,
    row_json,
    short_names,
    summarise,
)


def fusion(elements: int, adopted: int, *, degenerate: bool = False) -> dict[str, Any]:
    return {
        "elements": elements, "differing": elements, "adopted": adopted,
        "q1": 0.0, "median": 0.0, "q3": 0.0, "threshold": 0.0, "degenerate": degenerate,
    }  # fmt: skip


def row(name: str, *fusions: dict[str, Any], models: int = 2, seed: int = 0) -> TensorRow:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(4, 5)).astype(np.float32)
    stack = (base + rng.normal(size=(models, 4, 5))).astype(np.float32)
    facts = {"fusions": list(fusions), "note": "x"} if fusions else {"weights": [0.5, 0.5]}
    return TensorRow(name, (4, 5), facts, tuple(measure(stack, base, stack[0]).tolist()))


def inputs(*names: str) -> list[Input]:
    return [Input(n, f"runs/{n}", f"hash-{n}", {"model.safetensors": 80}) for n in names]


def record(rows: list[TensorRow], *names: str, **config: Any) -> dict[str, Any]:
    return merge_record(
        rows,
        config={"merge_method": "arcee_fusion", "seed": 7, **config},
        models=inputs(*names),
        base=inputs("base")[0],
        out_dtype="bfloat16",
        warnings=["ties"],
    )


def test_totals_count_every_fusion_and_every_weight() -> None:
    rows = [row("a", fusion(20, 5), fusion(20, 15)), row("b", fusion(20, 0), fusion(20, 20))]
    rows.append(row("c", fusion(20, 0), fusion(20, 0, degenerate=True)))
    merged = summarise(rows)
    assert (merged.tensors, merged.weights, merged.elements, merged.adopted) == (3, 60, 120, 40)
    assert merged.share_adopted == pytest.approx(1 / 3)
    assert merged.degenerate == ("c",)


def test_a_fusion_of_no_elements_has_no_share_adopted() -> None:
    empty = fusion(0, 0)
    found = record([row("a", empty)], "math", "code")
    assert found["fusions"][0]["share_adopted"] is None
    assert found["tensors"][0]["fusions"][0]["share_adopted"] is None


def test_a_merge_without_fusions_has_no_share_adopted() -> None:
    merged = summarise([row("a")])
    assert (merged.share_adopted, merged.elements, merged.weights) == (None, 0, 20)
    assert record([row("a")], "x", "y")["fusions"] == []
    assert record([row("a")], "x", "y")["tensors"][0]["fusions"] == []


@pytest.mark.parametrize(
    ("anchor", "pairs"),
    [("later", [("code", "math"), ("science", "math+code")]),
     ("earlier", [("math", "code"), ("math+code", "science")])],
)  # fmt: skip
def test_each_fusion_names_its_anchor_and_the_other(
    anchor: str, pairs: list[tuple[str, str]]
) -> None:
    rows = [row("a", fusion(20, 5), fusion(20, 10), models=3)]
    found = record(rows, "math", "code", "science", anchor=anchor)
    assert [(f["anchor"], f["other"]) for f in found["fusions"]] == pairs
    assert [f["share_adopted"] for f in found["fusions"]] == [0.25, 0.5]


def test_a_row_has_its_place_facts_and_measures() -> None:
    found = record([row("model.layers.3.mlp.up_proj.weight", fusion(20, 5))], "math", "code")
    (tensor,) = found["tensors"]
    assert (tensor["layer"], tensor["module"], tensor["shape"]) == (3, "mlp.up_proj", [4, 5])
    assert tensor["facts"] == {"note": "x"}
    assert tensor["fusions"] == [fusion(20, 5) | {"share_adopted": 0.25}]
    assert tensor["measures"]["models"][0]["share_equal"] == 1.0
    assert found["order"][1]["identity"] == "hash-code"
    assert found["base"]["name"] == "base"
    assert (found["method"], found["seed"], found["out_dtype"]) == ("arcee_fusion", 7, "bfloat16")


def test_the_measures_of_all_tensors_are_those_of_their_sums() -> None:
    rows = [row("a", seed=1), row("b", seed=2)]
    found = record(rows, "x", "y")["totals"]["measures"]
    norms = [record([r], "x", "y")["totals"]["measures"]["models"][0]["delta_norm"] for r in rows]
    assert found["elements"] == 40
    assert found["models"][0]["delta_norm"] == pytest.approx(np.hypot(*norms))


def test_torch_is_named_only_where_it_took_part() -> None:
    assert set(record([row("a")], "x", "y")["versions"]) == {"cuvee", "numpy", "numba"}
    assert "torch" in record([row("a")], "x", "y", mode="mergekit")["versions"]


def test_rows_kept_as_json_give_the_same_record_byte_for_byte() -> None:
    rows = [row("a", fusion(20, 5), seed=1), row("model.layers.0.b", fusion(20, 6), seed=2)]
    kept = [row_from_json(json.loads(json.dumps(row_json(one)))) for one in rows]
    assert record_text(record(kept, "x", "y")) == record_text(record(rows, "x", "y"))


def test_a_number_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        record_text(record([row("a", fusion(20, 5) | {"q1": float("nan")})], "x", "y"))


def test_sums_of_another_number_of_models_are_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        record([row("a", models=3)], "x", "y")


@pytest.mark.parametrize(
    ("name", "layer", "module"),
    [("model.layers.12.self_attn.q_proj.weight", 12, "self_attn.q_proj"),
     ("model.layers.0.self_attn.q_proj.bias", 0, "self_attn.q_proj.bias"),
     ("layers.1.mlp.w", 1, "mlp.w"), ("transformer.h.4.attn.weight", 4, "transformer.attn"),
     ("model.encoder.layers.2.fc1.weight", 2, "encoder.fc1"),
     ("model.language_model.layers.2.norm.weight", 2, "language_model.norm"),
     ("model.layers.3.mlp.experts.7.up.weight", 3, "mlp.experts.7.up"),
     ("model.embed_tokens.weight", None, "embed_tokens"), ("lm_head.weight", None, "lm_head"),
     ("model.norm.weight", None, "norm"), ("my_layers.x", None, "my_layers.x")],
)  # fmt: skip
def test_a_tensor_is_placed_by_its_name(name: str, layer: int | None, module: str) -> None:
    assert place(name) == {"layer": layer, "module": module}


def test_short_names_are_the_last_part_and_tell_models_apart() -> None:
    assert short_names(["Qwen/a", "/models/b/", "c"]) == ["a", "b", "c"]
    assert short_names(["x/a", "y/a", "b"]) == ["x/a", "y/a", "b"]
    assert short_names(["a", "a"]) == ["a", "a (2)"]
