"""The plan of a recipe: rows by stage, totals, examples, budget, what does not fit.

A recipe, what was measured and what is assumed in, a `Plan` out. Opens no data set and loads
no weights; of the base its configuration alone. Stages come one after another; within one, rows
of different lanes work side by side. Not here: how it is shown (`cuvee.plan.show`).
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from cuvee.evaluate.protocol import benchmarks
from cuvee.plan.asking import evaluate_rows, teach_rows
from cuvee.plan.assumptions import parse
from cuvee.plan.budget import budgeted
from cuvee.plan.case import Case, answers_a_problem, problems_of
from cuvee.plan.engines import EVALUATE, engines
from cuvee.plan.engines import misfits as engine_misfits
from cuvee.plan.figures import NOTHING, Figure, total
from cuvee.plan.machine import Machine
from cuvee.plan.measured import Measured
from cuvee.plan.merging import merge_misfits, merge_rows
from cuvee.plan.prices import is_priced
from cuvee.plan.rows import Expected, Misfit, Plan, Row
from cuvee.plan.sizes import size_of
from cuvee.plan.training import GIGA, Setup, gpu_bytes, set_up, train_rows
from cuvee.plan.wording import headline, short
from cuvee.plan.work import problems_rows, release_rows, select_rows, verify_rows
from cuvee.plan.yields import examples_a_problem, expected_examples, pass_rate
from cuvee.recipe import Recipe
from cuvee.runfolder import STAGES


def estimate(
    recipe: Recipe, *, measured: Measured, assume: Sequence[str], machine: Machine
) -> Plan:
    """Return the plan of a recipe, `recipe.limit` included.

    `assume` are `NAME=VALUE` texts. Raises RecipeError for one that is not allowed, and for a
    benchmark that cannot be resolved.
    """
    resolved = tuple(benchmarks(recipe))
    scopes = [*recipe.domains, *recipe.evaluate.benchmarks, *(t.name for t in recipe.teachers)]
    scopes += ["evaluate", *{domain.verifier for domain in recipe.domains.values()}]
    assumptions = parse(assume, scopes=scopes)
    base = size_of(recipe.base, assumptions)
    started = engines(recipe, base)
    case = Case(recipe, measured, assumptions, machine, base, resolved, started)
    setup = set_up(case)
    rows = _priced(case, _rows(case, setup))
    whole, left = summed("total", rows), _left(case, rows)
    expected = tuple(_expected(case, domain) for domain in recipe.domains)
    misfits = tuple(_misfits(case, rows, whole, setup))
    budget = budgeted(recipe, rows)
    return Plan(
        name=recipe.name, limit=recipe.limit, rows=tuple(rows), total=whole, left=left,
        headline=headline(whole, setup, _one_gpu(case, whole, setup), expected, left=left),
        spent=measured.spent, expected=expected, budget=budget, misfits=misfits,
        assumptions=tuple(assumptions.used.values()), notes=_notes(case), machine=machine,
        measured_in=None if measured.folder is None else str(measured.folder),
    )  # fmt: skip


def _one_gpu(case: Case, whole: Row, setup: Setup) -> float:
    """Return the memory of a GPU; 0 where none is needed, and so none is assumed."""
    return gpu_bytes(case) if whole.gpus or setup.device == "cuda" else 0.0


def summed(name: str, rows: Sequence[Row]) -> Row:
    """Return the sum of rows: hours by lanes, scratch and memory of the largest."""
    return Row(
        name, "", requests=total(row.requests for row in rows),
        prompt_tokens=total(row.prompt_tokens for row in rows),
        answer_tokens=total(row.answer_tokens for row in rows),
        usd=total(row.usd for row in rows), hours=_hours(rows),
        disk=total(row.disk for row in rows),
        scratch=_largest(row.scratch for row in rows), gpus=max((r.gpus for r in rows), default=0),
        memory=_largest(row.memory for row in rows), done=all(row.done for row in rows),
    )  # fmt: skip


def _rows(case: Case, setup: Setup) -> list[Row]:
    by_stage = {
        "problems": problems_rows(case),
        "teach": teach_rows(case),
        "verify": verify_rows(case),
        "select": select_rows(case),
        "train": train_rows(case, setup),
        "merge": merge_rows(case),
        "evaluate": evaluate_rows(case),
        "release": release_rows(case),
    }
    return [row for stage in STAGES for row in by_stage[stage]]


def _priced(case: Case, rows: list[Row]) -> list[Row]:
    """Return the rows with the dollars of their GPU hours, where such an hour has a price."""
    price = case.assumptions.wish("usd_per_gpu_hour")
    if price is None:
        return rows
    return [_with_gpu_hours(row, price) for row in rows]


def _with_gpu_hours(row: Row, price: Figure) -> Row:
    if not row.gpus or row.hours is None or row.usd is None:
        return row
    return dataclasses.replace(row, usd=row.usd + (row.hours * price).scaled(row.gpus))


def _left(case: Case, rows: Sequence[Row]) -> Row:
    """Return the sum of what is not done; dollars: less what was spent already."""
    left = summed("left", [row for row in rows if not row.done])
    spent = sum(case.measured.spent.values())
    done = total(row.usd for row in rows if row.done) or NOTHING
    if left.usd is None or case.measured.limit != case.recipe.limit:
        return left
    # What is spent beyond the done rows went into rows under way.
    under_way = max(0.0, spent - done.value)
    usd = left.usd
    ends = [max(0.0, end - under_way) for end in (usd.value, usd.low, usd.high)]
    return dataclasses.replace(left, usd=Figure(ends[0], ends[1], ends[2], usd.origin))


def _hours(rows: Sequence[Row]) -> Figure | None:
    turns: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        turns[row.stage, row.turn].append(row)
    return total(_hours_of_turn(turn) for turn in turns.values())


def _hours_of_turn(rows: Sequence[Row]) -> Figure | None:
    lanes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        lanes[row.lane].append(row)
    sums = [total(row.hours for row in lane) for lane in lanes.values()]
    if any(each is None for each in sums):
        return None
    return _largest(sums)


def _largest(figures: Iterable[Figure | None]) -> Figure | None:
    """Return the ends of the largest; unknown ones are left out."""
    found = [figure for figure in figures if figure is not None]
    if not found:
        return None
    most = max(found, key=lambda figure: figure.value)
    return Figure(most.value, max(f.low for f in found), max(f.high for f in found), most.origin)


def _expected(case: Case, domain: str) -> Expected:
    target = case.recipe.domains[domain].select.target
    problems, examples = problems_of(case, domain), expected_examples(case, domain)
    return Expected(
        domain=domain, problems=problems, answers=answers_a_problem(case, domain),
        pass_rate=pass_rate(case, domain), examples=examples, target=target,
        words=_in_words(case, domain, examples, target),
    )  # fmt: skip


def _in_words(case: Case, domain: str, examples: Figure | None, target: int | None) -> str:
    each = examples_a_problem(case, domain)
    needed = None if target is None or not each.value else target / each.value
    if case.recipe.limit is not None:
        found = "unknown" if examples is None else f"about {short(examples)}"
        return f"{domain}: {found} in this pilot of {case.recipe.limit} problems"
    if examples is None:
        asked = "" if target is None else f"{target:,} asked; "
        enough = "" if needed is None else f"; about {needed:,.0f} problems are needed"
        return f"{domain}: {asked}problems unknown until loaded{enough}"
    if target is None:
        return f"{domain}: about {short(examples)} expected, all are taken"
    found = f"{domain}: {target:,} asked, about {short(examples)} expected"
    if examples.low >= target:
        return f"{found}: enough"
    advice = "raise samples or add problems"
    problems = problems_of(case, domain)
    if needed is not None and problems is not None and needed > problems.value:
        advice += f" (about {needed:,.0f} in all at this rate; there are {problems.value:,.0f})"
    if examples.value >= target:
        return f"{found}: probably enough; if not, {advice}"
    return f"{found}: {advice}"


def _misfits(case: Case, rows: Sequence[Row], whole: Row, setup: Setup) -> list[Misfit]:
    found = [] if setup.misfit is None else [setup.misfit]
    here, machine = len(case.machine.gpus), case.machine
    for stage in ("teach", "verify", "select", "train", "evaluate"):
        own = [row for row in rows if row.stage == stage and not row.on_nodes]
        most = max((row.gpus for row in own), default=0)
        if most > here:
            found.append(Misfit(stage, "gpus", most, here, f"{stage} works on {most} GPU(s), this "
                                f"machine has {here}", _elsewhere(stage)))  # fmt: skip
    found += [*engine_misfits(case.engines, machine.ram), *merge_misfits(case)]
    needed = total([whole.disk, whole.scratch])
    if needed is not None and needed.value > machine.disk:
        words = (f"the run folder takes about {needed.value / GIGA:,.0f} GB, "
                 f"{machine.disk / GIGA:,.0f} GB are free")  # fmt: skip
        found.append(Misfit("total", "disk", needed.value, machine.disk, words,
                            "--out on a larger disk; train.keep_checkpoints: 1"))  # fmt: skip
    return found


def _elsewhere(stage: str) -> str:
    if stage == "train":
        return "a machine with as many, or train.lora; `cuvee train --print-command` for nodes"
    return "a machine with as many, or a url: of a server that runs elsewhere"


def _notes(case: Case) -> tuple[str, ...]:
    notes = list(case.measured.notes)
    unknown = [name for name in case.recipe.domains if problems_of(case, name) is None]
    if unknown:
        wishes = " ".join(f"--assume problems.{name}=N" for name in unknown)
        notes.append(f"totals are unknown until the problems are loaded, or give {wishes}")
    if case.base.shape is None:
        notes.append(f"the base's memory is unknown: {case.base.why}")
    unread = [key for key, e in case.engines.items() if e.shape is None and key != EVALUATE]
    if unread:
        notes.append(f"memory unknown: the GGUF file of {', '.join(unread)} cannot be read")
    if case.recipe.answers:
        notes.append("what `answers:` holds costs nothing; it is not subtracted here")
    unpriced = sorted(t.name for t in case.recipe.teachers if not is_priced(t))
    if unpriced:
        notes.append(f"dollars unknown: no usd_per_mtok of {', '.join(unpriced)}")
    return tuple(notes)


def run_folder(recipe: Recipe, place: Path, out: Path | None) -> Path:
    """Return where a recipe's run is, or would be: as `cuvee run` decides."""
    if out is not None:
        return out
    return place if place.is_dir() else Path("runs") / recipe.name
