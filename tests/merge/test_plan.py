"""What is settled, and refused, before the first weight is read."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cuvee.errors import CuveeError, MergeError, RecipeError
from cuvee.merge.config.read import MergeConfig, parse_config
from cuvee.merge.plan import Plan, locate, make_plan, memory_needed
from cuvee.merge.stream import describe, merge
from cuvee.models.random_model import write_random_model

Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate("abc"):
        write_random_model(folder / name, seed=seed)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand beside the checkpoints `a`, `b` and `c`, which a test may damage."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def config(**changes: Any) -> MergeConfig:
    data: dict[str, Any] = {"merge_method": "arcee_fusion", "models": ["a", "b"]}
    return parse_config(data | changes, where="test")


def plan(asked: MergeConfig, *, threads: int = 2, max_ram: int | None = None) -> Plan:
    return make_plan(asked, Path("out"), threads=threads, max_ram=max_ram)


def edit_weights(folder: Path, **changes: Any) -> None:
    """Replace tensors by name (dots as `__`); None removes one."""
    file = folder / "model.safetensors"
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    tensors = {name: t for name, t in (load_file(file) | changed).items() if t is not None}
    save_file(tensors, file, {"format": "pt"})


def refused(asked: MergeConfig, kind: type[CuveeError] = MergeError, **options: Any) -> str:
    """Return why a merge is refused; planning, describing and merging say the same."""
    before = sorted(Path().rglob("*"))
    messages = set()
    calls: list[Callable[..., Any]] = [make_plan, describe, merge]
    for call in calls:
        with pytest.raises(kind) as raised:
            call(asked, Path("out"), **({"threads": 2, "max_ram": None} | options))
        messages.add(str(raised.value))
    assert sorted(Path().rglob("*")) == before  # nothing was written
    [message] = messages
    return message


def test_a_plan_has_tensors_in_the_order_of_layers(here: Path) -> None:
    found = plan(config())
    layers = [name.split(".")[2] for name in found.tensors if ".layers." in name]
    assert layers == sorted(layers, key=int)
    assert sorted(found.tensors) == sorted(load_file("a/model.safetensors"))
    assert found.bytes_out == sum(t.nbytes for t in load_file("a/model.safetensors").values())
    assert [name for shard in found.shards for name, _ in shard.tensors] == list(found.tensors)


def test_layer_ten_comes_after_layer_nine(here: Path) -> None:
    tensors = {f"model.layers.{n}.mlp.up_proj.weight": torch.zeros(2, 2) for n in range(12)}
    for name in "ab":
        save_file(tensors, f"{name}/model.safetensors", {"format": "pt"})
    assert [name.split(".")[2] for name in plan(config()).tensors] == [str(n) for n in range(12)]


def test_all_that_does_not_fit_is_listed_before_any_weight(here: Path) -> None:
    edit_weights(
        here / "b",
        model__norm__weight=torch.full((32,), float("nan")),
        extra=torch.zeros(2),
        model__layers__0__mlp__up_proj__weight=None,
    )
    message = refused(config())
    assert "tensors only in a: model.layers.0.mlp.up_proj.weight" in message
    assert "tensors only in b: extra" in message
    assert "model.norm.weight (64,) against (32,)" in message
    assert "NaN" not in message


def test_a_base_is_held_to_the_same(here: Path) -> None:
    edit_weights(here / "c", model__norm__weight=torch.zeros(32))
    asked = config(merge_method="ties", base_model="c", parameters={"weight": 1})
    assert "model.norm.weight (64,) against (32,)" in refused(asked)


def test_a_reference_needs_the_same_shapes_and_no_more(here: Path) -> None:
    (here / "c" / "tokenizer.json").unlink()
    assert plan(config(reference="c")).reference is not None
    edit_weights(here / "c", model__norm__weight=torch.zeros(32), extra=torch.zeros(2))
    message = refused(config(reference="c"))
    assert message == "reference c: tensors missing or of other shapes: extra, model.norm.weight"


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def cut_in_the_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def emptied(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (truncated, "b/model.safetensors: tensor .* it was cut short"),
        (cut_in_the_header, "b/model.safetensors: .*cut short or no header"),
        (emptied, "b/model.safetensors: not a readable safetensors file"),
        (without_weights, "b: neither model.safetensors nor"),
        (without_config, "b/config.json: cannot read"),
    ],
)
def test_a_damaged_folder_is_named(here: Path, edit: Edit, message: str) -> None:
    edit(here / "b")
    with pytest.raises(MergeError, match=message):
        plan(config())
    refused(config())


def test_a_model_that_is_not_there_is_named(here: Path) -> None:
    assert "not/there/at-all" in refused(config(models=["a", "not/there/at-all"]), RecipeError)


def test_a_folder_in_use_is_not_written_over(here: Path) -> None:
    with pytest.raises(MergeError, match="c: exists and is not an empty folder"):
        make_plan(config(), Path("c"), threads=1, max_ram=None)
    (here / "out").write_text("a file")
    assert "out: exists and is not an empty folder" in refused(config())
    (here / "out").unlink()
    (here / "out").mkdir()
    merge(config(), Path("out"), threads=1)
    assert (here / "out" / "config.json").exists()


def test_too_little_disk_is_said_before_anything_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = plan(config()).bytes_out
    looked_at = []

    def usage(path: Path) -> SimpleNamespace:
        looked_at.append(Path(path).exists())
        return SimpleNamespace(free=needed - 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    message = refused(config())
    assert "GB needed for the merged model" in message
    assert looked_at == [True] * 3
    plan(config(out_dtype="bfloat16"))  # half as large
    make_plan(config(out_dtype="float16"), Path("no/such/folder/out"), threads=1, max_ram=None)


def test_memory_allows_fewer_threads_or_none(here: Path) -> None:
    most = plan(config(), threads=3)
    assert most.threads == 3
    for threads in (3, 2, 1):
        limit = memory_needed(most, threads)
        assert plan(config(), threads=3, max_ram=limit).threads == threads
    message = refused(config(), max_ram=memory_needed(most, 1) - 1)
    assert "this merge needs" in message
    assert "one thread" in message
    whole = refused(config(mode="mergekit"), max_ram=10**8)
    assert "mode: mergekit holds whole tensors" in whole


def test_filters_that_decide_nothing_are_named(here: Path) -> None:
    def linear(weights: Any) -> MergeConfig:
        return config(merge_method="linear", parameters={"weight": weights})

    unused = linear([{"filter": "moe", "value": 1}, {"value": 0.5}])
    assert "filter 'moe': no tensor has it" in refused(unused, RecipeError)
    uncovered = linear([{"filter": "mlp", "value": 1}])
    message = refused(uncovered, RecipeError)
    assert "parameters.weight of a: no filter takes model.embed_tokens.weight" in message
    assert "parameters.weight of b" in message


def as_dtype(folder: Path, dtypes: Mapping[str, torch.dtype], *, rest: torch.dtype) -> None:
    file = folder / "model.safetensors"
    tensors = {name: t.to(dtypes.get(name, rest)) for name, t in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


def test_the_inputs_dtype_is_the_results_and_two_need_a_word(here: Path) -> None:
    assert plan(config()).out_dtype == "float32"
    as_dtype(here / "a", {}, rest=torch.bfloat16)
    message = refused(config(), RecipeError)
    assert "the models' weights are BF16, F32; say which dtype" in message
    assert plan(config(out_dtype="float16")).out_dtype == "float16"
    assert plan(config(dtype="bfloat16")).out_dtype == "bfloat16"
    as_dtype(here / "b", {"model.norm.weight": torch.float32}, rest=torch.bfloat16)
    assert "BF16, F32" in refused(config(), RecipeError)
    for name in "ab":
        as_dtype(here / name, {}, rest=torch.float64)
    assert "weights are F64" in refused(config(), RecipeError)


def test_differences_in_dtype_are_a_warning(here: Path) -> None:
    as_dtype(here / "a", {}, rest=torch.bfloat16)
    lines = describe(config(out_dtype="float32"), Path("out"), threads=1)
    assert any(line.startswith("warning: the tensors' dtypes differ") for line in lines)


def test_a_description_says_what_would_be_done(here: Path) -> None:
    lines = describe(config(merge_method="slerp", base_model="c", models=["a"],
                            parameters={"t": 0.5}), Path("out"), threads=2)  # fmt: skip
    assert lines[:2] == ["slerp of a", "base: c"]
    assert "in float32, 1 file, into out" in lines[2]
    assert lines[3] == "config from c, tokenizer from c"
    assert lines[4].startswith("2 threads, at most ")
    assert not Path("out").exists()


def test_files_come_from_the_last_anchor_or_who_is_named(here: Path) -> None:
    assert plan(config()).files_from == Path("b")
    assert plan(config(anchor="earlier")).files_from == Path("a")
    named = plan(config(tokenizer_source="c"))
    assert (named.files_from, named.tokenizer_from) == (Path("b"), Path("c"))


def test_a_tokenizer_that_is_named_decides_what_differs(here: Path) -> None:
    file = here / "b" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": "<|endoftext|>"}))
    assert "eos_token" in refused(config())
    assert any("eos_token" in text for text in plan(config(tokenizer_source="a")).warnings)


def test_a_folder_is_taken_as_it_is(here: Path) -> None:
    assert locate("a") == Path("a")
