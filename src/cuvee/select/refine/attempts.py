"""Attempts at refining, and which of them stand: examples in, examples and `Refined` rows out.

An attempt stands where it changed something and nothing objects, in this order: the filters
that every example must pass, what the answer states and rests on (`cuvee.select.refine.held`),
the counts of tokens, and the verifier, whose verdict must be the one the original had. Where
one objects the text before stays. Not here: where attempts come from
(`cuvee.select.refine.rules`, `cuvee.select.refine.teacher`), files.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from cuvee.recipe import Domain
from cuvee.records import Example, Trace, dumps
from cuvee.select.objection import Objection
from cuvee.select.refine.held import sized, stated, unfounded, unsupported
from cuvee.select.refine.rows import Refined, Way
from cuvee.select.refine.rules import drop_courtesies, drop_repeats
from cuvee.select.sift import Asked, Student, wording_objection
from cuvee.select.structure import outside

COURTEOUS = ("math", "choice", "code")
"""Verifiers that look at a part of the answer; to the others all of it is what is stated."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One example as it might be."""

    before: Example
    reasoning: str
    answer: str
    applied: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Rule -> pieces it left out."""
    trace: str | None = None
    """Id of the refiner's own trace."""
    objection: Objection | None = None
    """What is wrong with it already: the refiner did not answer, or not as it was asked to."""

    @property
    def changed(self) -> bool:
        """Return whether there is anything to check."""
        return (self.reasoning, self.answer) != (self.before.reasoning, self.before.answer)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What attempts of one domain are checked with."""

    domain: Domain
    least_share: float
    asked: Mapping[str, Asked]
    """Problem -> what the filters need to know of it."""
    expected: Mapping[str, str]
    """Example -> the verdict it was chosen with."""
    student: Student
    recheck: Callable[[Sequence[Trace]], Sequence[str]]
    """The verdict on each trace, in order, by the verifier that judged the original."""


def by_rules(example: Example, *, verifier: str) -> Attempt:
    """Return an example after the rules; what its answer states to the verifier is the same."""
    reasoning = drop_repeats(example.reasoning)
    tidied = drop_courtesies(example.answer)
    same = stated(tidied.text, verifier=verifier) == stated(example.answer, verifier=verifier)
    if verifier in COURTEOUS and same:
        return Attempt(
            example, reasoning.text, tidied.text, applied=reasoning.applied + tidied.applied
        )
    return Attempt(example, reasoning.text, example.answer, applied=reasoning.applied)


def settle(
    attempts: Sequence[Attempt], bench: Bench, *, way: Way
) -> tuple[list[Example], list[Refined]]:
    """Return, of each attempt in order, the example to go on with, and what came of it."""
    faults = {n: fault for n, a in enumerate(attempts) if (fault := _fault(a, bench))}
    left = [n for n in range(len(attempts)) if n not in faults]
    asked = bench.asked
    texts = [
        (asked[a.before.problem_id].prompt, a.reasoning, a.answer)
        for a in (attempts[n] for n in left)
    ]
    tokens = dict(zip(left, bench.student.count(texts), strict=True))
    for n in left:
        before, window = attempts[n].before.tokens, bench.domain.select.tokens
        fault = sized(tokens[n], before, least_share=bench.least_share)
        fault = fault or outside(tokens[n], window=window)
        if fault is not None:
            faults[n] = fault
    left = [n for n in left if n not in faults]
    verdicts = dict(zip(left, bench.recheck([_as_trace(attempts[n]) for n in left]), strict=True))
    for n, verdict in verdicts.items():
        expected = bench.expected[attempts[n].before.id]
        if verdict != expected:
            faults[n] = Objection(f"verdict_{verdict}", f"{expected} before")
    rows = [
        _row(a, way, faults.get(n), tokens=tokens.get(n), verdict=verdicts.get(n))
        for n, a in enumerate(attempts)
    ]
    examples = [
        _accepted(a, tokens[n]) if n not in faults else a.before for n, a in enumerate(attempts)
    ]
    return examples, rows


def _fault(attempt: Attempt, bench: Bench) -> Objection | None:
    """Return what a look at the texts alone finds wrong with an attempt."""
    if attempt.objection is not None:
        return attempt.objection
    if not attempt.changed:
        return Objection("unchanged")
    before, asked = attempt.before, bench.asked[attempt.before.problem_id]
    verifier = bench.domain.verifier
    if stated(attempt.answer, verifier=verifier) != stated(before.answer, verifier=verifier):
        return Objection("answer_changed")
    return (
        wording_objection(_as_trace(attempt), asked, domain=bench.domain, student=bench.student)
        or unsupported(attempt.reasoning, before.reasoning, before.answer, verifier=verifier)
        or unfounded(attempt.reasoning, before.reasoning, asked.question, before.answer)
    )


def _as_trace(attempt: Attempt) -> Trace:
    """Return an attempt as the trace that filters and verifiers look at."""
    example = attempt.before
    return Trace(
        id=example.id,
        problem_id=example.problem_id,
        domain=example.domain,
        model=example.teacher,
        sample=0,
        reasoning=attempt.reasoning,
        answer=attempt.answer,
        finish_reason="stop",
        prompt_tokens=None,
        completion_tokens=None,
        seconds=0.0,
        request="",
        fingerprint=None,
        error=None,
    )


def _accepted(attempt: Attempt, tokens: int) -> Example:
    return dataclasses.replace(
        attempt.before, reasoning=attempt.reasoning, answer=attempt.answer, tokens=tokens
    )


def _row(
    attempt: Attempt,
    way: Way,
    fault: Objection | None,
    *,
    tokens: int | None,
    verdict: str | None,
) -> Refined:
    example = attempt.before
    return Refined(
        id=example.id,
        problem_id=example.problem_id,
        domain=example.domain,
        teacher=example.teacher,
        way=way,
        accepted=fault is None,
        reason="refined" if fault is None else fault.reason,
        detail=None if fault is None else fault.detail,
        tokens_before=example.tokens,
        tokens=tokens,
        verdict=verdict,
        applied=dumps(dict(attempt.applied)),
        trace=attempt.trace,
    )
