"""Rows checked inside Ray's workers give the verdicts that they give here."""

import json
from typing import Any

import pytest

from cuvee.recipe import Verify
from cuvee.verify import check_rows

PROGRAM = "```python\nprint(int(input()) + 1)\n```"
TESTS = json.dumps({"kind": "stdin", "cases": [{"input": "1", "output": "2"}]})
ROWS: list[dict[str, Any]] = [
    {"gold": "3/4", "reply": "\\boxed{0.75}"},
    {"gold": "\\sin(x)^2+\\cos(x)^2", "reply": "\\boxed{1}"},
    {"gold": "7", "reply": "The answer is 8."},
    {"verifier": "code", "tests": TESTS, "reply": PROGRAM},
    {"verifier": "code", "tests": TESTS, "reply": PROGRAM.replace("1", "2")},
]


def judged(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return verdict and reason of each row, checked by one process."""
    return [(v.verdict, v.reason) for v in check_rows(rows, limits=Verify(processes=1))]


@pytest.mark.slow
def test_ray_workers_check_as_this_process_does() -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1)(judged)
        got = ray.get([remote.remote(ROWS), remote.remote(ROWS[::-1])])
    finally:
        ray.shutdown()
    assert got == [judged(ROWS), judged(ROWS)[::-1]]
