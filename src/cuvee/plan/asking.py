"""Rows of what is asked over HTTP: teach, a judge's part of verify, evaluate.

Requests, tokens and dollars follow from how many problems there are and how many answers each
gets; hours from the time of one request and how many are in flight. Prices count as the teach
stage counts them (`cuvee.teach.request.cost_of`): an answer's reasoning is output, and what the
ledger holds costs nothing. Not here: what the answers are worth (`cuvee.plan.case`).
"""

import ipaddress
import math
from urllib.parse import urlsplit

from cuvee.evaluate.protocol import models
from cuvee.plan.case import (
    Case,
    answer_tokens,
    answers_a_problem,
    problems_of,
    problems_of_benchmark,
    prompt_tokens,
)
from cuvee.plan.engines import EVALUATE, key_of, memory
from cuvee.plan.figures import NOTHING, Figure, known, mean_of, total
from cuvee.plan.measured import Answers, evaluate_flight, in_flight
from cuvee.plan.rows import Row
from cuvee.plan.sizes import gguf_bytes
from cuvee.problems.benchmarks import ResolvedBenchmark
from cuvee.recipe import Prices, Serve, Teacher
from cuvee.recipe.serving import PARALLEL
from cuvee.teach.request import MILLION, cost_of

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


def teach_rows(case: Case) -> list[Row]:
    """Return a row for each teacher and domain, in the order they are asked."""
    return [
        _teach_row(case, teacher, domain)
        for teacher in case.recipe.teachers
        for domain in case.recipe.domains
        if teacher in case.recipe.teachers_of(domain)
    ]


def judge_rows(case: Case) -> list[Row]:
    """Return a row for each domain that a judge decides; its hours are verify's."""
    rows = []
    for domain, section in case.recipe.domains.items():
        judge = next((t for t in case.recipe.teachers if t.name == section.judge), None)
        if judge is None:
            continue
        problems = problems_of(case, domain)
        if problems is None:
            rows.append(_unknown("verify", domain, "problems unknown until loaded"))
            continue
        requests = problems.scaled(answers_a_problem(case, domain))
        answer = case.assumptions.figure("judge_tokens", domain)
        prompt = prompt_tokens(case, domain) + _mean_answer(case, domain)
        each = answer / _speed(case, judge.name, _kind(judge))
        rows.append(
            Row(
                "verify",
                domain,
                requests=requests,
                prompt_tokens=requests * prompt,
                answer_tokens=requests * answer,
                note=f"judge: {judge.name}",
                usd=_usd(judge, requests * prompt, requests * answer),
                hours=_hours(requests * each, in_flight(judge)),
                tasks=(f"verify/{domain}",),
                gpus=gpus_of(judge.serve),
                memory=memory(case.engines, key_of(judge.name)),
            )
        )
    return rows


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
    """Return how many GPUs an engine is started on; 0 for llama.cpp and what is elsewhere."""
    if serve is None or serve.engine != "vllm":
        return 0
    flags = {key.replace("-", "_"): value for key, value in serve.args.items()}
    sizes: list[int] = [flags[key] for key in PARALLEL if isinstance(flags.get(key), int)]
    return max(len(serve.devices), serve.replicas * math.prod(sizes))


def _teach_row(case: Case, teacher: Teacher, domain: str) -> Row:
    name, problems = f"{domain}/{teacher.name}", problems_of(case, domain)
    task = (f"teach/{name}",)
    if teacher.published:
        return Row("teach", name, tasks=task, note="published: nothing is asked",
                   done=case.measured.is_done(task[0], case.recipe.limit))  # fmt: skip
    if problems is None:
        return _unknown("teach", name, "problems unknown until loaded")
    seen = case.measured.teach.get((domain, teacher.name))
    requests = problems.scaled(teacher.samples)
    prompt, answer = (
        _prompt(case, domain, seen, problems),
        answer_tokens(case, domain, teacher.name),
    )
    each = _each(case, seen, answer, teacher.name, _kind(teacher), problems)
    around = known(seen.around) if seen else _start(case, teacher.serve)
    prompts, answers = requests * prompt, requests * answer
    return Row(
        "teach", name, requests=requests, prompt_tokens=prompts, answer_tokens=answers,
        usd=_usd(teacher, prompts, answers), gpus=gpus_of(teacher.serve),
        hours=_hours(requests * each, in_flight(teacher)) + around.scaled(1 / HOUR),
        disk=answers * case.assumptions.figure("bytes_per_token"),
        lane=teacher.name if teacher.url else "", tasks=task,
        memory=memory(case.engines, key_of(teacher.name)),
        done=case.measured.is_done(task[0], case.recipe.limit),
        note="" if _is_priced(teacher) else "no usd_per_mtok in the recipe",
    )  # fmt: skip


