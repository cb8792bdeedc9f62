"""The task `select/refine/DOMAIN`: chosen traces in, the examples that are trained on out.

Reads `04_examples/chosen/DOMAIN.parquet` (which is what `select/DOMAIN` writes where the
domain has `refine`), problems and verdicts; writes `04_examples/DOMAIN.parquet`, a row a way
and example in `04_examples/refined/DOMAIN.parquet`, and a refiner's own traces in
`04_examples/refined/traces/DOMAIN.parquet` (their `problem_id` is the example's). First the
rules, then the teacher on what the rules left; what does not hold up leaves the text before.
Examples pass by in batches; of texts only the refiner's traces are held to the end. A task
some of whose requests failed is done again by the next run. Not here: which attempts stand
(`cuvee.select.refine.attempts`).
"""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.errors import TeacherError
from cuvee.progress import bar, warn
from cuvee.recipe import Refine
from cuvee.records import (
    Example,
    Problem,
    Trace,
    Verdict,
    count_rows,
    iter_rows,
    iter_values,
    write_rows,
)
from cuvee.runfolder import Run, Task
from cuvee.select.refine.attempts import Bench, by_rules, settle
from cuvee.select.refine.rows import Refined
from cuvee.select.refine.teacher import Refiner, attempt_of
from cuvee.select.sift import Asked, Student
from cuvee.teach.client import Usage
from cuvee.verify.check import check_traces

BATCH = 1024
"""Examples that are held, asked about and checked at once."""

VOTED = "voted"
"""The outcome of a vote that stands for a gold."""


def chosen_file(run: Run, domain: str) -> Path:
    """Return the file that select's choice is written to: the examples, unless they are refined."""
    if run.recipe.domains[domain].refine is None:
        return run.examples(domain)
    return run.folder("select") / "chosen" / f"{domain}.parquet"


def refined_file(run: Run, domain: str) -> Path:
    """Return the file of what came of refining a domain's examples."""
    return run.folder("select") / "refined" / f"{domain}.parquet"


def refiner_traces(run: Run, domain: str) -> Path:
    """Return the file of a refiner's own traces in a domain."""
    return run.folder("select") / "refined" / "traces" / f"{domain}.parquet"


def refine_task(
    run: Run,
    name: str,
    *,
    refiner: Refiner | None,
    load_student: Callable[[str], Student],
    student_files: Sequence[Path],
    votes: Path | None,
) -> Task:
    """Return the task of a domain that has `refine`; nothing is opened.

    `votes` is the file of the votes on its problems without gold, where there are any.
    """
    recipe, domain = run.recipe, run.recipe.domains[name]
    if domain.refine is None:
        raise ValueError(f"domain {name} has no refine")  # our own mistake
    refine = domain.refine
    outputs = [run.examples(name), refined_file(run, name)]
    inputs = [run.problems(name), *run.verdict_files(name), chosen_file(run, name), *student_files]

    def work() -> Mapping[str, Any]:
        bench = _bench(run, name, refine, student=load_student(recipe.base), votes=votes)
        return _refine(run, name, refine, bench=bench, refiner=refiner)

    return Task(
        stage="select",
        name=f"refine/{name}",
        inputs=(*inputs, votes) if votes is not None else tuple(inputs),
        outputs=(*outputs, refiner_traces(run, name)) if refiner is not None else tuple(outputs),
        settings={
            "base": recipe.base,
            "refine": refine.model_dump(mode="json", exclude={"teacher"}),
            "select": domain.select.model_dump(mode="json"),
            "verifier": domain.verifier,
            "sandbox": recipe.sandbox,
            "limits": recipe.verify.model_dump(mode="json", exclude={"processes"}),
            "refiner": None if refiner is None else dict(refiner.settings),
        },
        work=work,
    )


def _bench(run: Run, name: str, refine: Refine, *, student: Student, votes: Path | None) -> Bench:
    ids = {row["id"]: row["problem_id"] for row in _chosen_ids(run, name)}
    golds = _voted(votes)
    found = {
        row["trace_id"]: row["verdict"]
        for file in run.verdict_files(name)
        for row in iter_values(file, ["trace_id", "verdict"])
    }
    expected = {i: "correct" if ids[i] in golds else found[i] for i in ids}
    wanted = set(ids.values())
    columns = ["id", "source", "question", "prompt"]
    asked = {
        row.pop("id"): Asked(**row)
        for row in iter_values(run.problems(name), columns)
        if row["id"] in wanted
    }

    def recheck(traces: Sequence[Trace]) -> Sequence[str]:
        if run.recipe.domains[name].verifier == "judge":
            # It is shown the answer alone, which is as it was: the same message, the same reply.
            return [expected[trace.id] for trace in traces]
        return [v.verdict for v in _verify(run, name, traces, golds)]

    return Bench(
        domain=run.recipe.domains[name],
        least_share=refine.least_share,
        asked=asked,
        expected=expected,
        student=student,
        recheck=recheck,
    )


