"""Majority votes: an answer for problems that have no gold, from what their traces state.

Verdicts in, verdicts out: where enough of a problem's traces state the same answer, those are
`correct` (`voted`) and the others `wrong` (`outvoted`); where not, the reason of `not_checked`
says why. Answers are compared as the verifiers compare them with a gold (1/2 and 0.5 are one
answer), never as text. Not here: what a trace states (`cuvee.verify.check`).
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from cuvee.recipe import Verify
from cuvee.records import Verdict
from cuvee.select.objection import Objection
from cuvee.verify.choice import check_choice
from cuvee.verify.math.compare import check_math

Outcome = Literal["voted", "too_few_votes", "tied_vote", "no_agreement"]

CHECKER = "vote"


@dataclasses.dataclass(frozen=True)
class Vote:
    """How the traces of one problem without gold voted."""

    problem_id: str
    outcome: Outcome
    answer: str
    """The leading answer, as most of those who stated it wrote it; empty where nobody did."""
    agree: int
    """Traces that state it."""
    stated: int
    """Traces that state any answer."""
    traces: int
    """Traces that were answered at all; a truncated one that states nothing counts too."""
    answers: Mapping[str, int]
    """Every answer as it was written -> how many traces state it."""
    equal: tuple[str, ...]
    """Those of them that equal the leading one, itself included."""

    @property
    def share(self) -> float:
        """Return the share in [0, 1] of all answered traces that state the leading answer."""
        return self.agree / self.traces if self.traces else 0.0


def hold_votes(
    verdicts: Sequence[Verdict],
    *,
    verifier: str,
    agreement: float,
    votes: int,
    limits: Verify,
) -> list[Vote]:
    """Return a vote for each problem with a verdict `not_checked` (`no_gold`), in their order.

    An answer wins that at least `votes` traces take part in and a share `agreement` (in
    (0.5, 1]) of all answered ones states. Failed requests have no part. `verifier` is `math`
    or `choice`. Does not depend on the order of the verdicts within a problem. Raises
    VerifierError where math-verify is needed and cannot be started.
    """
    without_gold = dict.fromkeys(v.problem_id for v in verdicts if v.reason == "no_gold")
    traces: dict[str, list[Verdict]] = {problem: [] for problem in without_gold}
    for verdict in verdicts:
        if verdict.problem_id in traces and verdict.reason != "request_failed":
            traces[verdict.problem_id].append(verdict)
    stated = {
        problem: Counter(v.extracted for v in rows if v.extracted is not None)
        for problem, rows in traces.items()
    }
    equal = _equal_pairs(stated.values(), verifier=verifier, limits=limits)
    return [
        _vote(
            problem, answers, equal, traces=len(traces[problem]), agreement=agreement, votes=votes
        )
        for problem, answers in stated.items()
    ]


def _equal_pairs(
    ballots: Iterable[Mapping[str, int]], *, verifier: str, limits: Verify
) -> set[tuple[str, str]]:
    """Return the (gold, answer) pairs of different texts that the verifier calls equal."""
    pairs = [
        (gold, answer)
        for answers in ballots
        for gold in sorted(answers)
        for answer in sorted(answers)
        if gold != answer
    ]
    if verifier == "choice":
        judgements = [check_choice(gold, answer) for gold, answer in pairs]
    else:
        judgements = check_math(pairs, limits=limits, tick=lambda _: None)
    found = zip(pairs, judgements, strict=True)
    return {pair for pair, judgement in found if judgement.verdict == "correct"}


def _vote(
    problem: str,
    answers: Mapping[str, int],
    equal: set[tuple[str, str]],
    *,
    traces: int,
    agreement: float,
    votes: int,
) -> Vote:
    """Count: each answer in turn is the gold, and gets the votes of all that equal it."""
    # Not closed over equality: a chain of roundings (0.3, 0.33, 1/3) must not make one answer.
    for_answer = {
        gold: tuple(a for a in sorted(answers) if a == gold or (gold, a) in equal)
        for gold in answers
    }
    count = {gold: sum(answers[a] for a in same) for gold, same in for_answer.items()}
    order = sorted(answers, key=lambda a: (-count[a], -answers[a], len(a), a))
    leader = order[0] if order else ""
    same = for_answer.get(leader, ())
    agree, stated = count.get(leader, 0), sum(answers.values())
    outcome: Outcome = "voted"
    if stated < votes:
        outcome = "too_few_votes"
    elif any(count[a] == agree for a in answers if a not in same):
        outcome = "tied_vote"
    elif agree / traces < agreement:
        outcome = "no_agreement"
    return Vote(
        problem_id=problem,
        outcome=outcome,
        answer=leader,
        agree=agree,
        stated=stated,
        traces=traces,
        answers=dict(sorted(answers.items())),
        equal=same,
    )


def judge_by_votes(verdicts: Sequence[Verdict], votes: Sequence[Vote]) -> list[Verdict]:
    """Return the verdicts, in order, with those that had no gold judged by the votes.

    `expected` is the voted answer; `detail` says how the vote went. All others are as before.
    """
    by_problem = {vote.problem_id: vote for vote in votes}
    return [_judged(v, by_problem[v.problem_id]) if v.reason == "no_gold" else v for v in verdicts]


def _judged(verdict: Verdict, vote: Vote) -> Verdict:
    went = f"{vote.agree} of {vote.traces} traces ({vote.share:.2f}) state {vote.answer[:80]!r}"
    if vote.outcome != "voted":
        return dataclasses.replace(verdict, reason=vote.outcome, detail=went, checker=CHECKER)
    agrees = verdict.extracted in vote.equal
    return dataclasses.replace(
        verdict,
        verdict="correct" if agrees else "wrong",
        reason="voted" if agrees else "outvoted",
        expected=vote.answer,
        detail=went,
        checker=CHECKER,
    )


def unvoted(verdict: Verdict) -> Objection | None:
    """Object to a trace whose problem's vote failed, or went to another answer.

    `too_few_votes`, `tied_vote`, `no_agreement`, `outvoted`.
    """
    if verdict.checker != CHECKER or verdict.reason == "voted":
        return None
    return Objection(verdict.reason, verdict.detail)
