"""The stage `select`: traces and verdicts in, examples and dropped traces out, by domain.

Reads problems, traces and verdicts of a domain; writes `04_examples/DOMAIN.parquet`,
`dropped/DOMAIN.parquet`, `funnel/DOMAIN.json` and, where problems without gold are voted on,
`votes/DOMAIN.jsonl`; where a domain has `refine`, its choice goes to `chosen/DOMAIN.parquet`
and comes refined into `DOMAIN.parquet` (`cuvee.select.refine.task`); with `baseline: mixture`,
`mixture.parquet` as well. The texts of traces are read twice and never held: once to be judged,
once to be written. Tokens are counted as the student will be trained, so with its tokenizer
and template. With `workers: ray` traces are judged on the cluster
(`cuvee.select.clustered`); all else is done in this process. Not here: how traces are judged
(`cuvee.select.sift`).
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.atomic import remove, write_text
from cuvee.errors import DataError
from cuvee.models.adapted import load_adapted
from cuvee.models.checkpoint import resolve
from cuvee.models.files import TOKENIZER_FILES
from cuvee.models.tokens import count_targets
from cuvee.progress import bar, console
from cuvee.recipe import MIXTURE, Select
from cuvee.records import (
    Dropped,
    Example,
    Trace,
    Verdict,
    iter_rows,
    iter_values,
    read_rows,
    write_rows,
)
from cuvee.runfolder import Run, Task
from cuvee.select.choose import Candidate, Choice, choose
from cuvee.select.clustered import sift_on_ray
from cuvee.select.difficulty import Tally
from cuvee.select.funnel import Fate, count_funnel, funnel_file, funnel_table, write_funnel
from cuvee.select.graded import goes_by_grades, read_grades
from cuvee.select.mixture import mixture_task
from cuvee.select.refine.task import chosen_file, refine_task
from cuvee.select.refine.teacher import refiners
from cuvee.select.sift import Asked, Judged, Student, judged, sift
from cuvee.select.vote import Vote, hold_votes, judge_by_votes
from cuvee.teach.grading import grades_file
from cuvee.workers.nodes import checked_cluster


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return one task a domain, one more where it is refined, and the mixture's if any.

    `resources` closes the Ray cluster that the first of them opens, with `workers: ray`.
    """
    mixed = [mixture_task(run)] if run.recipe.baseline == MIXTURE else []
    refining = _refine_tasks(run, resources)
    connect = functools.cache(lambda: resources.enter_context(checked_cluster(run.recipe.address)))
    return [*(_task(run, name, connect) for name in run.recipe.domains), *refining, *mixed]


def _refine_tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return the task of each domain whose chosen traces are refined."""
    domains = {n: d for n, d in run.recipe.domains.items() if d.refine is not None}
    asked = refiners(run, resources) if domains else {}
    return [
        refine_task(
            run,
            name,
            refiner=asked.get(name),
            load_student=load_student,
            student_files=student_files(run.recipe.base),
            votes=votes_file(run, name) if domain.select.agreement is not None else None,
        )
        for name, domain in domains.items()
    ]


def votes_file(run: Run, domain: str) -> Path:
    """Return the file of the votes on a domain's problems without gold."""
    return run.folder("select") / "votes" / f"{domain}.jsonl"


def _task(run: Run, name: str, connect: Callable[[], None]) -> Task:
    recipe, domain = run.recipe, run.recipe.domains[name]
    voting = domain.select.agreement is not None
    outputs = [chosen_file(run, name), run.dropped("select", name), funnel_file(run, name)]
    limits = recipe.verify.model_dump(mode="json", exclude={"processes"})
    return Task(
        stage="select",
        name=name,
        inputs=(
            run.problems(name),
            *run.trace_files(name),
            *run.verdict_files(name),
            *([grades_file(run, name)] if goes_by_grades(domain) else []),
            *student_files(recipe.base),
        ),
        outputs=(*outputs, votes_file(run, name)) if voting else tuple(outputs),
        settings={
            "base": recipe.base,
            "seed": recipe.seed,
            "select": domain.select.model_dump(mode="json"),
            "verifier": domain.verifier,
            **({"limits": limits} if voting else {}),
        },
        work=lambda: _select(run, name, connect),
    )


def _select(run: Run, name: str, connect: Callable[[], None]) -> Mapping[str, Any]:
    """Select in one domain; return its counts."""
    remove(run.examples(name))  # of an earlier choice; what refines this one writes it anew
    select = run.recipe.domains[name].select
    problems = _problems(run, name)
    votes, said = _voted(run, name)
    candidates, unfit = _sifted(run, name, said, problems, connect=connect)
    choice = choose(
        candidates,
        select=select,
        groups=group_problems(problems, said.tallies, select),
        seed=run.recipe.seed,
    )
    chosen = {candidate.id: candidate for candidate in choice.chosen}
    dropped = unfit + leftovers(choice, name)
    fates = [Fate(c.problem_id, c.teacher, fit=True, chosen=c.id in chosen) for c in candidates]
    fates += [
        Fate(said.verdicts[row.id].problem_id, row.model or "", fit=False, chosen=False)
        for row in unfit
    ]
    funnel = count_funnel(
        name, fates, dropped, problems=problems, tallies=said.tallies, votes=votes
    )
    # These stay on disk even where nothing is left to go on with.
    write_rows(run.dropped("select", name), dropped, Dropped)
    write_funnel(funnel_file(run, name), funnel)
    if select.agreement is not None:
        write_votes(votes_file(run, name), votes)
    console.print(funnel_table(funnel))
    reasons = dict(Counter(row.reason for row in dropped).most_common())
    if not chosen:
        taken = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        raise DataError(
            f"domain {name}: none of {len(fates)} traces became an example "
            f"({taken or 'there were none'}); see {run.dropped('select', name)}, and loosen "
            f"domains.{name}.select or ask more or better teachers"
        )
    write_rows(chosen_file(run, name), _examples(run, name, chosen, problems), Example)
    return {"traces": len(fates), "examples": len(chosen), **reasons}


