"""Reads a run folder into `Facts`: what happened, counted once, for the report and the card.

Rows of every stage in, one frozen record out. Texts are streamed: of all traces only the
samples to show are kept in memory. It judges nothing and words nothing.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cuvee.lineage.preflight import Preflight
from cuvee.recipe import Teacher, dump_recipe
from cuvee.records import (
    Comparison,
    Dropped,
    Example,
    Problem,
    Score,
    Trace,
    Verdict,
    VerdictName,
    iter_rows,
)
from cuvee.release.exports import read_exports
from cuvee.release.facts import Facts, FaultCount, Funnel, Sample, TaskTime, TeacherCount
from cuvee.release.graded import Traced, count_graded
from cuvee.release.logs import merge_statistics, read_adopted, read_training
from cuvee.release.published import read_published
from cuvee.release.refined import count_refined
from cuvee.release.rounds import round_rows
from cuvee.release.scored import read_pairings, read_scores
from cuvee.runfolder import STAGES, Run, read_manifest

SCRIPTED = "scripted/"
"""A scripted teacher's fingerprint is this and the fault's name."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Fate:
    """What became of one trace, without its texts."""

    id: str
    domain: str
    teacher: str
    fault: str | None
    """What a scripted teacher said of it; None for every other teacher."""
    finish_reason: str
    completion_tokens: int | None
    usd: float | None
    verdict: VerdictName | None
    reason: str | None
    tokens: int | None
    """Of its example; None where it did not become one."""
    too_long: bool
    """Whether it is an example that training left out as too long."""
    held_out: bool
    """Whether it is an example that training only measured."""
    dropped: str | None
    """The reason it was dropped for."""

    @property
    def trained(self) -> bool:
        """Return whether it was trained on."""
        return self.tokens is not None and not self.too_long and not self.held_out


def gather(run: Run) -> Facts:
    """Return the facts of a run that has been evaluated.

    Raises DataError naming the file where one is missing or breaks its contract.
    """
    domains = list(run.recipe.domains)
    training = {model: read_training(run, model) for model in run.recipe.trained()}
    fates = {d: list(_fates(run, d, training[d].preflight)) for d in domains}
    every = [fate for domain in domains for fate in fates[domain]]
    evaluated = bool(run.recipe.evaluate.benchmarks)
    return Facts(
        recipe=run.recipe,
        recipe_text=dump_recipe(run.recipe),
        scores=read_scores(run.scores(), Score) if evaluated else (),
        comparisons=read_scores(run.comparisons(), Comparison) if evaluated else (),
        published=read_published(run.recipe),
        pairings=tuple(read_pairings(run)),
        funnels=tuple(_funnel(run, domain, fates[domain]) for domain in domains),
        faults=tuple(_faults(every)),
        teachers=tuple(_teacher(teacher, every) for teacher in run.recipe.teachers),
        lengths={
            domain: tuple(f.tokens for f in fates[domain] if f.tokens is not None)
            for domain in domains
        },
        training=training,
        adopted=read_adopted(merge_statistics(run)),
        exports=read_exports(run),
        refined=tuple(count_refined(run)),
        graded=tuple(count_graded(run, {d: _traced(fates[d]) for d in domains})),
        rounds=round_rows(run),
        samples=tuple(s for domain in domains for s in _samples(run, domain, fates[domain])),
        tasks=_tasks(run),
        versions=_versions(run),
    )


def _traced(fates: Iterable[_Fate]) -> dict[str, Traced]:
    return {fate.id: Traced(fate.teacher, fate.dropped) for fate in fates}


def _fates(run: Run, domain: str, preflight: Preflight) -> Iterator[_Fate]:
    """Yield what became of each trace of a domain, teacher by teacher."""
    verdicts = {v.trace_id: (v.verdict, v.reason) for v in _verdicts(run, domain)}
    tokens = {e.id: e.tokens for e in iter_rows(run.examples(domain), Example)}
    dropped = {d.id: d.reason for d in _dropped_traces(run, domain)}
    for trace in _traces(run, domain):
        verdict, reason = verdicts.get(trace.id, (None, None))
        yield _Fate(
            id=trace.id,
            domain=domain,
            teacher=trace.model,
            fault=_fault(trace),
            finish_reason=trace.finish_reason,
            completion_tokens=trace.completion_tokens,
            usd=trace.usd,
            verdict=verdict,
            reason=reason,
            tokens=tokens.get(trace.id),
            too_long=trace.id in tokens and trace.id in preflight.too_long,
            held_out=trace.id in tokens and trace.id in preflight.held_out,
            dropped=dropped.get(trace.id),
        )


def _traces(run: Run, domain: str) -> Iterator[Trace]:
    for file in run.trace_files(domain):
        yield from iter_rows(file, Trace)


def _verdicts(run: Run, domain: str) -> Iterator[Verdict]:
    for file in run.verdict_files(domain):
        yield from iter_rows(file, Verdict)


def _dropped_traces(run: Run, domain: str) -> Iterator[Dropped]:
    return (d for d in iter_rows(run.dropped("select", domain), Dropped) if d.kind == "trace")


def _fault(trace: Trace) -> str | None:
    if trace.fingerprint is None or not trace.fingerprint.startswith(SCRIPTED):
        return None
    return trace.fingerprint.removeprefix(SCRIPTED)


