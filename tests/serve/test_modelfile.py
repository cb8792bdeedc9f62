"""A Modelfile says what is meant to a reader like Ollama's, and its template the same bytes."""

import dataclasses
import json
from pathlib import Path

import pytest

from cuvee.errors import DataError
from cuvee.models.gguf_write import write_gguf
from cuvee.models.mending import CHATML, DEEPSEEK, LLAMA_3
from cuvee.models.random_model import write_random_model
from cuvee.serve.commands import Files, commands, notes, reasoning_parser
from cuvee.serve.facts import Recommended, ServingFacts, serving_facts
from cuvee.serve.go_render import GoTemplateError, render_go
from cuvee.serve.go_template import go_template, ollama_data
from cuvee.serve.modelfile import modelfile

R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% else %}"
    "{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are it.<|im_end|>\n{% endif %}"
    + CHATML
)
BASE = ServingFacts(
    template=CHATML,
    stop=("<|im_end|>",),
    bos="<BOS>",
    eos="<|im_end|>",
    adds_bos=False,
    context=4096,
    prefill="",
    think_tokens=False,
    architecture="qwen2",
    sampling=Recommended(0.6, 0.95, "a test"),
)
FOLDER = Path(__file__).parent.parent / "models" / "templates"


def facts(template: str, **changes: object) -> ServingFacts:
    return dataclasses.replace(BASE, template=template, **changes)  # type: ignore[arg-type]


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Read a Modelfile as Ollama's parser does: values end with their line, or with quotes."""
    found: list[tuple[str, str]] = []
    while text := text.lstrip():
        if text.startswith("#"):
            text = text.partition("\n")[2]
            continue
        word, _, text = text.partition(" ")
        if word == "PARAMETER":
            word, _, text = text.partition(" ")
        quotes = next((q for q in ('"""', '"') if text.startswith(q)), "")
        value, _, text = text.removeprefix(quotes).partition(quotes or "\n")
        found.append((word.lower(), value))
    return found


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        "{{ bos_token }}" + LLAMA_3,
        DEEPSEEK,
        R1,
        DEFAULT_SYSTEM,
        (FOLDER / "qwq.jinja").read_text(encoding="utf-8"),
        (FOLDER / "qwen3_thinking_2507.jinja").read_text(encoding="utf-8"),
    ],
)
@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_go_template_renders_the_model_s_bytes(template: str, adds_bos: bool) -> None:
    said = facts(template, adds_bos=adds_bos)
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": '一 <b> & "q"'},
        {"role": "assistant", "content": "two\n\nlines"},
        {"role": "user", "content": "{{ more }}"},
    ]
    wanted = said.render(turns).removeprefix("<BOS>" if adds_bos else "")
    assert render_go(go_template(said), ollama_data(turns)) == wanted
    (read,) = [
        v for k, v in read_modelfile(modelfile("m.gguf", facts=said).text) if k == "template"
    ]
    assert render_go(read, ollama_data(turns)) == wanted


@pytest.mark.parametrize(
    "template",
    [
        (FOLDER / "mistral.jinja").read_text(encoding="utf-8"),  # refuses a system message
        "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] | upper }}{% endfor %}",
        CHATML.replace("message['content']", "message['content'] | length | string"),
        CHATML.replace("'<|im_end|>\\n'", "'\\u3000<|im_end|>\\n'"),  # a Modelfile loses it
    ],
)
def test_without_a_form_of_the_same_bytes_there_is_no_template_and_a_warning(template: str) -> None:
    made = modelfile("m.gguf", facts=facts(template))
    assert not made.has_template
    assert "TEMPLATE" not in [line.partition(" ")[0] for line in made.text.splitlines()]
    assert any("No TEMPLATE" in text for text in made.warnings)
    assert all(f"# {text}" in made.text for text in made.warnings)


