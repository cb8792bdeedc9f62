r"""Conversations as they are published: turns, the question in them, reasoning and answer.

In: a cell that holds turns (`from`/`value` or `role`/`content`, `human`/`gpt` or
`user`/`assistant`), or the text of a reply. Out: the first user turn without the instruction
that was put around it, and the reply to it split into reasoning and answer. What follows
the first exchange is not read, only counted. Nothing is checked here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.errors import DataError
from cuvee.problems.items import Answered
from cuvee.verify.answers import END_THINK, THINK, split_reasoning

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
"""What a turn's author is called -> `user` or `assistant`; others (`system`, `tool`) stay."""

SHAPES = (("from", "value"), ("role", "content"))

INSTRUCTIONS = (
    "Return your final response within \\boxed{}.",
    "You will be given a problem. Please reason step by step, and put your final answer within "
    "\\boxed{}:",
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "Let's think step by step and output the final answer within \\boxed{}.",
    "Generate an executable Python function generated from the given prompt. The function should "
    "take stdin as input and print the output. Simply call the function after the definition.",
    "Generate an executable Python function generated from the given prompt. Return the function "
    "body without invoking it at the final solution.",
)
"""What OpenThoughts, Open-R1, Light-R1 and DeepScaleR put before or after a problem. They are
taken off at either end, because a domain's own prompt asks in its own words."""

MARKERS = (
    ("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<Thought>", "</Thought>", "<Output>", "</Output>"),
)
"""Marks around reasoning and answer, other than `<think>`: of OpenThoughts and Sky-T1, and of
Marco-o1."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """The first question of a conversation and the reply to it."""

    question: str
    reply: str | None
    """None where the conversation ends with the question."""
    later: int
    """Turns after the exchange; they are not read."""


def holds_turns(value: Any) -> bool:
    """Return whether a cell is a list of objects, as a conversation is."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def first_exchange(turns: Sequence[Any], place: str) -> Exchange:
    """Return the first user turn and the assistant's reply that follows it at once.

    The question is empty where no user speaks. Raises DataError naming `place` (file, row
    and column) and the turn that is in neither shape.
    """
    read = [_turn(turn, f"{place}, turn {number}") for number, turn in enumerate(turns, start=1)]
    begin = next((i for i, (role, _) in enumerate(read) if role == "user"), None)
    if begin is None:
        return Exchange("", None, 0)
    following = read[begin + 1 :]
    if following and following[0][0] == "assistant":
        return Exchange(read[begin][1], following[0][1], len(following) - 1)
    return Exchange(read[begin][1], None, len(following))


def _turn(turn: Any, place: str) -> tuple[str, str]:
    if isinstance(turn, Mapping):
        for author, content in SHAPES:
            role, text = turn.get(author), turn.get(content)
            if isinstance(role, str) and (text is None or isinstance(text, str)):
                return ROLES.get(role, role), text or ""
    held = sorted(map(str, turn)) if isinstance(turn, Mapping) else type(turn).__name__
    raise DataError(f"{place}: wanted the texts from/value or role/content, got {held}")


def without_instruction(text: str) -> str:
    """Return a user turn without the known instructions at its ends; never an empty text."""
    bare = text.strip()
    for instruction in INSTRUCTIONS:
        bare = bare.removeprefix(instruction).removesuffix(instruction).strip()
    return bare or text.strip()


def split_reply(text: str) -> Answered:
    """Split a published reply into reasoning and answer.

    `finish_reason` is `length` where reasoning was begun and never ended, else `stop`.
    """
    for begin, end, begin_answer, end_answer in MARKERS:
        if begin in text:
            before, ended, after = text.partition(end)
            answer = after.strip().removeprefix(begin_answer).removesuffix(end_answer)
            reasoning = before.partition(begin)[2]
            return Answered(reasoning.strip(), answer.strip(), "stop" if ended else "length")
    reasoning, answer = split_reasoning(text)
    cut = END_THINK not in text and text.strip().startswith(THINK)
    if answer.startswith("<answer>") and answer.endswith("</answer>"):
        answer = answer.removeprefix("<answer>").removesuffix("</answer>").strip()
    return Answered(reasoning, answer, "length" if cut else "stop")