def _problems(run: Run, name: str) -> dict[str, Asked]:
    """Return the problems by id, without their tests, which may be large."""
    columns = ["id", "source", "question", "prompt"]
    return {row.pop("id"): Asked(**row) for row in iter_values(run.problems(name), columns)}


def _voted(run: Run, name: str) -> tuple[list[Vote], Judged]:
    """Return the votes on problems without gold, if any are to be held, and what was said."""
    domain = run.recipe.domains[name]
    verdicts = [row for file in run.verdict_files(name) for row in read_rows(file, Verdict)]
    grades = read_grades(run, name)
    if domain.select.agreement is None:
        return [], dataclasses.replace(judged(verdicts), grades=grades)
    votes = hold_votes(
        verdicts,
        verifier=domain.verifier,
        agreement=domain.select.agreement,
        votes=domain.select.votes,
        limits=run.recipe.verify,
    )
    return votes, dataclasses.replace(judged(judge_by_votes(verdicts, votes)), grades=grades)


def _sifted(
    run: Run,
    name: str,
    said: Judged,
    problems: Mapping[str, Asked],
    *,
    connect: Callable[[], None],
) -> tuple[list[Candidate], list[Dropped]]:
    """Return the traces that pass every filter, and a row for every other one."""
    candidates: list[Candidate] = []
    dropped: list[Dropped] = []
    sifting = sift
    if run.recipe.workers == "ray":
        connect()
        sifting = sift_on_ray
    with bar(f"select {name}", total=len(said.verdicts), unit="traces") as tick:
        for row in sifting(
            _traces(run, name),
            said,
            problems,
            domain=run.recipe.domains[name],
            student=load_student(run.recipe.base),
            tick=tick,
        ):
            if isinstance(row, Candidate):
                candidates.append(row)
            else:
                dropped.append(row)
    return candidates, dropped


def group_problems(
    problems: Mapping[str, Asked], tallies: Mapping[str, Tally], select: Select
) -> dict[str, tuple[str, ...]]:
    """Return the group of each problem that has a verdict, in each of `select.balance`."""
    return {
        problem: tuple(
            problems[problem].source if over == "source" else found.band for over in select.balance
        )
        for problem, found in tallies.items()
    }


def leftovers(choice: Choice, domain: str) -> list[Dropped]:
    """Return a row for each candidate that was not chosen."""
    reasons = {
        "same_text": choice.same_text,
        "not_chosen": choice.not_chosen,
        "over_target": choice.over_target,
    }
    return [
        Dropped(c.id, domain, kind="trace", model=c.teacher, reason=reason, detail=None)
        for reason, candidates in reasons.items()
        for c in candidates
    ]


def write_votes(path: Path, votes: Sequence[Vote]) -> None:
    """Write one JSON line a vote, its fields and its share. Raises OSError with the path in it."""
    lines = [
        json.dumps({**dataclasses.asdict(vote), "share": vote.share}, ensure_ascii=False)
        for vote in votes
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _examples(
    run: Run, name: str, chosen: Mapping[str, Candidate], problems: Mapping[str, Asked]
) -> Iterator[Example]:
    """Yield the examples in the order in which their traces stand."""
    for trace in _traces(run, name):
        if trace.id in chosen:
            yield Example(
                id=trace.id,
                problem_id=trace.problem_id,
                domain=trace.domain,
                teacher=trace.model,
                prompt=problems[trace.problem_id].prompt,
                reasoning=trace.reasoning,
                answer=trace.answer,
                tokens=chosen[trace.id].tokens,
            )


def _traces(run: Run, name: str) -> Iterator[Trace]:
    return (trace for file in run.trace_files(name) for trace in iter_rows(file, Trace))


def load_student(base: str) -> Student:
    """Return the student of a base model: its tokenizer alone, no weights.

    Raises RecipeError or DataError where the base cannot be resolved or has no usable
    tokenizer or chat template.
    """
    tokenizer = load_adapted(resolve(base, weights=False))
    # No function of its own: the student goes to the workers as a whole.
    count = functools.partial(count_targets, tokenizer)
    return Student(tuple(tokenizer.all_special_tokens), count)


def student_files(base: str) -> list[Path]:
    """Return the local files on which the student's tokens depend; none for a hub id."""
    place = Path(base).expanduser()
    if place.is_dir():
        return [place / name for name in TOKENIZER_FILES if (place / name).exists()]
    return [place] if place.is_file() else []