def _funnel(run: Run, domain: str, fates: Sequence[_Fate]) -> Funnel:
    problems_dropped = iter_rows(run.dropped("problems", domain), Dropped)
    verdicts: dict[str, Counter[str]] = {}
    for fate in fates:
        if fate.verdict is not None and fate.reason is not None:
            verdicts.setdefault(fate.verdict, Counter())[fate.reason] += 1
    return Funnel(
        domain=domain,
        problems=sum(1 for _ in iter_rows(run.problems(domain), Problem)),
        problems_dropped=_ordered(d.reason for d in problems_dropped),
        traces=len(fates),
        finish=_ordered(f.finish_reason for f in fates),
        verdicts={v: dict(reasons.most_common()) for v, reasons in verdicts.items()},
        dropped=_ordered(f.dropped for f in fates if f.dropped is not None),
        examples=sum(f.tokens is not None for f in fates),
        untrained=sum(f.too_long for f in fates),
        held_out=sum(f.held_out for f in fates),
    )


def _ordered(reasons: Iterable[str]) -> dict[str, int]:
    """Return reason -> rows, the most frequent first, equal ones by name."""
    return dict(sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0])))


def _faults(fates: Iterable[_Fate]) -> list[FaultCount]:
    """Return a count for each fault that scripted teachers stated; `none` comes last."""
    by_fault: dict[str, list[_Fate]] = {}
    for fate in fates:
        if fate.fault is not None:
            by_fault.setdefault(fate.fault, []).append(fate)
    return [
        FaultCount(
            fault=fault,
            made=len(group),
            correct=sum(f.verdict == "correct" for f in group),
            dropped=sum(f.dropped is not None for f in group),
            trained=sum(f.trained for f in group),
        )
        for fault, group in sorted(by_fault.items(), key=lambda item: (item[0] == "none", item[0]))
    ]


def kind_of(teacher: Teacher) -> str:
    """Return how a teacher is reached: `url`, `serve`, `scripted` or `published`."""
    kinds = ("url", "serve", "scripted", "published")
    return next(kind for kind in kinds if getattr(teacher, kind))


def model_of(teacher: Teacher) -> str | None:
    """Return the model that answers as a teacher; None where a script does."""
    return teacher.model or (teacher.serve.model if teacher.serve is not None else None)


def _teacher(teacher: Teacher, every: Iterable[_Fate]) -> TeacherCount:
    fates = [f for f in every if f.teacher == teacher.name]
    answered = [f for f in fates if f.finish_reason != "error"]
    prices = [f.usd for f in answered if f.usd is not None]
    return TeacherCount(
        name=teacher.name,
        kind=kind_of(teacher),
        model=model_of(teacher),
        terms=teacher.terms,
        traces=len(fates),
        failed=len(fates) - len(answered),
        truncated=sum(f.finish_reason == "length" for f in fates),
        checked=sum(f.verdict in ("correct", "wrong", "no_answer") for f in answered),
        correct=sum(f.verdict == "correct" for f in answered),
        examples=sum(f.tokens is not None for f in fates),
        completion_tokens=sum(f.completion_tokens or 0 for f in answered),
        tokens_unknown=sum(f.completion_tokens is None for f in answered),
        usd=sum(prices) if prices and len(prices) == len(answered) else None,
    )


def _samples(run: Run, domain: str, fates: Sequence[_Fate]) -> list[Sample]:
    """Return one example of each teacher and one trace of each drop reason.

    Which ones is decided by their ids, which are hashes: the same run shows the same
    samples, and nobody picked them.
    """
    chosen: dict[tuple[str, str], _Fate] = {}
    for fate in sorted(fates, key=lambda f: f.id):
        if fate.tokens is not None:
            chosen.setdefault(("kept", fate.teacher), fate)
        elif fate.dropped is not None:
            chosen.setdefault(("dropped", fate.dropped), fate)
    wanted = {fate.id: key for key, fate in chosen.items()}
    traces = {t.id: t for t in _traces(run, domain) if t.id in wanted}
    asked = {t.problem_id for t in traces.values()}
    prompts = {p.id: p.prompt for p in iter_rows(run.problems(domain), Problem) if p.id in asked}
    verdicts = {v.trace_id: v for v in _verdicts(run, domain) if v.trace_id in wanted}
    details = {d.id: d.detail for d in _dropped_traces(run, domain) if d.id in wanted}
    order = sorted(wanted, key=lambda i: (wanted[i][0] != "kept", wanted[i][1]))
    return [
        Sample(
            trace=traces[i],
            prompt=prompts.get(traces[i].problem_id),
            verdict=verdicts.get(i),
            dropped=chosen[wanted[i]].dropped,
            detail=details.get(i),
        )
        for i in order
    ]


def _tasks(run: Run) -> tuple[TaskTime, ...]:
    """Return the manifest's tasks of the stages before this one, in the order they began."""
    tasks = []
    for key, entry in read_manifest(run.path).items():
        stage, _, name = key.partition("/")
        if stage != "release":
            tasks.append(TaskTime(stage, name, entry["begun"], entry["seconds"], entry["counts"]))
    return tuple(sorted(tasks, key=lambda t: (STAGES.index(t.stage), t.begun, t.name)))


def _versions(run: Run) -> dict[str, str]:
    """Return package -> version; all of them where tasks ran under different ones."""
    seen: dict[str, set[str]] = {}
    for entry in read_manifest(run.path).values():
        for package, version in entry["versions"].items():
            seen.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(versions)) for package, versions in sorted(seen.items())}
