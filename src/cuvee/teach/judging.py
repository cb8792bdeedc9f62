"""Teachers that judge: a recipe's `judge: NAME` as what the stage `verify` asks.

In: the recipe's domains. Out: a `Judge` for each that has one; its requests go through the
ledger and the budget like any other. Nothing is opened before the first question, and
nothing is started where the ledger has every answer. Not here: what is asked and how a
decision is read (`cuvee.verify.judge`).
"""

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from cuvee.progress import metered
from cuvee.recipe import Teacher
from cuvee.records import Trace
from cuvee.runfolder import Run
from cuvee.teach.client import Books, Request, ask, request_seed
from cuvee.teach.endpoints import find_teacher
from cuvee.teach.ledger import Ledger
from cuvee.teach.reach import one_at_a_time, reach
from cuvee.teach.stage import asking_settings
from cuvee.verify.judge import Judge, Question


def judges(run: Run, resources: ExitStack) -> Mapping[str, Judge]:
    """Return the judge of each domain that has one; `resources` closes what they open.

    Their `ask` raises what finding and asking a teacher raise (`find_teacher`,
    `cuvee.teach.client.ask`).
    """
    opened = one_at_a_time(resources)
    ledger = functools.cache(lambda: resources.enter_context(Ledger.open(run.recipe.ledger)))
    teachers = {teacher.name: teacher for teacher in run.recipe.teachers}
    found = functools.cache(lambda name: find_teacher(teachers[name], run=run))

    def asker(teacher: Teacher, domain: str) -> Judge:
        def ask_judge(questions: Sequence[Question]) -> list[Trace]:
            books = Books(ledger(), run.account(), run.recipe.budget)
            requests = [request_of(question, seed=run.recipe.seed) for question in questions]
            endpoint = reach(
                found(teacher.name),
                requests,
                sampling=teacher.sampling,
                ledger=books.ledger,
                opened=opened,
            )
            with metered(f"judge {domain}", total=len(requests)) as meter:
                return list(
                    ask(
                        endpoint,
                        requests,
                        sampling=teacher.sampling,
                        books=books,
                        meter=meter,
                        stop=run.stop,
                    )
                )

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
