"""Rows of what teachers are asked about answers: judge, rubric, refine.

How many answers there are, which of them are asked about and how long they are, in; requests,
tokens, dollars and hours out. What a pilot's judge, grader or refiner took counts instead of
the assumptions. Not here: what is asked about problems (`cuvee.plan.asking`).
"""

import dataclasses
from collections.abc import Mapping

from cuvee.plan.asking import (
    HOUR,
    gpus_of,
    hours_of,
    is_on_nodes,
    kind_of,
    rounds_asked,
    seconds_of,
    start_of,
    unknown,
)
from cuvee.plan.case import (
    Case,
    answers_a_problem,
    mean_answer_tokens,
    problems_of,
    prompt_tokens,
    teacher_of,
    whole,
)
from cuvee.plan.engines import key_of, memory
from cuvee.plan.figures import Figure, known, mean_of
from cuvee.plan.measured import About, Answers, in_flight
from cuvee.plan.prices import usd_of
from cuvee.plan.rows import Row
from cuvee.plan.yields import (
    all_answers_a_problem,
    chosen_tokens,
    examples_of,
    right_answers,
    rounds_of,
)
from cuvee.recipe import Teacher
from cuvee.select.refine import asked as refining
from cuvee.verify import judge, judge_rubric

CHARACTERS_A_TOKEN = 4
"""Of the words around what is asked about, which are English."""
LENGTHS: Mapping[About, str] = {
    "judge": "judge_tokens", "rubric": "grade_tokens", "refine": "refine_share",
}  # fmt: skip
"""The assumption that decides how long an answer is."""


@dataclasses.dataclass(frozen=True)
class Asking:
    """What one teacher is asked about a domain's answers, as far as nobody has measured it."""

    kind: About
    domain: str
    teacher: Teacher
    requests: Figure
    prompt: Figure
    answer: Figure
    """Tokens of one."""


def judge_rows(case: Case) -> list[Row]:
    """Return a row for each round and domain that a judge decides; its hours are verify's."""
    rows = []
    for domain, section in case.recipe.domains.items():
        if section.judge is None:
            continue
        problems, teacher = problems_of(case, domain), teacher_of(case, section.judge)
        for asked in rounds_asked(case, domain):
            name = f"{asked.folder}{domain}"
            if problems is None:
                rows.append(unknown("verify", name, "problems unknown until loaded"))
                continue
            answers = asked.share.scaled(answers_a_problem(case, domain, in_round=asked.in_round))
            asking = Asking(
                "judge", domain, teacher,
                requests=problems * answers * _judged(case, domain),
                prompt=_words(judge.PROMPT) + prompt_tokens(case, domain)
                + case.assumptions.figure("stated_tokens", domain),
                answer=case.assumptions.figure("judge_tokens", domain),
            )  # fmt: skip
            rows.append(_row(case, asking, "verify", name))
    return rows


def rubric_rows(case: Case) -> list[Row]:
    """Return a row for each domain whose right answers are graded."""
    rows = []
    for domain, section in case.recipe.domains.items():
        if section.rubric is None:
            continue
        problems, name = problems_of(case, domain), f"rubric/{domain}"
        if problems is None:
            rows.append(unknown("verify", name, "problems unknown until loaded"))
            continue
        words = _words(judge_rubric.PROMPT + "".join(section.rubric.points))
        asking = Asking(
            "rubric", domain, teacher_of(case, section.rubric.teacher),
            requests=(problems * _graded(case, domain)).scaled(section.rubric.samples),
            prompt=words + prompt_tokens(case, domain) + mean_answer_tokens(case, domain),
            answer=case.assumptions.figure("grade_tokens", domain),
        )  # fmt: skip
        rows.append(_row(case, asking, "verify", name))
    return rows


