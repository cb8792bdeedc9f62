"""Judges one program; the sandbox is a real one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cuvee.recipe import Verify
from cuvee.verify.code.check import check_program
from cuvee.verify.judgement import Judgement

LIMITS = Verify(code_seconds=2, memory_mb=256, processes=2)

Judge = Callable[..., Judgement]


@pytest.fixture
def judge() -> Judge:
    def judge_one(
        program: str, tests: dict[str, Any] | str, *, kind: str = "bubblewrap", seconds: float = 2
    ) -> Judgement:
        text = tests if isinstance(tests, str) else json.dumps(tests)
        limits = LIMITS.model_copy(update={"code_seconds": seconds})
        return check_program(program, text, limits=limits, sandbox_kind=kind)

    return judge_one