def _score_row(
    case: Case, model: str, teacher: Teacher | None, benchmark: ResolvedBenchmark, *, first: bool
) -> Row:
    name, problems = f"{model}/{benchmark.name}", problems_of_benchmark(case, benchmark)
    task = (f"evaluate/{name}",)
    if problems is None:
        return _unknown("evaluate", name, "problems unknown until loaded")
    seen = case.measured.evaluate.get((model, benchmark.name))
    serve = teacher.serve if teacher else case.recipe.evaluate.serve
    requests = problems.scaled(benchmark.samples)
    prompt, answer = _score_tokens(case, benchmark, seen, problems)
    kind = _kind(teacher) if teacher else case.recipe.evaluate.serve.engine
    each = _each(case, seen, answer, teacher.name if teacher else "evaluate", kind, problems)
    flight = in_flight(teacher) if teacher else evaluate_flight(case.recipe)
    around = known(seen.around) if seen else NOTHING
    disk: Figure | None = (requests * answer) * case.assumptions.figure("bytes_per_token")
    if first and seen is None:
        around = _start(case, serve)
    if first and teacher is None and case.recipe.evaluate.serve.engine == "llama.cpp":
        disk = total([disk, gguf_bytes(case.base, case.recipe.evaluate.serve.quantization)])
    prompts, answers = requests * prompt, requests * answer
    return Row(
        "evaluate", name, requests=requests, prompt_tokens=prompts, answer_tokens=answers,
        usd=NOTHING if teacher is None else _usd(teacher, prompts, answers), disk=disk,
        hours=_hours(requests * each, flight) + around.scaled(1 / HOUR),
        gpus=gpus_of(serve), tasks=task, lane="",
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


def _each(
    case: Case, seen: Answers | None, answer: Figure, scope: str, kind: str, problems: Figure
) -> Figure:  # fmt: skip
    """Return the seconds of one request."""
    wish = case.assumptions.wish("tokens_per_second", scope)
    if wish is None and seen is not None and seen.seconds:
        return mean_of(seen.seconds, of=problems.value)
    return answer / _speed(case, scope, kind)


def _speed(case: Case, scope: str, kind: str) -> Figure:
    why, default = SPEEDS[kind]
    return case.assumptions.figure("tokens_per_second", scope, default=default, why=why)


def _kind(teacher: Teacher) -> str:
    if teacher.serve is not None:
        return teacher.serve.engine
    return "scripted" if teacher.scripted is not None else "url"


def _start(case: Case, serve: Serve | None) -> Figure:
    return NOTHING if serve is None else case.assumptions.figure("start_seconds")


def _hours(seconds: Figure, flight: int) -> Figure:
    return seconds.scaled(1 / (HOUR * flight))


def _mean_answer(case: Case, domain: str) -> Figure:
    """Return tokens of an answer of a domain's teachers, each as often as it answers."""
    teachers = case.recipe.teachers_of(domain)
    figures = [answer_tokens(case, domain, t.name).scaled(t.samples) for t in teachers]
    return (total(figures) or NOTHING).scaled(1 / answers_a_problem(case, domain))


def _usd(teacher: Teacher, prompts: Figure, answers: Figure) -> Figure | None:
    """Return what a teacher's tokens cost; None where the recipe has no price for them."""
    prices = teacher.usd_per_mtok
    if prices is None:
        return NOTHING if _is_priced(teacher) else None
    return prompts.scaled(_rate(prices, 1, 0)) + answers.scaled(_rate(prices, 0, 1))


def _rate(prices: Prices, prompt: int, answer: int) -> float:
    """Return dollars a token, as the teach stage counts."""
    million = int(MILLION)
    return cost_of(
        prices, prompt_tokens=prompt * million, completion_tokens=answer * million
    ).usd / million  # fmt: skip


def _is_priced(teacher: Teacher) -> bool:
    """Return whether it is known what a teacher costs: by its price, or because it is ours."""
    if teacher.url is None or teacher.usd_per_mtok is not None:
        return True
    host = urlsplit(teacher.url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unknown(stage: str, name: str, why: str) -> Row:
    return Row(
        stage, name, requests=None, prompt_tokens=None, answer_tokens=None, usd=None, hours=None,
        disk=None, tasks=(f"{stage}/{name}",), note=why,
    )  # fmt: skip
