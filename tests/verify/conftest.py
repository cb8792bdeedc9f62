"""Rows for the tests of verify, and the skip where there is no sandbox."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import RecipeError
from cuvee.records import Problem, Trace, problem_id
from cuvee.verify import sandbox

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

MakeProblem = Callable[..., Problem]
MakeTrace = Callable[..., Trace]


@pytest.fixture(autouse=True)
def _sandbox_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("sandbox") is not None:
        try:
            sandbox.require("bubblewrap")
        except RecipeError as error:
            pytest.skip(str(error))


@pytest.fixture
def data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real problems and outputs")
    return SHARED


@pytest.fixture
def problem() -> MakeProblem:
    def make(
        verifier: str = "math", *, gold: str | None = None, tests: dict[str, Any] | None = None
    ) -> Problem:
        text = None if tests is None else json.dumps(tests)
        return Problem(
            id=problem_id(verifier, gold, text),
            domain="d",
            source="test",
            question="?",
            prompt="?",
            verifier=verifier,
            gold=gold,
            tests=text,
            meta="{}",
        )

    return make


@pytest.fixture
def trace() -> MakeTrace:
    def make(
        problem_: Problem,
        answer: str,
        *,
        finish_reason: str = "stop",
        error: str | None = None,
        sample: int = 0,
    ) -> Trace:
        return Trace(
            id=f"{problem_.id}-{sample}",
            problem_id=problem_.id,
            domain=problem_.domain,
            model="t",
            sample=sample,
            reasoning="...",
            answer=answer,
            finish_reason=finish_reason,
            prompt_tokens=1,
            completion_tokens=1,
            seconds=0.0,
            request="r",
            fingerprint=None,
            error=error,
        )

    return make
