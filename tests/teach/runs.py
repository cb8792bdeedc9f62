"""Runs for the tests of the stage `teach`: a recipe, its folder, and the problems in it."""

from pathlib import Path
from typing import Any

from cuvee.problems import arithmetic
from cuvee.recipe import parse_recipe
from cuvee.records import Problem, dumps, problem_id, write_rows
from cuvee.runfolder import Run

from .conftest import Loopback


def problems(domain: str, count: int, *, verifier: str = "math") -> list[Problem]:
    items = arithmetic.generate(count, seed=5, args={})
    return [
        Problem(
            id=problem_id(item.question, item.gold, None),
            domain=domain,
            source="generator:arithmetic",
            question=item.question,
            prompt=f"{domain}: {item.question}",
            verifier=verifier,
            gold=item.gold,
            tests=None,
            meta=dumps(item.meta),
        )
        for item in items
    ]


def a_run(
    tmp_path: Path,
    teachers: list[dict[str, Any]],
    *,
    folder: str = "run",
    traces: dict[str, list[str]] | None = None,
    **domain: Any,
) -> Run:
    """Return a run of two domains, `math` and `more`, with six problems each.

    `traces` are the published teachers of each; `domain` changes both domains.
    """
    source = {"source": "generator:arithmetic", "count": 6}
    having = traces or {}
    domains = {
        name: {
            "problems": [source, *({**source, "traces": t} for t in having.get(name, []))],
            "verifier": "math",
        }
        | domain
        for name in ("math", "more")
    }
    recipe = parse_recipe(
        {
            "name": "test",
            "base": "random:two-layer",
            "ledger": str(tmp_path / "ledger.sqlite"),
            "domains": domains,
            "teachers": teachers,
        },
        where="test",
    )
    run = Run(tmp_path / folder, recipe)
    for name in recipe.domains:
        write_rows(run.problems(name), problems(name, 6), Problem)
    return run


def remote(server: Loopback, **changes: Any) -> dict[str, Any]:
    return {"name": "alice", "url": server.url, "model": "m", "retries": 1} | changes


def scripted(**changes: Any) -> dict[str, Any]:
    script = {"skill": 0.5, "faults": ["wrong_result", "no_answer"], "http_faults": 0.0}
    return {"name": "bob", "scripted": script | changes}
