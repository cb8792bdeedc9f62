"""The stage `verify`: the traces of all teachers of a domain in, the domain's verdicts out.

One task a domain, `verify/<domain>`; its counts are by verdict and by reason. Not here:
what a verdict means (`cuvee.verify.check`).
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.records import Problem, Trace, Verdict, read_rows, write_rows
from cuvee.runfolder import Run, Task
from cuvee.verify.check import check_traces


def tasks(run: Run, resources: contextlib.ExitStack) -> list[Task]:
    """Return the tasks of the stage; `resources` is not needed."""
    return [_task(run, domain) for domain in run.recipe.domains]


def _task(run: Run, domain: str) -> Task:
    recipe = run.recipe
    traces = [run.traces(domain, teacher.name) for teacher in recipe.teachers_of(domain)]

    def work() -> Mapping[str, Any]:
        problems = {p.id: p for p in read_rows(run.problems(domain), Problem)}
        rows = [trace for path in traces for trace in read_rows(path, Trace)]
        verdicts = check_traces(
            rows,
            problems,
            limits=recipe.verify,
            sandbox=recipe.sandbox,
            label=f"verify {domain}",
        )
        write_rows(run.verdicts(domain), verdicts, Verdict)
        return count(verdicts)

    return Task(
        stage="verify",
        name=domain,
        inputs=(run.problems(domain), *traces),
        outputs=(run.verdicts(domain),),
        settings={
            "verifier": recipe.domains[domain].verifier,
            "sandbox": recipe.sandbox,
            "limits": recipe.verify.model_dump(mode="json", exclude={"processes"}),
        },
        work=work,
    )


def count(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return how many verdicts there are: in all, of each kind, and for each reason."""
    kinds = Counter(v.verdict for v in verdicts)
    reasons = Counter(f"{v.verdict}: {v.reason}" for v in verdicts)
    named = {name: kinds[name] for name in ("correct", "wrong", "no_answer", "not_checked")}
    return {"traces": len(verdicts), **named, "reasons": dict(sorted(reasons.items()))}
