"""Teachers that refine: a recipe's `refine: {teacher: NAME}` as what the task asks.

In: examples with the question of each. Out: an `Attempt` a example, and the refiner's own
traces; its requests go through the ledger and the budget like any other. Nothing is opened
before the first question, and nothing is started where the ledger has every answer. Not
here: whether what came back may stand in for the original (`cuvee.select.refine.attempts`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from cuvee.progress import metered
from cuvee.recipe import Teacher
from cuvee.records import Example, Trace
from cuvee.runfolder import Run
from cuvee.select.objection import Objection
from cuvee.select.refine.asked import PROMPT, message, read_refined
from cuvee.select.refine.attempts import Attempt
from cuvee.teach.client import Books, Request, Usage, ask, request_seed
from cuvee.teach.endpoints import find_teacher
from cuvee.teach.ledger import Ledger
from cuvee.teach.reach import one_at_a_time, reach
from cuvee.teach.stage import asking_settings


@dataclasses.dataclass(frozen=True)
class Refiner:
    """A teacher that restructures reasoning."""

    name: str
    settings: Mapping[str, Any]
    """What its answers depend on, as JSON values: part of the task's settings."""
    ask: Callable[[Sequence[tuple[Example, str]]], tuple[list[Trace], Usage]]
    """Of examples with their questions: one trace each, in order, and what that took."""


def refiners(run: Run, resources: ExitStack) -> Mapping[str, Refiner]:
    """Return the refiner of each domain that has one; `resources` closes what they open.

    Their `ask` raises what finding and asking a teacher raise (`find_teacher`,
    `cuvee.teach.client.ask`).
    """
    opened = one_at_a_time(resources)
    ledger = functools.cache(lambda: resources.enter_context(Ledger.open(run.recipe.ledger)))
    teachers = {teacher.name: teacher for teacher in run.recipe.teachers}
    found = functools.cache(lambda name: find_teacher(teachers[name], run=run))

    def asker(teacher: Teacher, domain: str) -> Refiner:
        def ask_refiner(asked: Sequence[tuple[Example, str]]) -> tuple[list[Trace], Usage]:
            books = Books(ledger(), run.account(), run.recipe.budget)
            requests = [request_of(e, question, seed=run.recipe.seed) for e, question in asked]
            endpoint = reach(
                found(teacher.name),
                requests,
                sampling=teacher.sampling,
                ledger=books.ledger,
                opened=opened,
            )
            with metered(f"refine {domain}", total=len(requests)) as meter:
                answers = ask(
                    endpoint,
                    requests,
                    sampling=teacher.sampling,
                    books=books,
                    meter=meter,
                    stop=run.stop,
                )
                return list(answers), answers.usage()

        settings = {**asking_settings(run, teacher), "prompt": PROMPT}
        return Refiner(teacher.name, settings, ask_refiner)

    return {
        name: asker(teachers[domain.refine.teacher], name)
        for name, domain in run.recipe.domains.items()
        if domain.refine is not None and domain.refine.teacher is not None
    }


def request_of(example: Example, question: str, *, seed: int) -> Request:
    """Return the request about an example; its sampling seed depends on the message alone."""
    prompt = message(question, example.reasoning, example.answer)
    return Request(
        problem_id=example.id,
        domain=example.domain,
        sample=0,
        prompt=prompt,
        seed=request_seed(seed, prompt, 0),
    )


def attempt_of(example: Example, reply: Trace) -> Attempt:
    """Return what a refiner's reply makes of an example; the answer stays as it is.

    Objects with `request_failed`, `truncated` or `unreadable` (no reasoning between the
    marks).
    """
    refined = read_refined(reply.answer)
    fault = None
    if reply.error is not None:
        fault = Objection("request_failed", reply.error)
    elif reply.finish_reason == "length":
        fault = Objection("truncated", f"cut after {reply.completion_tokens} tokens")
    elif refined is None:
        fault = Objection("unreadable", "nothing between <refined> and </refined>")
    return Attempt(
        example, refined or example.reasoning, example.answer, trace=reply.id, objection=fault
    )
