"""Rows of what is asked over HTTP about problems: teach, evaluate.

Requests, tokens and dollars follow from how many problems there are and how many answers each
gets; hours from the time of one request and how many are in flight. Prices count as the teach
stage counts them (`cuvee.teach.request.cost_of`): an answer's reasoning is output, and what the
ledger holds costs nothing. Not here: what is asked about answers (`cuvee.plan.about`), and what
answers are worth (`cuvee.plan.yields`).
"""

import dataclasses

from cuvee.evaluate.protocol import models
from cuvee.plan.case import (
    Case,
    answer_tokens,
    problems_of,
    problems_of_benchmark,
    samples_in,
)
from cuvee.plan.engines import EVALUATE, key_of, memory
from cuvee.plan.figures import NOTHING, Figure, known, mean_of, total
from cuvee.plan.measured import Answers, evaluate_flight, in_flight
from cuvee.plan.prices import is_priced, usd_of
from cuvee.plan.rows import Row
from cuvee.plan.sizes import gguf_bytes
from cuvee.plan.yields import rounds_of
from cuvee.problems.benchmarks import ResolvedBenchmark
from cuvee.recipe import Serve, Teacher

HOUR = 3600.0
SPEEDS = {
    "scripted": ("a rule, no model", (1000.0, 200.0, 3000.0)),
    "url": ("a busy API", (30.0, 15.0, 60.0)),
    "vllm": ("vLLM with its slots full", (15.0, 5.0, 30.0)),
    "llama.cpp": ("llama.cpp on a CPU, its slots sharing it", (3.0, 0.5, 30.0)),
}
"""Who answers -> why, and tokens a second of one request in flight: value, low, high."""
OF_MOST_TOKENS = (1 / 3, 1 / 8, 1.0)
"""Of a benchmark's `max_tokens`, what an answer takes."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which share of a domain's problems is asked in a round."""

    in_round: int
    share: Figure

    @property
    def folder(self) -> str:
        """Return what stands before a task's name: nothing in the first round."""
        return "" if self.in_round == 1 else f"round-{self.in_round}/"


def rounds_asked(case: Case, domain: str) -> list[Asked]:
    """Return the rounds that are expected, the first included."""
    further = [Asked(again.number, again.asked) for again in rounds_of(case, domain)]
    return [Asked(1, known(1)), *further]


def teach_rows(case: Case) -> list[Row]:
    """Return a row for each round, teacher and domain, in the order they are asked."""
    rows = [
        _teach_row(case, teacher, domain, asked)
        for teacher in case.recipe.teachers
        for domain in case.recipe.domains
        if teacher in case.recipe.teachers_of(domain)
        for asked in rounds_asked(case, domain)
        if asked.in_round == 1 or not teacher.published
    ]
    return sorted(rows, key=lambda row: row.turn)


def evaluate_rows(case: Case) -> list[Row]:
    """Return a row for each model and benchmark; a model's first has its export and start."""
    rows = []
    for model in [*models(case.recipe), *case.recipe.evaluate.teachers]:
        teacher = next(
            (t for t in case.recipe.teachers if t.name in case.recipe.evaluate.teachers
             and t.name == model), None,
        )  # fmt: skip
        for number, benchmark in enumerate(case.benchmarks):
            rows.append(_score_row(case, model, teacher, benchmark, first=number == 0))
    return rows


def gpus_of(serve: Serve | None) -> int:
    """Return how many GPUs an engine is started on; 0 for what is elsewhere or on the CPU."""
    if serve is None:
        return 0
    return max(len(serve.devices), serve.replicas * serve.gpus_each())


def is_on_nodes(serve: Serve | None) -> bool:
    """Return whether an engine is started on the nodes of a cluster."""
    return serve is not None and serve.over is not None


def _teach_row(case: Case, teacher: Teacher, domain: str, asked: Asked) -> Row:
    name = f"{asked.folder}{domain}/{teacher.name}"
    task = (f"teach/{name}",)
    if teacher.published:
        return Row("teach", name, tasks=task, note="published: nothing is asked",
                   done=case.measured.is_done(task[0], case.recipe.limit))  # fmt: skip
    problems = problems_of(case, domain)
    if problems is None:
        return unknown("teach", name, "problems unknown until loaded")
    seen = case.measured.teach.get((domain, teacher.name))
    requests = problems * asked.share.scaled(
        samples_in(case.recipe, teacher, in_round=asked.in_round)
    )
    prompt, answer = (
        _prompt(case, domain, seen, problems),
        answer_tokens(case, domain, teacher.name),
    )
    each = seconds_of(case, seen, answer, teacher.name, kind_of(teacher), problems)
    around = known(seen.around) if seen else start_of(case, teacher.serve)
    prompts, answers = requests * prompt, requests * answer
    return Row(
        "teach", name, requests=requests, prompt_tokens=prompts, answer_tokens=answers,
        usd=usd_of(teacher, prompts, answers), gpus=gpus_of(teacher.serve),
        on_nodes=is_on_nodes(teacher.serve),
        hours=hours_of(requests * each, in_flight(teacher)) + around.scaled(1 / HOUR),
        disk=answers * case.assumptions.figure("bytes_per_token"),
        lane=teacher.name if teacher.url else "", tasks=task, turn=asked.in_round,
        memory=memory(case.engines, key_of(teacher.name)),
        done=case.measured.is_done(task[0], case.recipe.limit),
        note="" if is_priced(teacher) else "no usd_per_mtok in the recipe",
    )  # fmt: skip


