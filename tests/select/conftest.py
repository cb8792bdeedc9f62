"""Traces and problems for the tests of select, made in one line each."""

import dataclasses
from typing import Any

from cuvee.records import Problem, Trace, Verdict

SOUND = Trace(
    id="t",
    problem_id="p",
    domain="math",
    model="alice",
    sample=0,
    reasoning="Twenty and two make twenty-two.",
    answer="The answer is \\boxed{22}.",
    finish_reason="stop",
    prompt_tokens=5,
    completion_tokens=9,
    seconds=0.1,
    request="r",
    fingerprint=None,
    error=None,
)


def a_trace(**changes: Any) -> Trace:
    return dataclasses.replace(SOUND, **changes)


def a_verdict(trace: Trace, name: Any = "correct") -> Verdict:
    return Verdict(
        trace_id=trace.id,
        problem_id=trace.problem_id,
        domain=trace.domain,
        verdict=name,
        reason="equal" if name == "correct" else "different",
        extracted=None,
        expected=None,
        detail=None,
        checker="test",
        seconds=0.0,
    )


def a_problem(name: str) -> Problem:
    return Problem(
        id=name,
        domain="math",
        source="test",
        question=f"What is {name}?",
        prompt=f"Please: what is {name}?",
        verifier="math",
        gold="22",
        tests=None,
        meta="{}",
    )