def test_a_modelfile_holds_stop_words_sampling_and_context() -> None:
    said = facts(CHATML, stop=("<|im_end|>", "<|endoftext|>"), sampling=Recommended(0, 1, "x", 20))
    read = read_modelfile(modelfile("m.Q8_0.gguf", facts=said, context=2048).text)
    assert [entry for entry in read if entry[0] != "template"] == [
        ("from", "./m.Q8_0.gguf"),
        ("stop", "<|im_end|>"),
        ("stop", "<|endoftext|>"),
        ("temperature", "0"),
        ("top_p", "1"),
        ("top_k", "20"),
        ("repeat_penalty", "1"),
        ("num_ctx", "2048"),
    ]


def test_blanks_that_the_model_s_template_trims_are_told() -> None:
    trimming = CHATML.replace("message['content']", "message['content'] | trim")
    made = modelfile("m.gguf", facts=facts(trimming))
    assert made.has_template
    assert any("blanks" in text for text in made.warnings)


@pytest.mark.parametrize("name", ["", "a/b.gguf", 'a".gguf', "a\nFROM b", " a"])
def test_names_that_a_modelfile_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="Modelfile"):
        modelfile(name, facts=BASE)


@pytest.mark.parametrize(
    "bad", ["{{ if .A }}x", "{{ end }}", "{{ wide . }}", "{{ if .A }}{{ else }}"]
)
def test_what_is_no_go_template_is_refused(bad: str) -> None:
    with pytest.raises(GoTemplateError):
        render_go(bad, {"A": "1"})


def test_go_s_trim_markers_take_blanks_on_their_side() -> None:
    assert render_go("a \n{{- .A -}}\n b {{ .A }} c", {"A": "x"}) == "axb x c"


def test_a_file_and_its_checkpoint_have_the_same_facts(tmp_path: Path) -> None:
    write_random_model(tmp_path / "m", architecture="qwen2")
    write_gguf(tmp_path / "m", tmp_path / "m.gguf", quantization="F16")
    folder, file = serving_facts(tmp_path / "m"), serving_facts(tmp_path / "m.gguf")
    assert folder == file
    assert (file.stop, file.context, file.prefill) == (("<|im_end|>",), 4096, "")
    assert serving_facts(tmp_path / "m.gguf", sampling=BASE.sampling).sampling.source == "a test"


def test_a_checkpoint_s_own_sampling_and_stop_ids_are_told(tmp_path: Path) -> None:
    write_random_model(tmp_path / "m")
    (tmp_path / "m" / "generation_config.json").write_text(
        '{"temperature": 0.7, "top_k": 20, "eos_token_id": [0, 2]}'
    )
    said = serving_facts(tmp_path / "m")
    assert said.sampling == Recommended(0.7, 1.0, "its generation_config.json", top_k=20)
    assert said.sampling.request == {"temperature": 0.7, "top_p": 1.0, "top_k": 20}
    assert "<|endoftext|>" in said.stop


def test_a_checkpoint_that_says_no_context_is_refused_by_name(tmp_path: Path) -> None:
    write_random_model(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    del config["max_position_embeddings"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="how many tokens"):
        serving_facts(tmp_path / "m")


def test_commands_name_their_flags_and_quote_what_needs_it() -> None:
    said = facts(R1, think_tokens=True, prefill="<think>\n")
    files = Files("org/m", "my model.gguf", modelfile="Modelfile.Q8_0")
    found = {c.title: c.text for c in commands(said, files, name="m", context=100)}
    assert "-m 'my model.gguf'" in found["llama.cpp"]
    assert "-c 400 -np 4" in found["llama.cpp"]
    assert "-f Modelfile.Q8_0\n" in found["Ollama"]
    assert "--reasoning-parser deepseek_r1" in found["vLLM"]
    assert '"temperature": 0.6, "top_p": 0.95' in found["One request"]
    assert any("no opening tag" in note for note in notes(said))


def test_vllm_s_parsers_are_offered_only_where_they_start() -> None:
    assert reasoning_parser(facts(R1)) is None  # the tags are no tokens
    assert reasoning_parser(facts(CHATML, think_tokens=True)) is None  # it need not think
    thinks = facts(R1, think_tokens=True, prefill="<think>\n")
    assert reasoning_parser(thinks) == "deepseek_r1"
    assert reasoning_parser(dataclasses.replace(thinks, architecture="qwen3")) == "qwen3"
