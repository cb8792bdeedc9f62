"""A run folder written row by row: two domains, a published teacher, a judge, one benchmark."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cuvee.recipe import dump_recipe, parse_recipe
from cuvee.records import (
    Dropped,
    Example,
    Problem,
    Row,
    Trace,
    Verdict,
    content_hash,
    dumps,
    problem_id,
    write_rows,
)
from cuvee.runfolder import Run
from cuvee.teach.ledger import Cost, Ledger, Payer

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07 \r[bold red]markup[/] evil\u202etxt.exe zero\u200bwidth \x9b31m"
    " </pre><script>alert(1)</script> | `tick` [link](http://x) \u2028 end"
)
"""What a hostile teacher writes: escape sequences, rich's markup, bidi overrides, HTML."""

RECORD: dict[str, Any] = {
    "source": "owner/numbers", "config": "all", "split": "train", "revision": "0123abcd",
    "licence": "apache-2.0", "rows": 9, "filtered": 4, "problems": 3,
    "dropped": {"no_question": 1}, "traces": {"teacher": "deep", "n": 1},
}  # fmt: skip


def recipe_data(ledger: Path) -> dict[str, Any]:
    return {
        "name": "small",
        "base": "random:two-layer",
        "ledger": str(ledger),
        "domains": {
            "math": {
                "problems": [{"source": "owner/numbers", "config": "all", "traces": "deep"}],
                "verifier": "math",
                "select": {"language": "en", "tokens": [8, 1000]},
            },
            "talk": {
                "problems": [{"source": "talk.jsonl", "licence": "CC-BY-4.0"}],
                "verifier": "judge",
                "judge": "jan",
                "select": {"language": "en"},
            },
        },
        "teachers": [
            {
                "name": "ann",
                "url": "http://127.0.0.1:9/v1",
                "model": "ann-7b",
                "terms": "MIT",
                "usd_per_mtok": {"input": 1, "output": 2},
            },
            {"name": "deep", "published": True, "domains": ["math"]},
            {
                "name": "jan",
                "url": "http://127.0.0.1:9/v1",
                "model": "j",
                "domains": [],
                "terms": "MIT",
            },
        ],
        "evaluate": {
            "benchmarks": {
                "sums": {"domain": "math", "problems": {"source": "generator:arithmetic"}}
            }
        },
    }


def problem(question: str, gold: str, *, domain: str = "math", place: str = "") -> Problem:
    return Problem(
        id=problem_id(question, gold, None),
        domain=domain,
        source="owner/numbers" if domain == "math" else "talk.jsonl",
        question=question,
        prompt=f"{question}\nReason.",
        verifier="math" if domain == "math" else "judge",
        gold=gold,
        tests=None,
        meta="{}",
        place=place,
    )


def request(prompt: str, *, seed: int, sample: int) -> dict[str, Any]:
    return {
        "identity": "id-of-ann",
        "messages": [{"role": "user", "content": prompt}],
        "sampling": {"temperature": 0.6, "top_p": 0.95, "max_tokens": 64},
        "seed": seed,
        "sample": sample,
    }


def trace(of: Problem, teacher: str, sample: int, answer: str, **changes: Any) -> Trace:
    asked = request(of.prompt, seed=sample + 5, sample=sample)
    key = "" if teacher == "deep" else content_hash({**asked, "identity": f"id-of-{teacher}"})
    if teacher == "ann":
        key = content_hash(asked)
    values: dict[str, Any] = {
        "id": content_hash(key, teacher, of.id, sample),
        "problem_id": of.id,
        "domain": of.domain,
        "model": teacher,
        "sample": sample,
        "reasoning": "I add the two numbers one after the other.",
        "answer": answer,
        "finish_reason": "stop",
        "prompt_tokens": None if teacher == "deep" else 12,
        "completion_tokens": None if teacher == "deep" else 30,
        "seconds": 0.5,
        "request": key,
        "fingerprint": None,
        "error": None,
        "usd": None if teacher == "deep" else 0.000072,
    }
    return Trace(**(values | changes))


def verdict(of: Trace, name: Any, reason: str, extracted: str | None = None) -> Verdict:
    return Verdict(
        of.id, of.problem_id, of.domain, name, reason, extracted, "2", None, "number", 0.001
    )


def example(of: Trace, tokens: int) -> Example:
    return Example(of.id, of.problem_id, of.domain, of.model, "?", of.reasoning, of.answer, tokens)


def left_out(of: Trace, reason: str, detail: str | None = None) -> Dropped:
    return Dropped(of.id, of.domain, "trace", of.model, reason, detail)


