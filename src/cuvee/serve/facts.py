"""What a server must know of a model: template, stop tokens, context, sampling, `<think>`.

A checkpoint folder or a .gguf file in (its header alone), `ServingFacts` out. Everything is
of the template as an export carries it (`cuvee.models.template.adapt`). Not here: what a
server is told with it (`cuvee.serve.commands`, `cuvee.serve.modelfile`).
"""

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.errors import DataError
from cuvee.models.gguf_header import read_header

OPEN, CLOSE = "<think>", "</think>"
QUESTION = "cuvee asks a question"
REPLY = "cuvee marks the end of a turn"
_LONGEST_TOKEN = 80

Turn = Mapping[str, str]
"""A message: `role` (system, user or assistant) and `content`."""


@dataclasses.dataclass(frozen=True)
class Recommended:
    """How to sample, and who says so."""

    temperature: float
    top_p: float
    source: str
    """In words: `the protocol of the evaluation`."""
    top_k: int | None = None
    """None: nobody says; engines then have defaults of their own."""
    min_p: float | None = None

    @property
    def request(self) -> dict[str, float]:
        """Return what of it is said, by the keys of a request."""
        given = {key: getattr(self, key) for key in _SAMPLING_KEYS}
        return {key: value for key, value in given.items() if value is not None}


DEFAULT = Recommended(0.6, 0.95, "cuvee's default: neither the model nor an evaluation says any")
_ASKED = ({"role": "user", "content": QUESTION},)
_SAMPLING_KEYS = {
    "temperature": ("temperature", "general.sampling.temp"),
    "top_p": ("top_p", "general.sampling.top_p"),
    "top_k": ("top_k", "general.sampling.top_k"),
    "min_p": ("min_p", "general.sampling.min_p"),
}
"""Field -> its key in generation_config.json, its key in a GGUF file."""


@dataclasses.dataclass(frozen=True)
class ServingFacts:
    """What a server must know of a model."""

    template: str
    """Jinja."""
    stop: tuple[str, ...]
    """Texts of the tokens that end a reply; the end-of-sequence token first."""
    bos: str | None
    eos: str | None
    adds_bos: bool
    """Whether engines put BOS before a rendered prompt that has none."""
    context: int
    """Tokens the model was made for."""
    prefill: str
    r"""What the template writes of a reply itself: `<think>\n`, or nothing."""
    think_tokens: bool
    """Whether `<think>` and `</think>` are single tokens of the vocabulary."""
    architecture: str
    """`llama`, `qwen2`, ..."""
    sampling: Recommended

    @property
    def opens_reasoning(self) -> bool:
        """Return whether a server's text begins inside the reasoning, without an opening tag."""
        return bool(self.prefill)

    @property
    def thinks(self) -> bool:
        """Return whether the template, or the vocabulary, knows of reasoning in tags."""
        return self.opens_reasoning or self.think_tokens or CLOSE in self.template

    def render(self, turns: Sequence[Turn], *, ask: bool = True) -> str:
        """Return what the template makes of a conversation; `ask` begins the model's reply.

        Raises DataError where the template fails.
        """
        return _render(self.template, turns, bos=self.bos, eos=self.eos, ask=ask)


def serving_facts(model: Path, *, sampling: Recommended | None = None) -> ServingFacts:
    """Return the facts of a checkpoint folder or a .gguf file.

    `sampling` wins over what the model's files say. Raises DataError where it cannot be read,
    has no chat template, or its template fails.
    """
    found = _of_gguf(model) if model.is_file() else _of_folder(model)
    return found if sampling is None else dataclasses.replace(found, sampling=sampling)


def _of_folder(folder: Path) -> ServingFacts:
    # transformers takes seconds to load, which a .gguf file need not wait for.
    from cuvee.models.adapted import load_adapted
    from cuvee.models.rendering import adds_bos

    tokenizer = load_adapted(folder)
    config = _json(folder / "config.json")
    generation = _json(folder / "generation_config.json")
    numbers = [*_ids(config.get("eos_token_id")), *_ids(generation.get("eos_token_id"))]
    marks = {name: getattr(tokenizer, f"{name}_token") for name in ("bos", "eos")}
    facts = _facts(
        str(tokenizer.get_chat_template()),
        marks,
        ends=[str(token) for token in tokenizer.convert_ids_to_tokens(numbers) if token],
        vocabulary=tokenizer.get_vocab(),
        rest={
            "context": _context(config.get("max_position_embeddings"), folder / "config.json"),
            "architecture": str(config.get("model_type")),
            "sampling": _sampling(generation, column=0, source="its generation_config.json"),
        },
    )
    # As the export says it: only where the template writes it too.
    begins = adds_bos(tokenizer) and facts.render(_ASKED).startswith(marks["bos"])
    return dataclasses.replace(facts, adds_bos=begins)


