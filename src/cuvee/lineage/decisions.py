"""What each filter of `select` decided on one trace, in the order in which they are applied.

The stage records the first objection alone; the order says the rest: every filter before it
let the trace pass, none after it was asked. Not here: what the filters measure
(`cuvee.select`).
"""

import dataclasses
from typing import Literal

from cuvee.records import Dropped
from cuvee.select.objection import FILTERS


@dataclasses.dataclass(frozen=True)
class Decision:
    """What one filter said of one trace."""

    filter: str
    outcome: Literal["passed", "dropped", "not reached"]
    reason: str | None = None
    detail: str | None = None
    """What was measured."""


def decisions(dropped: Dropped | None) -> tuple[Decision, ...]:
    """Return every filter's decision; `dropped` is None for a trace that was chosen.

    A reason that is of no filter (a run of another version) is the only decision returned:
    what came before it is not known.
    """
    if dropped is None:
        return tuple(Decision(name, "passed") for name in FILTERS)
    by_reason = {reason: name for name, reasons in FILTERS.items() for reason in reasons}
    objecting = by_reason.get(dropped.reason)
    found = Decision(objecting or dropped.reason, "dropped", dropped.reason, dropped.detail)
    if objecting is None:
        return (found,)
    names = list(FILTERS)
    place = names.index(objecting)
    before = [Decision(name, "passed") for name in names[:place]]
    after = [Decision(name, "not reached") for name in names[place + 1 :]]
    return (*before, found, *after)