@dataclasses.dataclass(frozen=True)
class Built:
    """The run, and the rows that tests name."""

    run: Run
    easy: Problem
    """Of math: ann is right, then wrong; the published answer is right but not chosen."""
    hard: Problem
    """Of math: ann is hostile and goes in circles, then fails."""
    talk: Problem
    taken: Problem
    """In the benchmark, and dropped from math for that."""
    chosen: Trace
    wrong: Trace
    published: Trace
    hostile: Trace
    failed: Trace
    judged: Trace
    judge: Trace


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """A run whose every stage up to `select` is written, and a ledger with ann's answers."""
    recipe = parse_recipe(recipe_data(tmp_path / "ledger.sqlite"), where="the test")
    run = Run(tmp_path / "run", recipe)
    run.path.mkdir()
    (run.path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    easy = problem("What is 1 + 1?", "2", place="train.parquet, row 18")
    hard = problem(f"What is 2 + 2? {HOSTILE}", "4", place="train.parquet, row 19")
    talk = problem("Say hello.", "hello", domain="talk", place="talk.jsonl, row 1")
    taken = problem("What is 3 + 3?", "6", place="item 1")
    chosen = trace(easy, "ann", 0, "It is \\boxed{2}.")
    judged = trace(talk, "ann", 0, "Hello!")
    found = Built(
        run,
        easy,
        hard,
        talk,
        taken,
        chosen=chosen,
        wrong=trace(easy, "ann", 1, "It is \\boxed{3}."),
        published=trace(easy, "deep", 0, "\\boxed{2}"),
        hostile=trace(hard, "ann", 0, HOSTILE, reasoning=HOSTILE * 40),
        failed=trace(
            hard, "ann", 1, "", reasoning="", finish_reason="error", error="HTTP 500", usd=None,
            completion_tokens=None,
        ),
        judged=judged,
        judge=trace(talk, "jan", 0, "YES", problem_id=judged.id),
    )  # fmt: skip
    _write_math(found)
    _write_talk(found)
    _write_benchmark(found)
    _write_ledger(found)
    return found


def _rows(path: Path, rows: Iterable[Row], row_type: type[Row]) -> None:
    write_rows(path, rows, row_type)


def _write_math(b: Built) -> None:
    run = b.run
    run.sources("math").parent.mkdir(parents=True)
    run.sources("math").write_text(json.dumps([RECORD]), encoding="utf-8")
    _rows(run.problems("math"), [b.easy, b.hard], Problem)
    lost = [
        Dropped(b.taken.id, "math", "problem", None, "in_benchmark", f"sums {b.taken.id}"),
        Dropped(b.easy.id, "math", "problem", None, "exact_duplicate", f"repeats {b.easy.id}"),
        Dropped("feed" * 4, "math", "problem", None, "no_question", "train.parquet, row 20"),
    ]
    _rows(run.dropped("problems", "math"), lost, Dropped)
    _rows(run.traces("math", "ann"), [b.chosen, b.wrong, b.hostile, b.failed], Trace)
    _rows(run.traces("math", "deep"), [b.published], Trace)
    verdicts = [
        verdict(b.chosen, "correct", "equal", "2"),
        verdict(b.wrong, "wrong", "different", "3"),
        verdict(b.hostile, "correct", "equal", HOSTILE),
        verdict(b.failed, "not_checked", "request_failed"),
        verdict(b.published, "correct", "equal", "2"),
    ]
    _rows(run.verdicts("math"), verdicts, Verdict)
    _rows(run.examples("math"), [example(b.chosen, 31)], Example)
    dropped = [
        left_out(b.wrong, "verdict_wrong", "different"),
        left_out(b.hostile, "repetition", "0.98 of the 8-grams repeat, 0.30 allowed"),
        left_out(b.failed, "request_failed", "HTTP 500"),
        left_out(b.published, "not_chosen"),
    ]
    _rows(run.dropped("select", "math"), dropped, Dropped)


def _write_talk(b: Built) -> None:
    run = b.run
    _rows(run.problems("talk"), [b.talk], Problem)
    _rows(run.dropped("problems", "talk"), [], Dropped)
    _rows(run.traces("talk", "ann"), [b.judged], Trace)
    _rows(run.verdicts("talk"), [verdict(b.judged, "correct", "judged")], Verdict)
    _rows(run.folder("verify") / "judge" / "talk.parquet", [b.judge], Trace)
    _rows(run.examples("talk"), [example(b.judged, 12)], Example)
    _rows(run.dropped("select", "talk"), [], Dropped)


def _write_benchmark(b: Built) -> None:
    run = b.run
    held_out = dataclasses.replace(b.taken, domain="math", source="generator:arithmetic")
    _rows(run.benchmark("sums"), [held_out], Problem)
    _rows(run.dropped("problems", "benchmarks/sums"), [], Dropped)
    answer = trace(held_out, "base", 0, "\\boxed{7}")
    _rows(run.score_traces("base", "sums"), [answer], Trace)
    _rows(run.score_verdicts("base", "sums"), [verdict(answer, "wrong", "different")], Verdict)


def _write_ledger(b: Built) -> None:
    payer = Payer(b.run.account(), "ann")
    with Ledger.open(b.run.recipe.ledger) as ledger:
        for one, of in [(b.chosen, b.easy), (b.wrong, b.easy), (b.hostile, b.hard)]:
            asked = request(of.prompt, seed=one.sample + 5, sample=one.sample)
            body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
            ledger.put(
                one.request,
                request=dumps(asked),
                response=json.dumps(body),
                status=200,
                seconds=0.5,
                payer=payer,
                cost=Cost(12, 30, 0.000072),
            ).result()
