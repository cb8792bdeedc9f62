r"""A chat template in Jinja, rewritten as the Go template of an Ollama Modelfile.

Ollama before its llama.cpp server cannot run Jinja. A template that puts fixed text around
system, user and assistant messages (ChatML, Llama 3's, DeepSeek-R1's, Gemma's) is one of a
single Go form: the fixed texts are found by rendering marked messages, and what comes of it
is accepted only where both templates make the same bytes of the probes (`PROBES`). Not
rewritten: tools, system messages after the first, templates that change a message's text.

BOS is left out where the engine puts it before the prompt itself. Reasoning of earlier turns
stays or goes as in the Jinja template; `.Thinking` between the tags also tells Ollama that
they surround reasoning, so that it keeps it apart.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from cuvee.errors import DataError
from cuvee.serve.facts import CLOSE, OPEN, ServingFacts, Turn
from cuvee.serve.go_render import GoTemplateError, render_go

_SYSTEM, _FIRST, _REPLY, _SECOND = (
    f"cuvee's {name} message" for name in ("system", "first", "middle", "second")
)
"""What no template holds."""
_THOUGHT = "cuvee thinks"


@dataclasses.dataclass(frozen=True)
class _Texts:
    """The fixed texts of a template."""

    default: str
    """Before the first message where there is no system message."""
    system: tuple[str, str]
    """Before and after a system message."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    ask: str
    """After the last message: where the model begins to write."""
    keeps_reasoning: bool
    """Whether an earlier reply keeps its reasoning."""


def _user(text: str) -> Turn:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Turn:
    return {"role": "assistant", "content": text}


def _thinking(thought: str, text: str) -> Turn:
    return {"role": "assistant", "content": text, "thinking": thought}


PROBES: tuple[tuple[Turn, ...], ...] = (
    (_user("What is 2 + 2?"),),
    ({"role": "system", "content": "Be brief."}, _user("Hello {{ .System }}")),
    (_user('你好, <b>world</b> "quoted"\nsecond line'), _assistant("4"), _user("And 3 + 3?")),
    (
        {"role": "system", "content": "You are a cook.\n\nAnswer in French."},
        _user("a"),
        _assistant("b\n\nc"),
        _user("d"),
        _assistant("e"),
        _user("`f`"),
    ),
    (_user("a"), _thinking("one\n\ntwo", "b"), _user("c"), _thinking("three", "d"), _user("e")),
)
"""Conversations that both templates must render alike; Ollama keeps `thinking` apart."""


def go_template(facts: ServingFacts) -> str:
    """Return the Go template that renders as the model's own does.

    Raises DataError, saying where they part, where there is none.
    """
    texts = _texts(facts)
    template = _written(texts, bos=facts.bos if facts.adds_bos else None)
    for probe in PROBES:
        try:
            made = render_go(template, ollama_data(probe))
        except GoTemplateError as error:
            raise DataError(f"the Go form cannot be checked: {error}") from error
        wanted = _wanted(facts, probe, keeps_reasoning=texts.keeps_reasoning)
        if made != wanted:
            raise DataError(_difference(made, wanted))
    return template


