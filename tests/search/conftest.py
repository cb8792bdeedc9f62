"""A run folder with two random specialists, problems, examples and a benchmark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cuvee.models.random_model import write_random_model
from cuvee.recipe import parse_recipe
from cuvee.records import Example, Problem, problem_id, write_rows
from cuvee.runfolder import Run

torch.set_num_threads(1)

DOMAINS = ("math", "algebra")
PROBLEMS, EXAMPLES = 10, 4
SERVE = {"context": 256, "slots": 4, "threads": 1, "quantization": "F32"}

MakeRun = Callable[..., Run]


def recipe_data(folder: Path, **more: Any) -> dict[str, Any]:
    domain = {"problems": [{"source": "generator:arithmetic", "count": 1}], "verifier": "math"}
    held = {"problems": {"source": "generator:arithmetic", "count": 3}, "domain": "math"}
    return {
        "name": "blend",
        "base": str(folder / "base"),
        "ledger": str(folder / "ledger.sqlite"),
        "domains": dict.fromkeys(DOMAINS, domain),
        "teachers": [{"name": "t", "scripted": {}}],
        "verify": {"processes": 1},
        "merge": {"out_dtype": "float32"},
        "evaluate": {
            "benchmarks": {"held": held},
            "sampling": {"temperature": 0.7, "max_tokens": 8},
            "serve": SERVE,
        },
    } | more


def problem(question: str, gold: str | None, domain: str = "math") -> Problem:
    return Problem(
        id=problem_id(question, gold, None),
        domain=domain,
        source="test",
        question=question,
        prompt=question,
        verifier="math",
        gold=gold,
        tests=None,
        meta="{}",
    )


def example(of: Problem) -> Example:
    return Example(
        id=f"trace-{of.id}",
        problem_id=of.id,
        domain=of.domain,
        teacher="t",
        prompt=of.prompt,
        reasoning="r",
        answer="a",
        tokens=2,
    )


def write_problems(run: Run) -> None:
    """Write each domain's problems, the examples of its first ones, and a benchmark."""
    for offset, domain in enumerate(DOMAINS):
        rows = [
            problem(f"What is {n} + {100 * (offset + 1)}?", str(n + 100 * (offset + 1)), domain)
            for n in range(PROBLEMS)
        ]
        write_rows(run.problems(domain), rows, Problem)
        write_rows(run.examples(domain), [example(row) for row in rows[:EXAMPLES]], Example)
    write_rows(run.benchmark("held"), [problem("How many legs have 731 cats?", "2924")], Problem)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return what makes a run folder; without `models` it has problems alone."""

    def made(*, models: bool = True, **more: Any) -> Run:
        run = Run(tmp_path / "run", parse_recipe(recipe_data(tmp_path, **more), where="test"))
        write_problems(run)
        if models:
            for seed, place in enumerate([tmp_path / "base", *map(run.specialist, DOMAINS)]):
                write_random_model(place, seed=seed)
        return run

    return made
