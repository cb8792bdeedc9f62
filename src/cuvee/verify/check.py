r"""Traces and problems in, one `Verdict` row each out, in order.

What was stated is taken from the answer, compared by the problem's verifier, and judged;
what our side could not check is `not_checked`, never `wrong`. No content of a row raises.
Not here: how answers are compared (`cuvee.verify.math`, `cuvee.verify.code`).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from cuvee.progress import bar
from cuvee.recipe import Verify
from cuvee.records import Problem, Trace, Verdict
from cuvee.verify.answers import code_block, final_answer, split_reasoning
from cuvee.verify.code import check_code
from cuvee.verify.judgement import Judgement
from cuvee.verify.math import check_math

NO_CHECKER = "-"
"""The checker of a row that nothing was run for."""


def check_traces(
    traces: Sequence[Trace],
    problems: Mapping[str, Problem],
    *,
    limits: Verify,
    sandbox: str,
    label: str,
) -> list[Verdict]:
    """Check each trace against its problem (by id); return verdicts in the same order.

    Checks `limits.processes` answers at once (None: one a core). `sandbox` is `bubblewrap`
    or `none`. Raises RecipeError where there is code to run and no sandbox to run it in,
    VerifierError where math-verify cannot be started at all.
    """
    judgements: list[Judgement | None] = []
    math: dict[int, tuple[str, str]] = {}
    code: dict[int, tuple[str, str]] = {}
    for index, trace in enumerate(traces):
        problem = problems.get(trace.problem_id)
        stated = _stated(trace, problem)
        judgement = _without_checking(trace, problem, stated)
        judgements.append(judgement)
        if judgement is None and problem is not None and stated is not None:
            if problem.verifier == "math" and problem.gold is not None:
                math[index] = (problem.gold, stated)
            elif problem.tests is not None:
                code[index] = (stated, problem.tests)
    with bar(label, total=len(traces), unit="answers") as tick:
        tick(len(traces) - len(math) - len(code))
        compared = check_math(list(math.values()), limits=limits, tick=tick)
        tested = check_code(list(code.values()), limits=limits, sandbox_kind=sandbox, tick=tick)
    for index, checked in zip([*math, *code], [*compared, *tested], strict=True):
        judgements[index] = checked
    return [_verdict(t, j) for t, j in zip(traces, judgements, strict=True) if j is not None]


def _stated(trace: Trace, problem: Problem | None) -> str | None:
    """Return what the answer states, in the form the problem's verifier checks."""
    if problem is not None and problem.verifier == "math":
        return final_answer(trace.answer)
    if problem is not None and problem.verifier == "code":
        return code_block(trace.answer)
    return trace.answer.strip() or None


def _without_checking(
    trace: Trace, problem: Problem | None, stated: str | None
) -> Judgement | None:
    """Judge what needs no checker, or cannot have one; None for what is to be checked."""
    if trace.finish_reason == "error" or trace.error is not None:
        return Judgement("no_answer", "request_failed", NO_CHECKER, detail=trace.error)
    if problem is None:
        detail = f"no problem {trace.problem_id}"
        return Judgement("not_checked", "no_problem", NO_CHECKER, detail=detail)
    if stated is None:
        missing = "no_code_block" if problem.verifier == "code" else "no_final_answer"
        reason = "truncated" if trace.finish_reason == "length" else missing
        return Judgement("no_answer", reason, NO_CHECKER)
    if problem.verifier == "math":
        lacks = "no_gold" if problem.gold is None else None
    elif problem.verifier == "code":
        lacks = "no_tests" if problem.tests is None else None
    else:
        lacks = "no_verifier"
    return Judgement("not_checked", lacks, NO_CHECKER, extracted=stated) if lacks else None


def _verdict(trace: Trace, judgement: Judgement) -> Verdict:
    return Verdict(
        trace_id=trace.id,
        problem_id=trace.problem_id,
        domain=trace.domain,
        **dataclasses.asdict(judgement),
    )


def check_golds(
    problems: Sequence[Problem], *, limits: Verify, sandbox: str, label: str
) -> list[Verdict]:
    """Check each problem's gold as if a model had answered it; return verdicts in order.

    The gold is dressed as a reply, so that its way through extraction is tested too. The
    trace id is `gold:` and the problem's id. A gold that is not `correct` says that the
    problem cannot be checked; `not_checked` where it has no gold (`no_gold`), no tests or
    no verifier. Raises as `check_traces` does.
    """
    verdicts = {
        p.id: _verdict(_dress(p), Judgement("not_checked", lacks, NO_CHECKER))
        for p in problems
        if (lacks := _gold_lacks(p)) is not None
    }
    traces = [_dress(p) for p in problems if p.id not in verdicts]
    by_id = {p.id: p for p in problems}
    checked = check_traces(traces, by_id, limits=limits, sandbox=sandbox, label=label)
    verdicts.update((v.problem_id, v) for v in checked)
    return [verdicts[p.id] for p in problems]


def _gold_lacks(problem: Problem) -> str | None:
    if problem.verifier not in ("math", "code"):
        return "no_verifier"
    if problem.gold is None:
        return "no_gold"
    return "no_tests" if problem.verifier == "code" and problem.tests is None else None


def _dress(problem: Problem) -> Trace:
    """Return the gold as a trace: reasoning, then the answer as a model would state it."""
    gold = problem.gold or ""
    if problem.verifier == "code":
        longest = max((len(run) for run in re.findall(r"`+", gold)), default=0)
        fence = "`" * max(3, longest + 1)
        stated = f"{fence}python\n{gold}\n{fence}"
    else:
        stated = f"The answer is \\boxed{{{gold}}}"
    reasoning, answer = split_reasoning(f"<think>\n...\n</think>\n\n{stated}")
    return Trace(
        id=f"gold:{problem.id}",
        problem_id=problem.id,
        domain=problem.domain,
        model="gold",
        sample=0,
        reasoning=reasoning,
        answer=answer,
        finish_reason="stop",
        prompt_tokens=None,
        completion_tokens=None,
        seconds=0.0,
        request="",
        fingerprint=None,
        error=None,
    )