def ollama_data(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return what Ollama gives a template for a conversation, without tools."""
    messages = [
        {"Role": t["role"], "Content": t["content"], "Thinking": t.get("thinking", "")}
        for t in turns
    ]
    system = "\n\n".join(t["content"] for t in turns if t["role"] == "system")
    return {"System": system, "Messages": messages, "Response": ""}


def trims(facts: ServingFacts) -> bool:
    """Return whether the model's template takes blanks off a message, which Go's cannot."""
    padded = "  cuvee's padded message \n"
    return padded not in facts.render([_user(padded)])


def _wanted(facts: ServingFacts, turns: Sequence[Turn], *, keeps_reasoning: bool) -> str:
    """Return the bytes of the model's own template, without a BOS that the engine adds.

    Where it drops earlier reasoning, of replies that were sent back without it, as servers
    return them: Jinja's way to drop it may leave the blank lines that followed.
    """
    told = _jinja_turn if keeps_reasoning else _without_thinking
    whole = facts.render([told(turn) for turn in turns])
    return whole.removeprefix(facts.bos) if facts.adds_bos and facts.bos else whole


def _without_thinking(turn: Turn) -> Turn:
    return {"role": turn["role"], "content": turn["content"]}


def _jinja_turn(turn: Turn) -> Turn:
    if not turn.get("thinking"):
        return turn
    return _assistant(f"{OPEN}\n{turn['thinking']}\n{CLOSE}\n\n{turn['content']}")


def _texts(facts: ServingFacts) -> _Texts:
    """Find the fixed texts by rendering marked messages; raise DataError where they are none."""
    first, reply, second = _user(_FIRST), _assistant(_REPLY), _user(_SECOND)
    opening, user_end = _cut(facts.render([first], ask=False), (_FIRST,))
    asked = _cut(facts.render([first]), (_FIRST,))[1]
    _, _, reply_end = _cut(facts.render([first, reply], ask=False), (_FIRST, _REPLY))
    conversation = facts.render([first, reply, second])
    _, header, next_start, _ = _cut(conversation, (_FIRST, _REPLY, _SECOND))
    system = {"role": "system", "content": _SYSTEM}
    before, between, _ = _cut(facts.render([system, first]), (_SYSTEM, _FIRST))
    user_start = next_start.removeprefix(reply_end)
    if not (opening.endswith(user_start) and between.endswith(user_start)):
        raise DataError("the chat template writes other text around the first message")
    past = facts.render([first, _jinja_turn(_thinking(_THOUGHT, _REPLY)), second])
    return _Texts(
        default=opening.removesuffix(user_start),
        system=(before, between.removesuffix(user_start)),
        user=(user_start, user_end),
        assistant=(header.removeprefix(user_end), reply_end),
        ask=asked.removeprefix(user_end),
        keeps_reasoning=_THOUGHT in past,
    )


def _cut(text: str, marks: Sequence[str]) -> list[str]:
    """Return what stands before, between and after marks; DataError where one is not once there."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise DataError("the chat template leaves a message out, or writes one twice")
        parts.append(before)
    return [*parts, text]


def _written(texts: _Texts, *, bos: str | None) -> str:
    """Return the Go form of fixed texts; raise DataError for what no Modelfile can hold."""
    before, after = texts.system
    default = texts.default
    if bos is not None:
        before, default = before.removeprefix(bos), default.removeprefix(bos)
    kept = "if .Thinking"
    if not texts.keeps_reasoning:  # no prompt ends with a reply: it tells Ollama the tags alone
        kept = "if and .Thinking (eq (len (slice $.Messages $i)) 1)"
    made = (
        f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{default}{{{{ end }}}}"
        '{{ range $i, $m := .Messages }}{{ if eq .Role "user" }}'
        f"{texts.user[0]}{{{{ .Content }}}}{texts.user[1]}"
        '{{ else if eq .Role "assistant" }}'
        f"{texts.assistant[0]}{{{{ {kept} }}}}{OPEN}\n{{{{ .Thinking }}}}\n{CLOSE}\n\n{{{{ end }}}}"
        f"{{{{ .Content }}}}{texts.assistant[1]}{{{{ end }}}}{{{{ end }}}}{texts.ask}"
    )
    fixed = (before, after, default, *texts.user, *texts.assistant, texts.ask)
    if any("{{" in text or '"""' in text or not _writable(text) for text in fixed):
        raise DataError('the chat template writes `{{`, `"""` or a character a Modelfile loses')
    return made


def _writable(text: str) -> bool:
    """Return whether Ollama's reader of Modelfiles keeps a text: it drops what is unprintable."""
    return all(letter.isprintable() or letter in "\n\t" for letter in text)


def _difference(made: str, wanted: str) -> str:
    pairs = enumerate(zip(made, wanted, strict=False))
    at = next((n for n, (one, other) in pairs if one != other), min(len(made), len(wanted)))
    return (
        f"the chat template and the one Go form known here part at character {at}: "
        f"{wanted[at:][:40]!r} against {made[at:][:40]!r}"
    )
