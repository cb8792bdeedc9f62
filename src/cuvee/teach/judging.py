"""Teachers that judge: a recipe's `judge: NAME` as what the stage `verify` asks.

In: the recipe's domains. Out: a `Judge` for each that has one; its requests go through the
ledger and the budget like any other. Nothing is opened before the first question, and
nothing is started where the ledger has every answer. Not here: what is asked and how a
decision is read (`cuvee.verify.judge`), grading by a rubric (`cuvee.teach.grading`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from cuvee.progress import metered
from cuvee.recipe import Teacher
from cuvee.records import Trace
from cuvee.runfolder import Run
from cuvee.teach.answers import Answers
from cuvee.teach.client import Books, Request, Requests, ask, request_seed
from cuvee.teach.endpoints import find_teacher
from cuvee.teach.ledger import Ledger
from cuvee.teach.reach import one_at_a_time, reach
from cuvee.teach.stage import asking_settings
from cuvee.verify.judge import Judge, Question

Asking = Callable[[Teacher, Requests, str], Answers]
"""Asks a teacher, under a label for people."""


def asking(run: Run, resources: ExitStack) -> Asking:
    """Return what asks any teacher of the recipe; `resources` closes what it opens.

    Of the teachers that cuvee starts one runs at a time. It raises what finding and asking a
    teacher raise (`find_teacher`, `cuvee.teach.client.ask`).
    """
    opened = one_at_a_time(resources)
    ledger = functools.cache(lambda: resources.enter_context(Ledger.open(run.recipe.ledger)))
    teachers = {teacher.name: teacher for teacher in run.recipe.teachers}
    found = functools.cache(lambda name: find_teacher(teachers[name], run=run))

    def ask_teacher(teacher: Teacher, requests: Requests, label: str) -> Answers:
        books = Books(ledger(), run.account(), run.recipe.budget)
        endpoint = reach(
            found(teacher.name),
            requests,
            sampling=teacher.sampling,
            ledger=books.ledger,
            opened=opened,
        )
        with metered(label, total=len(requests)) as meter:
            return ask(
                endpoint,
                requests,
                sampling=teacher.sampling,
                books=books,
                meter=meter,
                stop=run.stop,
            )

    return ask_teacher


def judges(run: Run, ask_teacher: Asking) -> Mapping[str, Judge]:
    """Return the judge of each domain that has one; their `ask` raises what `asking` says."""
    teachers = {teacher.name: teacher for teacher in run.recipe.teachers}

    def asker(teacher: Teacher, domain: str) -> Judge:
        def ask_judge(questions: Sequence[Question]) -> list[Trace]:
            requests = [request_of(question, seed=run.recipe.seed) for question in questions]
            return list(ask_teacher(teacher, requests, f"judge {domain}"))

        return Judge(teacher.name, asking_settings(run, teacher), ask_judge)

    return {
        name: asker(teachers[domain.judge], name)
        for name, domain in run.recipe.domains.items()
        if domain.judge is not None
    }


def request_of(question: Question, *, seed: int) -> Request:
    """Return the request of a question; its sampling seed depends on the message alone."""
    return Request(
        problem_id=question.trace_id,
        domain=question.domain,
        sample=0,
        prompt=question.prompt,
        seed=request_seed(seed, question.prompt, 0),
    )
