"""What a scripted teacher says as a judge: it compares texts, and makes known faults.

In: the message of `cuvee.verify.judge`. Out: `Reply`. It calls an answer correct where what
the answer states is the reference answer, letter by letter. Of the faults of content it
knows `wrong_result` (the opposite decision) and `no_answer` (none). Not here: HTTP
(`cuvee.teach.scripted`).
"""

import re

from cuvee.teach.scripted_answers import Reply
from cuvee.verify.answers import final_answer

FAULTS = ("wrong_result", "no_answer")
UNDECIDED = "Both readings have something to be said for them."

_ASKED = re.compile(
    r"=== reference answer ([0-9a-f]{16})\n(.*?)\n=== answer \1\n(.*?)\n=== end \1\n", re.DOTALL
)


def judged(prompt: str) -> bool | None:
    """Return whether the answer in a judge's message is right; None for any other message."""
    asked = _ASKED.search(prompt)
    if asked is None:
        return None
    gold, answer = asked[2], asked[3]
    return (final_answer(answer) or answer).strip() == gold.strip()


def reply(*, right: bool, fault: str) -> Reply:
    """Return the decision as a message, with a fault of content (`none` for a sound one)."""
    if fault == "no_answer":
        return Reply("I compare the two answers.", UNDECIDED, "stop")
    decision = "correct" if right != (fault == "wrong_result") else "wrong"
    return Reply("I compare the two answers.", f"Decision: {decision}", "stop")
