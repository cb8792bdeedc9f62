"""What came of the rounds so far, problem by problem, and what a problem will cost in the next.

In: traces, verdicts and filters of a round; out: an `Attempt` a trace. In: the attempts of all
rounds; out: `Tried` a problem and a `Price`. A trace is fit where `cuvee.select.sift` makes a
candidate of it, so that a right answer that is too long, or in the wrong language, is asked for
again. Not here: files (`cuvee.rounds.stage`) and decisions (`cuvee.rounds.decide`).
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from cuvee.records import Trace
from cuvee.rounds.decide import Price, Tried
from cuvee.rounds.record import Attempt
from cuvee.select.choose import Candidate
from cuvee.select.difficulty import is_checked
from cuvee.select.sift import Judged, Sifted
from cuvee.teach.exchange import BUSY, GATEWAY
from cuvee.teach.reply import is_too_long

STATUS = re.compile(r"HTTP (\d{3}): ")
"""How the error of a trace begins where the server answered with one."""
NO_FIT = "(prompt and max_tokens must fit into the model's context)"
"""How it ends where the server said so, with whatever status."""


def attempts(
    traces: Iterable[Trace],
    said: Judged,
    sifted: Iterable[Sifted],
    judging: Mapping[str, float] | None,
    *,
    priced: frozenset[str],
) -> Iterator[Attempt]:
    """Yield what came of each trace.

    `judging`: what deciding on it cost, by trace id; of a judge with a price, who was not asked
    of every trace, perhaps of none. None without one, or where his cost is not known. `priced`:
    teachers with a price of their own.
    """
    texts = {row.id: row.text for row in sifted if isinstance(row, Candidate)}
    for trace in traces:
        verdict = said.verdicts[trace.id]
        failed = verdict.reason == "request_failed"
        yield Attempt(
            trace_id=trace.id,
            problem_id=trace.problem_id,
            teacher=trace.model,
            answered=not failed,
            checked=is_checked(verdict),
            right=verdict.verdict == "correct",
            text=texts.get(trace.id),
            usd=_cost(trace, judging, priced),
            tokens=None
            if trace.completion_tokens is None
            else trace.completion_tokens + (trace.prompt_tokens or 0),
            refused=failed and is_refusal(trace.error or ""),
        )


def _cost(
    trace: Trace, judging: Mapping[str, float] | None, priced: frozenset[str]
) -> float | None:
    """Return what a trace and its judge's decision cost; None where nothing of that is known."""
    judge = None if judging is None else judging.get(trace.id, 0.0)
    if judge is None:
        return trace.usd
    if trace.usd is None and trace.model in priced and not judge:
        return None  # that no judge was asked does not make it free
    return judge + (trace.usd or 0.0)


def is_refusal(error: str) -> bool:
    """Return whether a trace's error says that the server will never answer the request.

    Traces keep only the words of `cuvee.teach.exchange`; its `Fate` is read back from them.
    """
    found = STATUS.match(error)
    if found is None:
        return is_too_long(error) and not error.startswith("given up")
    status = int(found[1])
    passing = status in BUSY | GATEWAY or status >= 500
    return not passing or error.endswith(NO_FIT)


def tried(
    problems: Iterable[str], found: Iterable[Attempt], *, askable: frozenset[str]
) -> list[Tried]:
    """Return what came of each problem (by id), those nobody answered included.

    `askable`: teachers that can be asked again; only their answers tell what more would bring.
    """
    answers = dict.fromkeys(problems, 0)
    refused: dict[str, bool] = {}
    own: dict[str, set[str]] = {}
    all_of: dict[str, set[str]] = {}
    for attempt in found:
        if attempt.teacher in askable:
            problem = attempt.problem_id
            answers[problem] += attempt.answered
            refused[problem] = refused.get(problem, True) and attempt.refused
        if attempt.text is None:
            continue
        all_of.setdefault(attempt.problem_id, set()).add(attempt.text)
        if attempt.teacher in askable:
            own.setdefault(attempt.problem_id, set()).add(attempt.text)
    return [
        Tried(
            problem,
            count,
            len(own.get(problem, ())),
            len(all_of.get(problem, ())),
            refused.get(problem, False),
        )
        for problem, count in answers.items()
    ]


@dataclasses.dataclass
class _Spent:
    """What some requests took."""

    requests: int = 0
    priced: int = 0
    usd: float = 0.0
    counted: int = 0
    tokens: int = 0

    def add(self, attempt: Attempt) -> None:
        self.requests += 1
        if attempt.usd is not None:
            self.priced += 1
            self.usd += attempt.usd
        if attempt.tokens is not None:
            self.counted += 1
            self.tokens += attempt.tokens


def price(
    found: Callable[[], Iterable[Attempt]],
    *,
    waiting: frozenset[str],
    samples: Mapping[str, int],
    priced: frozenset[str],
) -> Price:
    """Return what one problem takes in the next round.

    A request of a teacher costs the mean of those it had about `waiting` problems, which as a
    rule are longer than others; of all, where none of these is known. `samples`: requests of
    each teacher that can be asked. `priced`: those whose requests have a price, their own or
    their judge's; where the cost of one of them is not known, that of the problem is not.
    """
    about, everything = _by_teacher(a for a in found() if a.problem_id in waiting), None
    usd: float | None = 0.0 if priced & samples.keys() else None
    tokens: float | None = 0.0
    for teacher, count in samples.items():
        spent = about.get(teacher, _Spent())
        if not spent.counted or (teacher in priced and not spent.priced):
            everything = _by_teacher(found()) if everything is None else everything
            spent = everything.get(teacher, _Spent())
        if teacher in priced and usd is not None:
            usd = usd + count * spent.usd / spent.priced if spent.priced else None
        if tokens is not None:
            tokens = tokens + count * spent.tokens / spent.counted if spent.counted else None
    return Price(sum(samples.values()), usd, tokens)


def _by_teacher(found: Iterable[Attempt]) -> dict[str, _Spent]:
    spent: dict[str, _Spent] = {}
    for attempt in found:
        spent.setdefault(attempt.teacher, _Spent()).add(attempt)
    return spent
