"""The filter `repetitive`: reasoning that says the same over and over, or ends in a loop.

A trace in, an `Objection` or None out; pure, linear in the length of the reasoning. Not
here: a loop whose rounds differ a little (counting up, say) and that was not cut.
"""

from cuvee.records import Trace
from cuvee.select.objection import Objection
from cuvee.select.words import grams

LOOP_TIMES = 4
"""How often a text must say the same at its end to count as a loop."""
LOOP_CHARACTERS = 120
"""The shortest such ending: `......` and a table's rule are none."""
LOOP_TAIL = 32_000
"""Characters at the end that are searched: a loop's period is at most a quarter of it."""

_PROBE = LOOP_CHARACTERS // LOOP_TIMES


def repetitive(trace: Trace, *, most: float) -> Objection | None:
    """Object (`repetition`, `loop`) to reasoning that says the same over and over.

    More than a share `most` of its word 8-grams repeat an earlier one, or it ends in a
    loop. In a script without spaces each character is a word.
    """
    share = repeated_share(trace.reasoning)
    if share > most:
        return Objection("repetition", f"{share:.2f} of the 8-grams repeat, {most:.2f} allowed")
    if period := loop_period(trace.reasoning):
        return Objection("loop", f"ends in a loop of {period} characters")
    return None


def repeated_share(text: str) -> float:
    """Return the share in [0, 1) of word 8-grams that occurred before; 0 for short texts."""
    found = grams(text).tolist()
    return 1 - len(set(found)) / len(found) if found else 0.0


def loop_period(text: str) -> int | None:
    """Return the period in characters of the loop a text ends in, None where there is none.

    A loop is an ending of at least `LOOP_CHARACTERS` that says the same `LOOP_TIMES` times
    or more; the last round may be incomplete. Whitespace counts as one space. Of several
    periods the shortest.
    """
    tail = " ".join(text[-LOOP_TAIL:].split())
    # In a loop of period p the last `_PROBE` characters stand p before the end as well: each
    # earlier place of theirs is one possible period, the nearest first.
    probe = tail[-_PROBE:]
    end = len(tail) - 1
    while (start := tail.rfind(probe, 0, end)) >= 0:
        period = len(tail) - _PROBE - start
        size = max(LOOP_CHARACTERS, LOOP_TIMES * period)
        if size > len(tail):
            return None
        if tail[-size:-period] == tail[period - size :]:
            return period
        end = start + _PROBE - 1
    return None
