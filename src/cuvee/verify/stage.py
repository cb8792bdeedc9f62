"""The stage `verify`: the traces of all teachers of a domain in, the domain's verdicts out.

One task a domain, `verify/<domain>`; its counts are by verdict and by reason. Where a
teacher judges, its own traces are written too (`03_verdicts/judge/<domain>.parquet`); their
`problem_id` is the trace that was judged. With `rounds:` the traces of a later one are checked
by a task of their own (`verify/round-2/<domain>`), into `03_verdicts/round-2/`. Not here: what a
verdict means (`cuvee.verify.check`).
"""

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cuvee.progress import bar, say
from cuvee.records import (
    Problem,
    Trace,
    Verdict,
    count_rows,
    iter_rows,
    iter_values,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, Task
from cuvee.verify.check import check_traces
from cuvee.verify.clustered import check_pairs_on_ray, opened, slim
from cuvee.verify.judge import Judge, Question

NO_JUDGES: Mapping[str, Judge] = MappingProxyType({})


def tasks(
    run: Run,
    resources: contextlib.ExitStack,
    judges: Mapping[str, Judge] = NO_JUDGES,
    *,
    in_round: int = 1,
) -> list[Task]:
    """Return the tasks of a round of asking; `judges` are by domain.

    `resources` closes the Ray cluster that the first of them opens, with `workers: ray`.
    """
    connect = functools.cache(functools.partial(_connect, run, resources))
    return [
        _task(run, domain, judges.get(domain), connect, in_round=in_round)
        for domain in run.recipe.domains
    ]


def _connect(run: Run, resources: contextlib.ExitStack) -> None:
    """Open the cluster and check its nodes."""
    recipe = run.recipe
    programs = any(domain.verifier == "code" for domain in recipe.domains.values())
    resources.enter_context(opened(recipe.address, sandbox=recipe.sandbox if programs else None))


def judge_traces(run: Run, domain: str, *, in_round: int = 1) -> Path:
    """Return the file of a judge's own traces in a domain, of one round (>= 1)."""
    return run.verdicts(domain, in_round=in_round).parent / "judge" / f"{domain}.parquet"


def _task(
    run: Run, domain: str, judge: Judge | None, connect: Callable[[], None], *, in_round: int
) -> Task:
    recipe = run.recipe
    asked = run.asked(domain, in_round=in_round)
    traces = run.trace_files(domain, in_round=in_round)
    found = run.verdicts(domain, in_round=in_round)
    outputs = [found]
    if judge is not None:
        outputs.append(judge_traces(run, domain, in_round=in_round))

    def work() -> Mapping[str, Any]:
        if in_round > 1 and not any(count_rows(path) for path in traces):
            for path, row_type in zip(outputs, (Verdict, Trace), strict=False):
                write_rows(path, [], row_type)
            return count([])
        if recipe.workers == "ray" and judge is None:
            connect()
            return _check_on_ray(run, domain, in_round=in_round)
        if recipe.workers == "ray":
            say(f"verify {domain}: a teacher judges, so this domain is checked on this machine")
        kept: list[Trace] = []
        problems = {p.id: p for p in read_rows(asked, Problem)}
        rows = [trace for path in traces for trace in read_rows(path, Trace)]
        verdicts = check_traces(
            rows,
            problems,
            limits=recipe.verify,
            sandbox=recipe.sandbox,
            label=f"verify {domain}",
            judge=None if judge is None else _keeping(judge, kept),
        )
        if judge is not None:
            write_rows(judge_traces(run, domain, in_round=in_round), kept, Trace)
        write_rows(found, verdicts, Verdict)
        return count(verdicts)

    return Task(
        stage="verify",
        name=domain if in_round == 1 else f"round-{in_round}/{domain}",
        inputs=(asked, *traces),
        outputs=tuple(outputs),
        settings={
            "verifier": recipe.domains[domain].verifier,
            "sandbox": recipe.sandbox,
            "limits": recipe.verify.model_dump(mode="json", exclude={"processes"}),
            **({} if judge is None else {"judge": dict(judge.settings)}),
        },
        work=work,
    )


def _check_on_ray(run: Run, domain: str, *, in_round: int) -> Mapping[str, Any]:
    """Check a domain's traces of a round on the cluster, a chunk at a time; return the counts."""
    asked = run.asked(domain, in_round=in_round)
    problems = {p.id: slim(p) for p in iter_rows(asked, Problem)}
    traces = run.trace_files(domain, in_round=in_round)
    names = [f.name for f in dataclasses.fields(Trace) if f.name != "reasoning"]
    pairs = (
        (trace, problems.get(trace.problem_id))
        for path in traces
        for values in iter_values(path, names)
        for trace in [Trace(reasoning="", **values)]
    )
    counted: Counter[tuple[str, str]] = Counter()
    total = sum(count_rows(path) for path in traces)
    with bar(f"verify {domain}", total=total, unit="answers") as tick:
        verdicts = check_pairs_on_ray(
            pairs, limits=run.recipe.verify, sandbox=run.recipe.sandbox, tick=tick
        )
        found = run.verdicts(domain, in_round=in_round)
        write_rows(found, _counting(verdicts, counted), Verdict)
    return _counts(counted)


def _counting(verdicts: Iterable[Verdict], counted: Counter[tuple[str, str]]) -> Iterator[Verdict]:
    for verdict in verdicts:
        counted[str(verdict.verdict), verdict.reason] += 1
        yield verdict


def _keeping(judge: Judge, kept: list[Trace]) -> Judge:
    """Return the judge with its traces put into `kept` as they come."""

    def ask(questions: Sequence[Question]) -> list[Trace]:
        traces = judge.ask(questions)
        kept.extend(traces)
        return traces

    return dataclasses.replace(judge, ask=ask)


def count(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return how many verdicts there are: in all, of each kind, and for each reason."""
    return _counts(Counter((str(v.verdict), v.reason) for v in verdicts))


def _counts(counted: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    for (verdict, _), rows in counted.items():
        kinds[verdict] += rows
    reasons = {f"{verdict}: {reason}": rows for (verdict, reason), rows in counted.items()}
    named = {name: kinds[name] for name in ("correct", "wrong", "no_answer", "not_checked")}
    return {"traces": kinds.total(), **named, "reasons": dict(sorted(reasons.items()))}
