"""Adapters as inputs of a merge: the same as merging the models they make."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from cuvee.merge import stream
from cuvee.merge.config.read import parse_config
from cuvee.merge.journal import note
from cuvee.merge.stream import merge
from cuvee.models.random_model import write_random_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:Model (with|has) `tie_word_embeddings=True`:UserWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
Ask = dict[str, Any]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand beside a base, adapters `math` and `code` of it, and the models `+math`, `+code`."""
    monkeypatch.chdir(tmp_path)
    write_random_model(Path("base"), architecture="qwen2", tied=False)
    targets = {"math": ["q_proj", "up_proj"], "code": ["v_proj", "up_proj", "down_proj"]}
    for seed, (name, modules) in enumerate(targets.items()):
        whole = ["lm_head"] if name == "code" else None
        options = LoraConfig(r=4, lora_alpha=6, target_modules=modules, modules_to_save=whole)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained("base"), options)
        generator = torch.Generator().manual_seed(seed)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        adapted.save_pretrained(name)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), name)
        model.merge_and_unload().save_pretrained(f"+{name}")
    return tmp_path


def ask(*models: Any, method: str, **changes: Any) -> Ask:
    based = method not in ("linear", "arcee_fusion")
    return {
        "merge_method": method,
        "models": list(models),
        "base_model": "base" if based else None,
        "parameters": {"weight": 0.5} if method != "arcee_fusion" else None,
    } | changes


def run(asked: Ask, out: str, *, threads: int = 2) -> dict[str, Tensor]:
    merge(parse_config(asked, where="test"), Path(out), threads=threads)
    found: dict[str, Tensor] = load_file(f"{out}/model.safetensors")
    return found


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_merging_adapters_is_merging_the_models_they_make(made: Path, method: str) -> None:
    found = run(ask("base+math", "base+code", method=method), "adapters")
    whole = [{"model": f"+{name}", "adapter": None} for name in ("math", "code")]
    expected = run(ask(*whole, method=method), "models")
    assert found.keys() == expected.keys()
    base = load_file("base/model.safetensors")
    changed = 0
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-6, atol=2e-6)
        changed += not torch.equal(tensor, base[name])
    assert changed == 2 * 4 + 1  # q, v, up and down of two layers, and lm_head


def test_a_fusion_adopts_from_adapters_as_from_models(made: Path) -> None:
    found = run(ask("base+math", "base+code", method="arcee_fusion"), "adapters")
    whole = [{"model": f"+{name}", "adapter": None} for name in ("math", "code")]
    expected = run(ask(*whole, method="arcee_fusion"), "models")
    # Weights a rounding apart may lie on either side of the threshold.
    close = [torch.isclose(found[n], t, rtol=2e-6, atol=2e-6) for n, t in expected.items()]
    assert sum(int(part.sum()) for part in close) >= 0.999 * sum(t.numel() for t in close)


def test_threads_change_no_byte_and_an_input_s_identity_has_its_adapter(made: Path) -> None:
    asked = ask("base+math", "base+code", "base", method="linear")
    found, again = run(asked, "one", threads=1), run(asked, "three", threads=3)
    assert all(torch.equal(found[name], tensor) for name, tensor in again.items())
    record = json.loads(Path("one/cuvee_merge.json").read_text())
    assert len({source["identity"] for source in record["order"]}) == 3
    assert "adapter_model.safetensors" in record["order"][0]["files"]
    assert record["order"][0]["spec"] == "base+math"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_merge_starts_over_where_an_adapter_changed(
    made: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ask("base+math", "base+code", method="linear")

    def noting(*arguments: Any) -> None:
        note(*arguments)
        raise KeyboardInterrupt

    for change in (False, True):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(stream, "note", noting)
            run(asked, "out")
        if change:
            os.utime(Path("math", name), ns=(1, 1))
        capsys.readouterr()
        run(asked, "out")
        assert ("going on" in capsys.readouterr().err) is not change
        Path("out").rename(f"out {change}")
