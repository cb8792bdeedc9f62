"""Traces and problems for the tests of select, made in one line each; real traces."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from cuvee.records import Problem, Trace, Verdict
from cuvee.select.objection import Objection

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

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
        reason={"correct": "equal", "wrong": "different"}.get(name, "no_final_answer"),
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


def reason(objection: Objection | None) -> str | None:
    return None if objection is None else objection.reason


@pytest.fixture
def data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real traces")
    return SHARED


def json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
