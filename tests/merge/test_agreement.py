"""What keeps checkpoints from being merged, said at once, and what is only worth knowing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from cuvee.errors import MergeError
from cuvee.merge.inputs.agreement import check_agreement, tied_aliases
from cuvee.merge.inputs.config_agreement import DEFAULTS, compare_configs, normal_config
from cuvee.merge.inputs.headers import read_headers
from cuvee.merge.inputs.tokenizer_agreement import compare_tokenizers, vocabulary_size
from cuvee.merge.inputs.wording import labels, listed_names
from cuvee.models.random_model import write_random_model

Pair = tuple[Path, Path]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    write_random_model(folder / "tied", tied=True)
    write_random_model(folder / "untied", tied=False)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def pair(made: dict[str, Path], tmp_path: Path) -> Pair:
    """Two equal checkpoints with tied embeddings, for a test to change."""
    return (
        shutil.copytree(made["tied"], tmp_path / "math"),
        shutil.copytree(made["tied"], tmp_path / "code"),
    )


@pytest.fixture
def untied(made: dict[str, Path], tmp_path: Path) -> Pair:
    return (
        shutil.copytree(made["untied"], tmp_path / "untied" / "math"),
        shutil.copytree(made["untied"], tmp_path / "untied" / "code"),
    )


def check(pair: Pair, *, decided: bool = False) -> list[str]:
    return check_agreement([read_headers(path) for path in pair], tokenizer_decided=decided)


def refusal(pair: Pair, *, decided: bool = False) -> str:
    with pytest.raises(MergeError) as raised:
        check(pair, decided=decided)
    return str(raised.value)


def edit(path: Path, name: str = "config.json", **changes: Any) -> None:
    file = path / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def drop(path: Path, *keys: str, name: str = "config.json") -> None:
    file = path / name
    file.write_text(
        json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k not in keys})
    )


def weights(path: Path, change: Callable[[Tensors], None]) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def template(path: Path, text: str | None) -> None:
    """Give a checkpoint a chat template, or take it away."""
    (path / "chat_template.jinja").unlink(missing_ok=True)
    drop(path, "chat_template", name="tokenizer_config.json")
    if text is not None:
        (path / "chat_template.jinja").write_text(text)


def test_equal_checkpoints_give_no_warning(pair: Pair, untied: Pair) -> None:
    assert check(pair) == []
    assert check((pair[0], pair[0])) == []
    assert check_agreement([read_headers(pair[0])]) == []


def test_all_that_does_not_fit_is_listed_at_once(pair: Pair) -> None:
    code = pair[1]

    def damage(tensors: Tensors) -> None:
        tensors["model.norm.weight"] = torch.zeros(32)
        tensors["extra.weight"] = torch.zeros(2)
        tensors["counter"] = torch.zeros(2, dtype=torch.int64)
        del tensors["model.layers.0.mlp.up_proj.weight"]

    weights(code, damage)
    edit(code, vocab_size=300, rms_norm_eps=1e-6, hidden_act="gelu")
    edit(code, "tokenizer_config.json", eos_token="<|endoftext|>")
    template(code, "{{ messages }}")
    message = refusal(pair)
    for part in (
        "tensors only in math: model.layers.0.mlp.up_proj.weight",
        "tensors only in code: counter, extra.weight",
        "model.norm.weight (64,) against (32,)",
        "code has dtypes other than F64, F32, F16, BF16: counter (I64)",
        "config vocab_size: 265 in math, 300 in code",
        "config rms_norm_eps: 1e-05 in math, 1e-06 in code",
        'config hidden_act: "silu" in math, "gelu" in code',
        "the chat templates of math and code differ",
        "eos_token ('<|im_end|>', '<|endoftext|>')",
    ):
        assert part in message


def test_every_checkpoint_is_compared_and_named(pair: Pair, tmp_path: Path) -> None:
    third = shutil.copytree(pair[0], tmp_path / "science")
    edit(pair[1], num_attention_heads=8)
    edit(third, rms_norm_eps=1.0)
    with pytest.raises(MergeError) as raised:
        check_agreement([read_headers(path) for path in (*pair, third)])
    assert "config num_attention_heads: 4 in math, 8 in code" in str(raised.value)
    assert "config rms_norm_eps: 1e-05 in math, 1.0 in science" in str(raised.value)


def test_nothing_to_merge_is_refused() -> None:
    with pytest.raises(MergeError, match="at least one"):
        check_agreement([])


# Tensors: names, dtypes, tied embeddings, rows of the vocabulary


def test_dtypes_that_differ_are_a_warning_with_counts(pair: Pair) -> None:
    def narrow(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name].half()
        tensors["model.norm.weight"] = tensors["model.norm.weight"].double()

    weights(pair[1], narrow)
    differ, float16, float64 = check(pair)
    assert re.search(r"math: \d+ F32; code: \d+ F16, 1 F64", differ)
    assert "code holds" in float16
    assert "float16" in float16
    assert "code holds 1 float64 tensors: they are rounded to float32" in float64


def copy_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


def test_a_tied_copy_that_only_one_stores_is_refused_with_the_way_out(pair: Pair) -> None:
    weights(pair[1], copy_head)
    message = refusal(pair)
    assert "code stores lm_head.weight although its config ties it" in message
    assert "save it again" in message
    assert "tensors only in" not in message
    stored = read_headers(pair[1])
    assert tied_aliases(stored) == {"lm_head.weight": "model.embed_tokens.weight"}
    assert tied_aliases(read_headers(pair[0])) == {}


def test_tied_copies_that_both_store_are_merged_and_said(pair: Pair) -> None:
    weights(pair[0], copy_head)
    weights(pair[1], copy_head)
    [warning] = check(pair)
    assert "math and code store lm_head.weight" in warning


def test_tied_against_untied_names_both(made: dict[str, Path]) -> None:
    message = refusal((made["tied"], made["untied"]))
    assert "embeddings are tied in tied (one matrix for input and output) and untied in untied" in (
        message
    )
    assert "tensors only in" not in message


def test_tying_that_the_config_leaves_out_is_seen_in_the_tensors(pair: Pair, untied: Pair) -> None:
    for two in (pair, untied):
        drop(two[1], "tie_word_embeddings")
        assert check(two) == []


@pytest.mark.parametrize("rows", [264, 272])
def test_padding_that_differs_is_explained_and_never_cut(untied: Pair, rows: int) -> None:
    def pad(tensors: Tensors) -> None:
        for name in ("lm_head.weight", "model.embed_tokens.weight"):
            tensors[name] = torch.zeros(rows, 64)

    weights(untied[1], pad)
    message = refusal(untied)
    assert "the vocabulary's padding differs" in message
    assert f"lm_head.weight has 265 rows in math, {rows} in code" in message
    assert f"model.embed_tokens.weight has 265 rows in math, {rows} in code" in message
    assert "that of math has 265 tokens, that of code has 265 tokens" in message
    assert "cuts no row" in message
    assert f"resize_token_embeddings({max(rows, 265)})" in message
    assert "shapes differ" not in message


def test_equal_padding_beyond_the_tokenizer_is_no_difference(untied: Pair) -> None:
    def pad(tensors: Tensors) -> None:
        for name in ("lm_head.weight", "model.embed_tokens.weight"):
            tensors[name] = torch.zeros(320, 64)

    for path in untied:
        weights(path, pad)
        edit(path, vocab_size=320)
    assert check(untied) == []


# Configs


def test_bookkeeping_is_free(pair: Pair) -> None:
    edit(pair[1], transformers_version="4.40.0", use_cache=False, pad_token_id=5, torch_dtype="x")
    edit(pair[1], _name_or_path="/somewhere", attention_dropout=0.1)
    assert check(pair) == []


def test_tokens_that_end_an_answer_and_maximal_length_are_warnings(pair: Pair) -> None:
    edit(pair[1], eos_token_id=0, max_position_embeddings=8192)
    warnings = check(pair)
    assert [w.split(":")[0] for w in warnings] == [
        "config eos_token_id",
        "config max_position_embeddings",
    ]


def test_generation_settings_are_a_warning(pair: Pair) -> None:
    edit(pair[1], "generation_config.json", temperature=0.6, transformers_version="0")
    assert check(pair) == ["generation_config.json of math and code differ in temperature"]


@pytest.mark.parametrize(
    ("four", "five"),
    [
        ({"rope_theta": 5e5}, {"rope_theta": 500000, "rope_type": "default"}),
        ({}, {"rope_theta": 10000.0, "rope_type": "default"}),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_theta": 1e6, "rope_type": "linear", "factor": 2},
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            {
                "rope_theta": 10000.0,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 4096,
            },
        ),
    ],
)
def test_rope_as_transformers_4_and_5_spell_it_is_the_same(
    pair: Pair, four: dict[str, Any], five: dict[str, Any]
) -> None:
    drop(pair[0], "rope_parameters")
    edit(pair[0], **four)
    edit(pair[1], rope_parameters=five)
    assert check(pair) == []
    edit(pair[1], rope_parameters=five | {"rope_theta": 7.0})
    assert "config rope" in refusal(pair)


def test_rope_by_kind_of_layer_is_compared_in_both_spellings() -> None:
    four = {"rope_theta": 1e6, "rope_scaling": None, "rope_local_base_freq": 1e4}
    five = {
        "rope_parameters": {
            "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        }
    }
    assert compare_configs(("a", four), ("b", five)) == ([], [])
    five["rope_parameters"]["sliding_attention"]["rope_theta"] = 2e4
    errors, _ = compare_configs(("a", four), ("b", five))
    assert len(errors) == 1


def test_scaling_that_only_one_has_is_a_difference(pair: Pair) -> None:
    drop(pair[0], "rope_parameters")
    drop(pair[1], "rope_parameters")
    edit(pair[1], rope_scaling={"rope_type": "linear", "factor": 4.0})
    assert "config rope" in refusal(pair)


def test_maximal_length_matters_where_rope_is_scaled_by_it(pair: Pair) -> None:
    for path, length in zip(pair, (4096, 8192), strict=True):
        drop(path, "rope_parameters")
        edit(
            path,
            rope_scaling={"rope_type": "dynamic", "factor": 2.0},
            max_position_embeddings=length,
        )
    assert "config max_position_embeddings" in refusal(pair)


@pytest.mark.parametrize(
    "config", [LlamaConfig(), MistralConfig(), Qwen2Config(), Qwen3Config()], ids=type
)
def test_defaults_are_those_of_transformers(config: Any) -> None:
    full = json.loads(config.to_json_string(use_diff=False))
    full |= {"rope_theta": full["rope_parameters"]["rope_theta"]}
    if not full.get("use_sliding_window", True):
        # It is made null where it is not used.
        full["sliding_window"] = type(config)(use_sliding_window=True).sliding_window
    defaults = DEFAULTS[config.model_type]
    assert {key: full[key] for key in defaults} == defaults


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_key_left_out_is_its_default(kind: str) -> None:
    bare = {"model_type": kind, "num_attention_heads": 4, "hidden_size": 64}
    said = bare | dict(DEFAULTS[kind])
    assert compare_configs(("a", bare), ("b", said)) == ([], [])
    for key, value in DEFAULTS[kind].items():
        if key in ("use_sliding_window", "sliding_window", "max_window_layers"):
            continue
        other = not value if isinstance(value, bool) else f"not {value}"
        errors, _ = compare_configs(("a", bare), ("b", bare | {key: other}))
        assert len(errors) == 1, key


def test_a_key_of_unknown_default_is_a_warning_that_names_it(pair: Pair) -> None:
    edit(pair[1], logit_scale=2.0, something=None)
    [warning] = check(pair)
    assert warning == "config keys only in code, compared with nothing: logit_scale (2.0)"


def test_windows_that_no_layer_uses_are_no_difference() -> None:
    one = {"model_type": "qwen2", "use_sliding_window": False, "max_window_layers": 28}
    two = {"model_type": "qwen2", "sliding_window": None, "layer_types": ["full_attention"] * 2}
    assert compare_configs(("a", one), ("b", two)) == ([], [])
    used = one | {"use_sliding_window": True}
    errors, _ = compare_configs(("a", one), ("b", used))
    assert errors == []
    assert normal_config(used)["max_window_layers"] == 28


# Tokenizers and chat templates


def vocabulary(path: Path, change: Callable[[dict[str, int]], None]) -> None:
    content = json.loads((path / "tokenizer.json").read_text())
    change(content["model"]["vocab"])
    (path / "tokenizer.json").write_text(json.dumps(content))


def test_what_training_leaves_in_the_tokenizer_is_no_difference(pair: Pair) -> None:
    edit(pair[1], "tokenizer.json", truncation={"max_length": 5}, padding=None)
    edit(pair[1], "tokenizer_config.json", model_max_length=7, tokenizer_class="Other")
    assert check(pair) == []


@pytest.mark.parametrize("decided", [False, True])
def test_a_vocabulary_that_differs_is_always_refused(pair: Pair, *, decided: bool) -> None:
    def change(tokens: dict[str, int]) -> None:
        tokens["a"], tokens["b"] = tokens["b"], tokens["a"]
        del tokens["c"]
        tokens["new"] = 265

    vocabulary(pair[1], change)
    message = refusal(pair, decided=decided)
    a, b = (json.loads((pair[0] / "tokenizer.json").read_text())["model"]["vocab"][t] for t in "ab")
    assert f"another id: 'a' ({a}, {b}), 'b' ({b}, {a})" in message
    assert "only in math: 'c'; only in code: 'new'" in message


def test_differences_beside_the_vocabulary_are_free_where_the_tokenizer_is_decided(
    pair: Pair,
) -> None:
    edit(pair[1], "tokenizer_config.json", eos_token={"content": "<|endoftext|>"})
    edit(pair[1], "tokenizer.json", pre_tokenizer=None)
    template(pair[1], "{{ messages }}")
    message = refusal(pair)
    for part in ("eos_token", "pre_tokenizer", "the chat templates of math and code differ"):
        assert part in message
    warnings = check(pair, decided=True)
    assert len(warnings) == 2
    assert "tokenizer_source" in warnings[0]


def test_merges_and_flags_of_added_tokens_are_compared(pair: Pair) -> None:
    content = json.loads((pair[1] / "tokenizer.json").read_text())
    content["model"]["merges"] = [" ".join(m) for m in content["model"]["merges"]]
    edit(pair[1], "tokenizer.json", model=content["model"])
    assert check(pair) == []  # the older spelling of the same merges
    content["model"]["merges"].reverse()
    content["added_tokens"][0]["lstrip"] = True
    edit(pair[1], "tokenizer.json", **content)
    assert "differ in merges, flags of added tokens" in refusal(pair)


def test_a_special_token_is_the_same_as_text_and_as_object(pair: Pair) -> None:
    edit(pair[1], "tokenizer_config.json", eos_token={"content": "<|im_end|>", "lstrip": False})
    assert check(pair) == []


def test_only_one_chat_template_is_said(pair: Pair) -> None:
    template(pair[0], None)
    assert "only code has a chat template: say whose" in refusal(pair)
    assert len(check(pair, decided=True)) == 1


def test_a_template_in_the_config_is_the_same_as_in_its_own_file(pair: Pair) -> None:
    template(pair[0], "{{ 1 }}")
    template(pair[1], None)
    edit(pair[1], "tokenizer_config.json", chat_template="{{ 1 }}")
    assert check(pair) == []
    named = [{"name": "default", "template": "{{ 1 }}"}, {"name": "tools", "template": "x"}]
    edit(pair[1], "tokenizer_config.json", chat_template=named)
    assert "chat templates" in refusal(pair)


def test_a_folder_without_tokenizer_is_taken_to_share_the_other_s(pair: Pair) -> None:
    for file in (*pair[1].glob("tokenizer*"), *pair[1].glob("chat_template*")):
        file.unlink()
    assert check(pair) == ["code holds no tokenizer: it is taken to be that of math"]


def test_older_vocabulary_files_are_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.json").write_text('{"x": 0, "y": 1}')
        (tmp_path / name / "merges.txt").write_text("#version: 0.2\nx y\n")
    one, two = ("a", tmp_path / "a"), ("b", tmp_path / "b")
    assert compare_tokenizers(one, two) == ([], [])
    (two[1] / "merges.txt").write_text("x y\n")
    assert compare_tokenizers(one, two) == ([], [])
    (two[1] / "added_tokens.json").write_text('{"<z>": 2}')
    assert (vocabulary_size(one[1]), vocabulary_size(two[1])) == (2, 3)
    errors, _ = compare_tokenizers(one, two, decided=True)
    assert "only in b: '<z>'" in errors[0]


def test_vocabularies_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.model").write_bytes(b"same")
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps({"note": name}))
    one, two = ("a", tmp_path / "a"), ("b", tmp_path / "b")
    assert compare_tokenizers(one, two) == ([], [])
    (two[1] / "tokenizer.model").write_bytes(b"other")
    errors, _ = compare_tokenizers(one, two, decided=True)
    assert "cannot be compared" in errors[0]


def test_unigram_vocabularies_are_in_the_order_of_ids(tmp_path: Path) -> None:
    model = {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.5]]}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": model, "added_tokens": [{"id": 2, "content": "<x>"}]})
    )
    assert vocabulary_size(tmp_path) == 3


# Wording


def test_labels_tell_folders_apart() -> None:
    snapshot = Path("/cache/models--Qwen--Qwen2.5-7B/snapshots/d149729398750b98")
    paths = [Path("/a/math"), Path("/b/math"), Path("/b/code"), snapshot]
    assert labels(paths) == ["/a/math", "/b/math", "code", "Qwen/Qwen2.5-7B"]


def test_many_names_are_cut_and_counted() -> None:
    assert listed_names([str(n) for n in range(14)]).endswith("10, 11 and 2 more")