def _chosen_ids(run: Run, name: str) -> Iterator[dict[str, Any]]:
    return iter_values(chosen_file(run, name), ["id", "problem_id"])


def _voted(votes: Path | None) -> dict[str, str]:
    """Return the golds that votes decided, by problem."""
    if votes is None:
        return {}
    rows = [json.loads(line) for line in votes.read_text(encoding="utf-8").split("\n") if line]
    return {row["problem_id"]: row["answer"] for row in rows if row["outcome"] == VOTED}


def _verify(
    run: Run, name: str, traces: Sequence[Trace], golds: Mapping[str, str]
) -> list[Verdict]:
    if not traces:
        return []
    wanted = {trace.problem_id for trace in traces}
    problems = {p.id: p for p in iter_rows(run.problems(name), Problem) if p.id in wanted}
    for problem, gold in golds.items():
        if problem in problems:
            problems[problem] = dataclasses.replace(problems[problem], gold=gold)
    return check_traces(
        traces,
        problems,
        limits=run.recipe.verify,
        sandbox=run.recipe.sandbox,
        label=f"verify refined {name}",
    )


@dataclasses.dataclass
class _Books:
    """What refining a domain came to so far, without the examples' texts."""

    rows: list[Refined] = dataclasses.field(default_factory=list)
    traces: list[Trace] = dataclasses.field(default_factory=list)
    usages: list[Usage] = dataclasses.field(default_factory=list)
    examples: int = 0
    tokens_before: int = 0
    tokens: int = 0


def _refine(
    run: Run, name: str, refine: Refine, *, bench: Bench, refiner: Refiner | None
) -> Mapping[str, Any]:
    """Refine the chosen traces of a domain, write the files, and return the counts."""
    books, file = _Books(), chosen_file(run, name)

    def examples() -> Iterator[Example]:
        rest = iter_rows(file, Example)
        with bar(f"refine {name}", total=count_rows(file), unit="examples") as tick:
            while batch := list(itertools.islice(rest, BATCH)):
                done = _batch(batch, refine, bench, refiner=refiner, books=books)
                books.examples += len(done)
                books.tokens_before += sum(example.tokens for example in batch)
                books.tokens += sum(example.tokens for example in done)
                tick(len(batch))
                yield from done

    write_rows(run.examples(name), examples(), Example)
    write_rows(refined_file(run, name), books.rows, Refined)
    if refiner is not None:
        write_rows(refiner_traces(run, name), books.traces, Trace)
        _report_failures(name, refiner, books)
    return _counts(books)


def _batch(
    batch: Sequence[Example],
    refine: Refine,
    bench: Bench,
    *,
    refiner: Refiner | None,
    books: _Books,
) -> Sequence[Example]:
    """Return the examples of a batch after all ways; what came of each goes into `books`."""
    if refine.rules:
        attempts = [by_rules(example, verifier=bench.domain.verifier) for example in batch]
        batch, rows = settle(attempts, bench, way="rules")
        books.rows += rows
    if refiner is not None:
        asked = [(e, bench.asked[e.problem_id].question) for e in batch]
        replies, usage = refiner.ask(asked)
        books.traces += replies
        books.usages.append(usage)
        attempts = [attempt_of(e, reply) for e, reply in zip(batch, replies, strict=True)]
        batch, rows = settle(attempts, bench, way="teacher")
        books.rows += rows
    return batch


def _report_failures(name: str, refiner: Refiner, books: _Books) -> None:
    """Warn of requests that failed. Raises TeacherError where all of them did."""
    failed = sum(usage.failed for usage in books.usages)
    first = next((u.first_error for u in books.usages if u.first_error is not None), None)
    if failed and failed == books.examples:
        raise TeacherError(
            f"refine {name}: all {failed} requests to {refiner.name} failed; the first: {first}"
        )
    passing = failed - sum(usage.refused for usage in books.usages)
    if passing:
        warn(
            f"refine {name}: {passing} of {books.examples} requests to {refiner.name} failed (the "
            f"first: {first}); those examples stay as they were, and the next run asks again"
        )


def _counts(books: _Books) -> dict[str, Any]:
    accepted = {row.id for row in books.rows if row.accepted}
    reasons = Counter(f"{row.way}: {row.reason}" for row in books.rows)
    counts: dict[str, Any] = {
        "examples": books.examples,
        "refined": len(accepted),
        "example_tokens_before": books.tokens_before,
        "example_tokens": books.tokens,
        "reasons": dict(sorted(reasons.items())),
    }
    added = ("sent", "from_ledger", "failed", "refused", "prompt_tokens", "completion_tokens")
    if books.usages:
        counts |= {key: sum(getattr(usage, key) for usage in books.usages) for key in added}
        paid = [usage.usd for usage in books.usages if usage.usd is not None]
        counts |= {"usd": round(sum(paid), 9)} if paid else {}
    return counts
