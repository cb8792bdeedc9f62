"""One model on one benchmark: its problems asked through the ledger, the answers checked.

A file of problems in, traces and verdicts out. The stage `evaluate` and `cuvee evaluate
MODEL` measure with this alone, so that their numbers are of one kind. What was answered is
in the ledger: a measurement that was stopped goes on from there, sample by sample. Not here:
which models and benchmarks there are, and what their numbers mean.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from cuvee.errors import DataError, EngineError, TeacherError
from cuvee.models.engines import engine_identity, serve
from cuvee.progress import metered, warn
from cuvee.recipe import Sampling, Serve, Verify
from cuvee.records import Problem, Trace, Verdict, read_rows
from cuvee.teach.client import Answers, Books, Endpoint, Usage, ask
from cuvee.teach.reach import Opener, Reachable, reach
from cuvee.teach.stage import ProblemRequests
from cuvee.verify import sandbox as sandboxes
from cuvee.verify.check import check_traces
from cuvee.verify.clustered import check_traces_on_ray


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is asked, and how the answers are checked."""

    benchmark: str
    """For people: `gsm8k`."""
    problems: Path
    """Parquet rows of `Problem`."""
    samples: int
    """Answers a problem, >= 1."""
    seed: int
    sampling: Sampling
    limits: Verify
    sandbox: str
    engines: Path
    """Where a started engine keeps its log."""
    connect: Callable[[], None] | None = None
    """Opens the Ray cluster that the answers are checked on; None: this machine checks them."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Every answer with its verdict, in the order of the problems, and what they took."""

    traces: list[Trace]
    verdicts: list[Verdict]
    usage: Usage


def measure(
    model: Reachable,
    wanted: Measurement,
    *,
    books: Books,
    opened: Opener,
    stop: threading.Event | None = None,
) -> Measured:
    """Ask a model all problems and check its answers; what the ledger holds is not asked again.

    Raises DataError where there is no problem, RecipeError where there is code to run and no
    sandbox, EngineError or (of a model behind a URL) TeacherError where a request failed: a
    score must not blame the model for it. Further what `ask`, `check_traces` and
    `wanted.connect` raise. Answers that a server cut before `max_tokens` are told in a warning.
    """
    label = f"{model.endpoint.name} on {wanted.benchmark}"
    problems = read_rows(wanted.problems, Problem)
    if not problems:
        raise DataError(f"{wanted.problems}: no problems to ask")
    # Before anything is asked: who lacks a cluster or a sandbox should not have paid for answers.
    if wanted.connect is not None:
        wanted.connect()
    elif any(problem.verifier == "code" for problem in problems):
        sandboxes.require(wanted.sandbox)
    answers = _ask(model, wanted, label, books=books, opened=opened, stop=stop)
    traces = list(answers)
    _require_answers(model, wanted, label, traces)
    _warn_of_cuts(wanted, label, traces)
    check = check_traces if wanted.connect is None else check_traces_on_ray
    verdicts = check(
        traces,
        {problem.id: problem for problem in problems},
        limits=wanted.limits,
        sandbox=wanted.sandbox,
        label=f"check {label}",
    )
    return Measured(traces, verdicts, answers.usage())


def served(
    name: str, path: str, spec: Serve, *, concurrency: int, timeout: float, engines: Path
) -> Reachable:
    """Return a model that `spec` serves from `path`, by its identity; nothing is started yet.

    `path` is what `cuvee.models.engines.serve` takes; `timeout` is in seconds, of one request.
    Raises as `engine_identity` does.
    """
    endpoint = Endpoint(
        name=name,
        url="",
        model=path,
        identity=engine_identity(spec, path),
        concurrency=concurrency,
        timeout=timeout,
    )

    def start(resources: ExitStack) -> Endpoint:
        engine = resources.enter_context(serve(spec, path, name=name, folder=engines))
        return dataclasses.replace(endpoint, url=engine.url, model=engine.model)

    return Reachable(endpoint, start)


def _ask(
    model: Reachable,
    wanted: Measurement,
    label: str,
    *,
    books: Books,
    opened: Opener,
    stop: threading.Event | None,
) -> Answers:
    requests = ProblemRequests(wanted.problems, wanted.samples, wanted.seed)
    try:
        endpoint = reach(
            model, requests, sampling=wanted.sampling, ledger=books.ledger, opened=opened
        )
        with metered(f"ask {label}", total=len(requests)) as meter:
            return ask(
                endpoint, requests, sampling=wanted.sampling, books=books, meter=meter, stop=stop
            )
    except TeacherError as error:
        if model.endpoint.url:
            raise
        raise EngineError(f"{label}: {error}; its log is in {wanted.engines}") from error


def _require_answers(
    model: Reachable, wanted: Measurement, label: str, traces: Sequence[Trace]
) -> None:
    errors = [trace.error for trace in traces if trace.finish_reason == "error"]
    if not errors:
        return
    told = f"{label}: {len(errors)} of {len(traces)} requests failed, the first: {errors[0]}"
    again = "What was answered is kept: run again to ask the rest"
    if model.endpoint.url:
        raise TeacherError(f"{told}. {again}")
    raise EngineError(
        f"{told}; the engine's log is in {wanted.engines}. {again}, with a larger timeout where "
        "they timed out"
    )


def _warn_of_cuts(wanted: Measurement, label: str, traces: Sequence[Trace]) -> None:
    """Warn of answers that were cut although `max_tokens` was not reached.

    llama.cpp serves no more context than the model was trained with, whatever it is asked for.
    """
    most = wanted.sampling.max_tokens
    lengths = [
        trace.completion_tokens
        for trace in traces
        if trace.finish_reason == "length" and trace.completion_tokens is not None
    ]
    if cut := [tokens for tokens in lengths if tokens < most]:
        warn(
            f"{label}: {len(cut)} of {len(traces)} answers were cut before max_tokens ({most}), "
            f"the shortest after {min(cut)} tokens: the context of the model or its server is "
            "smaller than that"
        )