def _of_gguf(file: Path) -> ServingFacts:
    metadata = read_header(file).metadata
    template = metadata.get("tokenizer.chat_template")
    tokens: list[str] = metadata.get("tokenizer.ggml.tokens") or []
    if not template or not tokens:
        raise DataError(f"{file}: no chat template; export it from a checkpoint that has one")
    architecture = str(metadata.get("general.architecture"))

    def text(name: str) -> str | None:
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return tokens[number] if isinstance(number, int) and 0 <= number < len(tokens) else None

    return _facts(
        template,
        {"bos": text("bos"), "eos": text("eos")},
        ends=[end for end in (text("eot"), text("eom")) if end is not None],
        vocabulary=set(tokens),
        rest={
            "adds_bos": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
            "context": _context(metadata.get(f"{architecture}.context_length"), file),
            "architecture": architecture,
            "sampling": _sampling(metadata, column=1, source="the file's own general.sampling"),
        },
    )


def _context(tokens: Any, file: Path) -> int:
    """Return the tokens that a file says its model was made for; DataError where it does not."""
    if not isinstance(tokens, int) or tokens < 1:
        raise DataError(f"{file}: it does not say how many tokens the model was made for")
    return tokens


def _facts(
    template: str,
    marks: Mapping[str, str | None],
    *,
    ends: Sequence[str],
    vocabulary: Collection[str],
    rest: Mapping[str, Any],
) -> ServingFacts:
    """Return the facts, with what shows when the template is applied.

    `marks`: the texts of `bos` and `eos`; `ends`: further tokens that are said to end a reply.
    """
    bos, eos = marks["bos"], marks["eos"]
    asked = _render(template, _ASKED, bos=bos, eos=eos, ask=True)
    written = _written_end(template, bos=bos, eos=eos)
    last = max((token for token in _heads(written) if token in vocabulary), key=len, default=None)
    stop = [token for token in (eos, last, *ends) if token]
    return ServingFacts(
        **{"adds_bos": False, **rest},
        template=template,
        stop=tuple(dict.fromkeys(stop)),
        bos=bos,
        eos=eos,
        prefill=OPEN + asked.rpartition(OPEN)[2] if asked.rstrip().endswith(OPEN) else "",
        think_tokens=OPEN in vocabulary and CLOSE in vocabulary,
    )


def _heads(text: str) -> Iterable[str]:
    """Return the beginnings of a text, one of which may be a token."""
    return (text[:size] for size in range(1, min(len(text), _LONGEST_TOKEN) + 1))


def _written_end(template: str, *, bos: str | None, eos: str | None) -> str:
    """Return what the template writes after an assistant's message; "" where unseen."""
    turns = [*_ASKED, {"role": "assistant", "content": REPLY}]
    try:
        whole = _render(template, turns, bos=bos, eos=eos, ask=False)
    except DataError:
        return ""
    end = whole.partition(REPLY)[2].strip()
    # An ordinary character is a token too, and no end.
    return end if end.startswith("<") else ""


def _render(
    template: str, turns: Sequence[Turn], *, bos: str | None, eos: str | None, ask: bool
) -> str:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    marks = {name: text for name, text in (("bos_token", bos), ("eos_token", eos)) if text}
    try:
        rendered, _ = render_jinja_template(
            [[dict(turn) for turn in turns]],
            chat_template=template,
            add_generation_prompt=ask,
            **marks,
        )
    except TemplateError as error:
        roles = [turn["role"] for turn in turns]
        raise DataError(f"the chat template fails on roles {roles}: {error}") from error
    return str(rendered[0])


def _sampling(said: Mapping[str, Any], *, column: int, source: str) -> Recommended:
    """Return the sampling that a file says; what it leaves out of the first two is neutral."""
    given = {
        field: said[keys[column]] for field, keys in _SAMPLING_KEYS.items() if keys[column] in said
    }
    given = {field: value for field, value in given.items() if isinstance(value, int | float)}
    if said.get("do_sample") is False:
        return Recommended(0.0, 1.0, f"{source} (greedy)")
    if not {"temperature", "top_p"} & given.keys():
        return DEFAULT
    return Recommended(**{"temperature": 1.0, "top_p": 1.0, **given}, source=source)


def _ids(value: Any) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    return [number for number in listed if isinstance(number, int)]


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{file}: no JSON object")
    return found