def _score_row(
    case: Case, model: str, teacher: Teacher | None, benchmark: ResolvedBenchmark, *, first: bool
) -> Row:
    name, problems = f"{model}/{benchmark.name}", problems_of_benchmark(case, benchmark)
    task = (f"evaluate/{name}",)
    if problems is None:
        return unknown("evaluate", name, "problems unknown until loaded")
    seen = case.measured.evaluate.get((model, benchmark.name))
    serve = teacher.serve if teacher else case.recipe.evaluate.serve
    requests = problems.scaled(benchmark.samples)
    prompt, answer = _score_tokens(case, benchmark, seen, problems)
    kind = kind_of(teacher) if teacher else case.recipe.evaluate.serve.engine
    each = seconds_of(case, seen, answer, teacher.name if teacher else "evaluate", kind, problems)
    flight = in_flight(teacher) if teacher else evaluate_flight(case.recipe)
    around = known(seen.around) if seen else NOTHING
    disk: Figure | None = (requests * answer) * case.assumptions.figure("bytes_per_token")
    if first and seen is None:
        around = start_of(case, serve)
    if first and teacher is None and case.recipe.evaluate.serve.engine == "llama.cpp":
        disk = total([disk, gguf_bytes(case.base, case.recipe.evaluate.serve.quantization)])
    prompts, answers = requests * prompt, requests * answer
    return Row(
        "evaluate", name, requests=requests, prompt_tokens=prompts, answer_tokens=answers,
        usd=NOTHING if teacher is None else usd_of(teacher, prompts, answers), disk=disk,
        hours=hours_of(requests * each, flight) + around.scaled(1 / HOUR),
        gpus=gpus_of(serve), on_nodes=is_on_nodes(serve), tasks=task, lane="",
        memory=memory(case.engines, key_of(teacher.name) if teacher else EVALUATE),
        done=case.measured.is_done(task[0], case.recipe.limit),
    )  # fmt: skip


def _score_tokens(
    case: Case, benchmark: ResolvedBenchmark, seen: Answers | None, problems: Figure
) -> tuple[Figure, Figure]:
    """Return tokens of a prompt and of an answer in an evaluation."""
    prompt = _prompt(case, benchmark.name, seen, problems)
    if seen is not None and seen.completion:
        return prompt, mean_of(seen.completion, of=problems.value)
    most = benchmark.sampling.max_tokens
    default = (most * OF_MOST_TOKENS[0], most * OF_MOST_TOKENS[1], most * OF_MOST_TOKENS[2])
    why = f"a third of max_tokens {most}"
    return prompt, case.assumptions.figure(
        "answer_tokens", benchmark.name, default=default, why=why
    )


def _prompt(case: Case, scope: str, seen: Answers | None, problems: Figure) -> Figure:
    if seen is not None and seen.prompt and case.assumptions.wish("prompt_tokens", scope) is None:
        return mean_of(seen.prompt, of=problems.value)
    return case.assumptions.figure("prompt_tokens", scope)


def seconds_of(
    case: Case, seen: Answers | None, answer: Figure, scope: str, kind: str, problems: Figure
) -> Figure:  # fmt: skip
    """Return the seconds of one request."""
    wish = case.assumptions.wish("tokens_per_second", scope)
    if wish is None and seen is not None and seen.seconds:
        return mean_of(seen.seconds, of=problems.value)
    return answer / speed_of(case, scope, kind)


def speed_of(case: Case, scope: str, kind: str) -> Figure:
    """Return the tokens a second of one request in flight."""
    why, default = SPEEDS[kind]
    return case.assumptions.figure("tokens_per_second", scope, default=default, why=why)


def kind_of(teacher: Teacher) -> str:
    """Return which of `SPEEDS` a teacher answers at."""
    if teacher.serve is not None:
        return teacher.serve.engine
    return "scripted" if teacher.scripted is not None else "url"


def start_of(case: Case, serve: Serve | None) -> Figure:
    """Return the seconds until an engine answers."""
    return NOTHING if serve is None else case.assumptions.figure("start_seconds")


def hours_of(seconds: Figure, flight: int) -> Figure:
    """Return the hours of requests that take so many seconds, `flight` of them at once."""
    return seconds.scaled(1 / (HOUR * flight))


def unknown(stage: str, name: str, why: str) -> Row:
    """Return the row of what cannot be told, and why."""
    return Row(
        stage, name, requests=None, prompt_tokens=None, answer_tokens=None, usd=None, hours=None,
        disk=None, tasks=(f"{stage}/{name}",), note=why,
    )  # fmt: skip