def refine_rows(case: Case) -> list[Row]:
    """Return a row for each domain whose chosen traces are refined: one request an example.

    Rules ask nobody; they take no time to speak of beside the verifier, which is counted.
    """
    rows = []
    for domain, section in case.recipe.domains.items():
        refine, name = section.refine, f"refine/{domain}"
        if refine is None:
            continue
        examples, task = examples_of(case, domain), f"select/{name}"
        done = case.measured.is_done(task, case.recipe.limit)
        if refine.teacher is None:
            rows.append(
                Row("select", name, tasks=(task,), done=done, note="rules; nobody is asked")
            )
            continue
        if examples is None:
            rows.append(unknown("select", name, "problems unknown until loaded"))
            continue
        shown = chosen_tokens(case, domain)
        asking = Asking(
            "refine", domain, teacher_of(case, refine.teacher),
            requests=examples,
            prompt=_words(refining.PROMPT) + prompt_tokens(case, domain) + shown,
            answer=shown * case.assumptions.figure("refine_share", domain),
        )  # fmt: skip
        rows.append(_row(case, asking, "select", name))
    return rows


def _words(text: str) -> Figure:
    """Return the tokens of a message's own words."""
    return known(len(text) / CHARACTERS_A_TOKEN)


def _seen(case: Case, kind: About, domain: str) -> Answers | None:
    return case.measured.about.get((kind, domain))


def _judged(case: Case, domain: str) -> Figure:
    """Return the share of the answers that a judge is asked about."""
    seen, pilot = _seen(case, "judge", domain), case.measured.selected.get(domain)
    given = case.assumptions.wish("judged_rate", domain) is not None
    if seen is None or not seen.each or pilot is None or not pilot.answers or given:
        return case.assumptions.figure("judged_rate", domain)
    found = mean_of(seen.each, of=whole(case, domain, len(seen.each)))
    return found.scaled(len(seen.each) / pilot.answers).at_most(1.0)


def _graded(case: Case, domain: str) -> Figure:
    """Return how many answers to a problem are graded: those that are right, or unchecked.

    Measured: the share of the pilot's answers that were, of as many as are planned. Not where
    only one of the two has further rounds: those ask what was not solved, so their share is less.
    """
    seen, pilot = _seen(case, "rubric", domain), case.measured.selected.get(domain)
    rubric, given = case.recipe.domains[domain].rubric, case.assumptions.wish("pass_rate", domain)
    if seen is None or not seen.each or rubric is None or pilot is None or given is not None:
        return right_answers(case, domain)
    again = pilot.all_answers > pilot.answers
    if not pilot.all_answers or again != bool(rounds_of(case, domain)):
        return right_answers(case, domain)
    found = mean_of(seen.each, of=whole(case, domain, len(seen.each)))
    share = found.scaled(len(seen.each) / (pilot.all_answers * rubric.samples))
    return share * all_answers_a_problem(case, domain)


def _row(case: Case, asking: Asking, stage: str, name: str) -> Row:
    teacher, requests = asking.teacher, asking.requests
    seen = _seen(case, asking.kind, asking.domain)
    prompt, answer, of = asking.prompt, asking.answer, max(requests.value, 1)
    if seen is not None and seen.prompt:
        prompt = mean_of(seen.prompt, of=of)
    given = case.assumptions.wish(LENGTHS[asking.kind], asking.domain) is not None
    if seen is not None and seen.completion and not given:
        answer = mean_of(seen.completion, of=of)
    each = seconds_of(case, seen, answer, teacher.name, kind_of(teacher), requests)
    around = known(seen.around) if seen else start_of(case, teacher.serve)
    prompts, answers, task = requests * prompt, requests * answer, f"{stage}/{name}"
    return Row(
        stage, name, requests=requests, prompt_tokens=prompts, answer_tokens=answers,
        usd=usd_of(teacher, prompts, answers), gpus=gpus_of(teacher.serve),
        on_nodes=is_on_nodes(teacher.serve),
        hours=hours_of(requests * each, in_flight(teacher)) + around.scaled(1 / HOUR),
        disk=answers * case.assumptions.figure("bytes_per_token"),
        memory=memory(case.engines, key_of(teacher.name)),
        tasks=(task,), done=case.measured.is_done(task, case.recipe.limit),
        note=f"{asking.kind}: {teacher.name}",
    )  # fmt: skip
