"""What a scripted teacher says as a judge that grades by a rubric, and its known faults.

In: the message of `cuvee.verify.judge_rubric`. Out: `Reply`. It reads nothing but sums: the
first point gets 1 where an equation such as "12 + 30 = 43" does not hold, every other point 5.
Of the faults of content it knows `wrong_result` (the opposite for the first point) and
`no_answer` (no grades). Not here: HTTP (`cuvee.teach.scripted`).
"""

import re

from cuvee.problems import arithmetic
from cuvee.teach.scripted_answers import Reply

FAULTS = ("wrong_result", "no_answer")
UNDECIDED = "There is something to be said for each of these steps."

_ASKED = re.compile(
    r"=== question ([0-9a-f]{16})\n.*?\n=== solution \1\n(.*?)\n=== end \1\n", re.DOTALL
)
_POINT = re.compile(r"^Point \d\. ", re.MULTILINE)
_EQUATION = re.compile(r"(?<![\w.])(-?\d{1,9}) ([+*-]) (-?\d{1,9}) = (-?\d{1,18})(?!\w)")


def graded(prompt: str) -> tuple[bool, int] | None:
    """Return whether the equations of the solution hold, and how many points are asked for.

    None for any other message.
    """
    asked = _ASKED.search(prompt)
    if asked is None:
        return None
    points = len(_POINT.findall(prompt[: asked.start()]))
    found = _EQUATION.findall(asked[2])
    holds = (arithmetic.apply(int(a), sign, int(b)) == int(c) for a, sign, b, c in found)
    return all(holds), points


def reply(*, sound: bool, points: int, fault: str) -> Reply:
    """Return the grades as a message, with a fault of content (`none` for a sound one)."""
    if fault == "no_answer":
        return Reply("I check the sums.", UNDECIDED, "stop")
    first = 5 if sound != (fault == "wrong_result") else 1
    lines = [f"Point {n}: {first if n == 1 else 5}" for n in range(1, points + 1)]
    said = "Nothing is wrong." if first == 5 else "A sum is wrong."
    return Reply("I check the sums.", "\n".join([said, *lines]), "stop")
