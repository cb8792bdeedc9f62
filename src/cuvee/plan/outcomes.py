"""What became of a pilot's answers: rounds, what was asked about answers, examples.

A run folder's traces, verdicts and examples in; numbers by problem out. Not here: the answers
themselves, other stages (`cuvee.plan.reading`).
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from functools import partial
from pathlib import Path

from cuvee.plan.look import Look, answers_in, numbered
from cuvee.plan.measured import About, Answers, Selected, in_flight
from cuvee.records import count_rows, iter_values
from cuvee.runfolder import Run
from cuvee.select.refine.task import chosen_file, refiner_traces
from cuvee.teach.grading import grade_traces
from cuvee.verify.stage import judge_traces


def about(look: Look) -> dict[tuple[About, str], Answers]:
    """Return what judges, graders and refiners were asked."""
    found: dict[tuple[About, str], Answers] = {}
    for domain in sorted(look.domains):
        for kind, teacher, file, task in _askings(look, domain):
            entry = look.manifest.get(task)
            if teacher not in look.teachers or entry is None or not file.exists():
                continue
            taken = partial(_of_kind, look.run, domain, file, teacher, wall=entry["seconds"])
            if (answers := look.attempt(task, taken)) is not None:
                found[kind, domain] = answers
    return found


def _askings(look: Look, domain: str) -> Iterator[tuple[About, str, Path, str]]:
    """Yield what is asked about a domain's answers by both recipes: who, where, which task."""
    run = look.run
    old, new = run.recipe.domains[domain], look.recipe.domains[domain]
    if old.judge is not None:
        yield "judge", old.judge, judge_traces(run, domain), f"verify/{domain}"
    if old.rubric is not None and old.rubric == new.rubric:
        yield "rubric", old.rubric.teacher, grade_traces(run, domain), f"verify/rubric/{domain}"
    refiner = None if old.refine is None else old.refine.teacher
    if refiner is not None and old.refine == new.refine:
        yield "refine", refiner, refiner_traces(run, domain), f"select/refine/{domain}"


def _of_kind(run: Run, domain: str, file: Path, teacher: str, *, wall: float) -> Answers:
    (asked,) = (t for t in run.recipe.teachers if t.name == teacher)
    problems = [row["id"] for row in iter_values(run.problems(domain), ["id"])]
    return answers_in(
        file, wall=wall, in_flight=in_flight(asked), problem_of=_problem_of(run, domain),
        problems=problems,
    )  # fmt: skip


def _problem_of(run: Run, domain: str) -> dict[str, str]:
    """Return the problem of each trace of a domain, of the rounds that there have been."""
    files = [file for file in run.trace_files(domain) if file.exists()]
    rows = (row for file in files for row in iter_values(file, ("id", "problem_id")))
    return {row["id"]: row["problem_id"] for row in rows}


def selected(look: Look) -> dict[str, Selected]:
    """Return what became of each domain's answers, where they have been verified."""
    found: dict[str, Selected] = {}
    for domain in sorted(look.domains):
        if not (look.run.verdicts(domain).exists() and _is_answered_alike(look, domain)):
            continue
        said = look.attempt(f"verify and select of {domain}", partial(_selected, look, domain))
        if said is not None:
            found[domain] = said
    return found


def _is_answered_alike(look: Look, domain: str) -> bool:
    """Return whether the same teachers answer a domain in both recipes, and are asked alike."""
    old, new = ({t.name for t in r.teachers_of(domain)} for r in (look.run.recipe, look.recipe))
    if old != new:
        look.notes.append(f"{domain}: pass rate and examples not measured: its teachers differ")
    return old == new and new <= look.teachers


def _selected(look: Look, domain: str) -> Selected:
    run = look.run
    right: dict[str, list[bool]] = defaultdict(list)
    for row in iter_values(run.verdicts(domain), ("problem_id", "verdict")):
        right[row["problem_id"]].append(row["verdict"] == "correct")
    further = [file for file in run.verdict_files(domain)[1:] if file.exists()]
    answers = sum(len(flags) for flags in right.values())
    begun = Selected(
        right=tuple(sum(flags) / len(flags) for flags in right.values()),
        answers=answers,
        all_answers=answers + sum(map(count_rows, further)),
    )
    chosen, dropped = chosen_file(run, domain), run.dropped("select", domain)
    if not (chosen.exists() and dropped.exists()):
        return begun
    tokens = {row["id"]: float(row["tokens"]) for row in numbered(chosen, ("id", "tokens"))}
    rows = iter_values(dropped, ("id", "reason"))
    fit = {*tokens, *(row["id"] for row in rows if row["reason"] == "over_target")}
    return dataclasses.replace(
        begun,
        usable=_usable(look, domain, problems=[*right], fit=fit),
        chosen=tuple(tokens.values()),
        trained=_trained_on(look, domain, tuple(tokens.values())),
    )


def _usable(
    look: Look, domain: str, *, problems: Sequence[str], fit: Set[str]
) -> tuple[tuple[float, ...], ...]:
    """Return how many of each problem's traces are fit after each round that has been.

    After the first alone where the recipes differ in `rounds`; not at all where they differ in
    how many answers a problem gets.
    """
    run, found = look.run, []
    old, new = (
        {t.name: t.samples for t in r.teachers_of(domain)} for r in (run.recipe, look.recipe)
    )
    if old != new:
        look.notes.append(
            f"{domain}: examples a problem not measured: its teachers' samples differ"
        )
        return ()
    counts = dict.fromkeys(problems, 0)
    again = look.recipe.rounds is not None and run.recipe.rounds == look.recipe.rounds
    if run.recipe.rounds is not None and look.recipe.rounds is not None and not again:
        look.notes.append(f"{domain}: rounds not measured: `rounds` differs")
    for number in run.rounds() if again else (1,):
        asked = 0
        for trace, problem in _traces_of(run, domain, number):
            asked += 1
            if trace in fit:
                counts[problem] = counts.get(problem, 0) + 1
        if not asked:
            break  # not begun: of a small pilot too little was expected
        found.append(tuple(float(count) for count in counts.values()))
    return tuple(found)


def _traces_of(run: Run, domain: str, number: int) -> Iterator[tuple[str, str]]:
    for teacher in run.recipe.teachers_of(domain):
        file = run.traces(domain, teacher.name, in_round=number)
        if file.exists():
            for row in iter_values(file, ("id", "problem_id")):
                yield row["id"], row["problem_id"]


def _trained_on(look: Look, domain: str, chosen: tuple[float, ...]) -> tuple[float, ...]:
    """Return the tokens of the examples, where both recipes refine them alike."""
    run, before = look.run, look.run.recipe.domains[domain].refine
    if before != look.recipe.domains[domain].refine:
        return ()
    if before is None:
        return chosen
    if not run.examples(domain).exists():
        return ()
    return tuple(float(row["tokens"]) for row in numbered(run.examples(domain), ["tokens"]))
