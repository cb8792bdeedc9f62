"""What a scripted teacher says as a refiner: it leaves out pieces, and makes known faults.

In: the message of `cuvee.select.refine.asked`. Out: `Reply`. It leaves out lines that stood
there before, and sentences that begin with "Let me". Of the faults of content it knows
`wrong_result` (every line with the last number of the reasoning is lost), `no_answer` (no
marks around the reasoning), `repetition` (all of it twice) and `truncated`. Not here: HTTP
(`cuvee.teach.scripted`).
"""

import re

from cuvee.teach.scripted_answers import Reply

FAULTS = ("wrong_result", "no_answer", "repetition", "truncated")

_ASKED = re.compile(
    r"=== question ([0-9a-f]{16})\n.*?\n=== reasoning \1\n(.*?)\n=== answer \1\n.*?\n=== end \1\n",
    re.DOTALL,
)
_MUSING = re.compile(r"\bLet me [^.!?\n]*[.!?]\s*")


def reasoning_of(prompt: str) -> str | None:
    """Return the reasoning in a refiner's message; None for any other message."""
    asked = _ASKED.search(prompt)
    return None if asked is None else asked[2]


def reply(reasoning: str, *, fault: str) -> Reply:
    """Return the refined reasoning as a message, with a fault of content (`none` for none)."""
    lines = dict.fromkeys(_MUSING.sub("", line).rstrip() for line in reasoning.split("\n"))
    kept = [line for line in lines if line.strip()]
    if fault == "wrong_result":
        last = (re.findall(r"\d+", reasoning) or ["nothing"])[-1]
        kept = [line for line in kept if last not in re.findall(r"\d+", line)]
    text = "\n".join(kept * 2 if fault == "repetition" else kept)
    if fault == "no_answer":
        return Reply("I read it once more.", text, "stop")
    if fault == "truncated":
        return Reply("I read it once more.", f"<refined>\n{text[: len(text) // 2]}", "length")
    return Reply("I read it once more.", f"<refined>\n{text}\n</refined>", "stop")
