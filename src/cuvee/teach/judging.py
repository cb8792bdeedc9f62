"""Teachers that judge: a recipe's `judge: NAME` as what the stage `verify` asks.

In: the recipe's domains. Out: a `Judge` for each that has one; its requests go through the
ledger like any other. Nothing is opened before the first question. Not here: what is asked
and how a decision is read (`cuvee.verify.judge`).
"""

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from cuvee.recipe import Teacher
from cuvee.records import Trace
from cuvee.runfolder import Run
from cuvee.teach.client import Request, ask, request_seed
from cuvee.teach.ledger import Ledger
from cuvee.teach.stage import INDIFFERENT, one_at_a_time
from cuvee.verify.judge import Judge, Question


def judges(run: Run, resources: ExitStack) -> Mapping[str, Judge]:
    """Return the judge of each domain that has one; `resources` closes what they open.

    Their `ask` raises what asking a teacher raises (`cuvee.teach.client.ask`).
    """
    ledger = functools.cache(lambda: resources.enter_context(Ledger.open(run.recipe.ledger)))
    teachers = {teacher.name: teacher for teacher in run.recipe.teachers}

    opened = one_at_a_time(run, resources)

    def asker(teacher: Teacher, domain: str) -> Judge:
        def ask_judge(questions: Sequence[Question]) -> list[Trace]:
            requests = [request_of(question, seed=run.recipe.seed) for question in questions]
            traces, _ = ask(
                opened(teacher),
                requests,
                sampling=teacher.sampling,
                ledger=ledger(),
                label=f"judge {domain}",
            )
            return traces

        settings = {
            "teacher": teacher.model_dump(mode="json", exclude=dict(INDIFFERENT)),
            "seed": run.recipe.seed,
        }
        return Judge(teacher.name, settings, ask_judge)

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
