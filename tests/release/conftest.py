"""A small finished run folder, written row by row as the stages write it."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cuvee.models.random_model import write_random_model
from cuvee.recipe import Recipe, dump_recipe, parse_recipe
from cuvee.records import (
    Comparison,
    Dropped,
    Example,
    Parity,
    Problem,
    Score,
    Trace,
    Verdict,
    VerdictName,
    write_rows,
)
from cuvee.release.exports import Export, export_file, parity_file, write_export
from cuvee.release.facts import Facts
from cuvee.release.gather import gather
from cuvee.release.stage import tasks
from cuvee.runfolder import Run, Task, execute
from cuvee.serve.facts import Recommended, ServingFacts

HOSTILE = (
    '</pre></details><script>document.title = "owned"</script><img src=x onerror="alert(1)">'
    "\"'`{{ 7 * 7 }}{% raw %} evil\u202etxt.exe\u202c zero\u200bwidth \x1b[31m"
)
"""What a hostile teacher writes: closing tags, a script, template code, bidi overrides."""

FATES: Mapping[str, tuple[VerdictName, str, str | None]] = {
    "none": ("correct", "equal", None),
    "wrong_result": ("wrong", "different", "verdict_wrong"),
    "no_answer": ("no_answer", "no_final_answer", "verdict_no_answer"),
    "truncated": ("no_answer", "truncated", "verdict_no_answer"),
    "second_language": ("correct", "equal", "language"),
    "repetition": ("correct", "equal", "repetition"),
}
"""Fault -> verdict, its reason, and why such a trace is dropped."""

PREFLIGHTS: Mapping[str, Mapping[str, Any]] = {
    "math": {
        "dropped_too_long": ["math-p3-alice"],
        "held_out_ids": ["math-p4-alice"],
        "findings": [
            {"level": "warning", "check": "duplicates", "message": "the same <b>row</b> twice",
             "count": 2, "ids": ["math-p5-alice", "math-p6-alice"]},
            {"level": "warning", "check": "bf16_weights", "message": "weights in bf16", "count": 0,
             "ids": []},
            {"level": "note", "check": "added_tokens", "message": "two tokens", "count": 0,
             "ids": []},
        ],
    },
    "code": {"dropped_too_long": ["code-p3-alice"]},
    "mixture": {
        "dropped_too_long": ["math-p3-alice", "code-p3-alice"],
        "held_out_ids": ["math-p4-alice"],
        "findings": [],
    },
}  # fmt: skip
"""Model -> its `preflight.json`."""

LAYERS, MODULES = 4, ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "input_layernorm")


def recipe_data() -> dict[str, Any]:
    """The recipe of the run: two domains with a mixture, three teachers, one benchmark each."""

    def source(name: str, count: int) -> dict[str, Any]:
        return {"source": f"generator:{name}", "count": count}

    return {
        "name": "small-blend",
        "base": "random:two-layer",
        "baseline": "mixture",
        "domains": {
            "math": {"problems": [source("arithmetic", 12)], "verifier": "math"},
            "code": {"problems": [source("functions", 12)], "verifier": "code"},
        },
        "teachers": [
            {"name": "alice", "scripted": {}, "terms": "Apache-2.0"},
            {"name": "bob", "scripted": {"skill": 0.5}, "terms": "a | b\nc"},
            {"name": "carol", "scripted": {}},
        ],
        "evaluate": {
            "benchmarks": {
                "sums": {"problems": source("arithmetic", 64), "domain": "math"},
                "lists": {"problems": source("functions", 64), "domain": "code"},
            }
        },
        "release": {"gguf": ["Q8_0"]},
    }


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return parse_recipe(recipe_data(), where="the test")


@pytest.fixture
def finished(tmp_path: Path, recipe: Recipe) -> Run:
    """A finished run of 12 problems a domain; alice's first trace of math is hostile."""
    return build_run(tmp_path / "run", recipe, problems=12, seed=0)


@pytest.fixture(scope="session")
def facts(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Facts:
    """What is gathered from such a run; frozen, so that all tests may share it."""
    return gather(build_run(tmp_path_factory.mktemp("run"), recipe, problems=12, seed=0))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Run:
    """A finished run with a real merged model, released."""
    run = build_run(tmp_path_factory.mktemp("once") / "run", recipe, problems=12, seed=0)
    write_random_model(run.merged())
    for task in tasks(run, ExitStack()):
        execute(run, task)
    return run


@pytest.fixture
def released(once: Run, tmp_path: Path) -> Run:
    """A copy of it: a run folder may be moved."""
    shutil.copytree(once.path, tmp_path / "run")
    return dataclasses.replace(once, path=tmp_path / "run")


@pytest.fixture(scope="session")
def serving() -> ServingFacts:
    """How a model is served whose template opens the reasoning."""
    return ServingFacts(
        template="{{ messages[0].content }}<think>\n", stop=("<|im_end|>",), bos=None,
        eos="<|im_end|>", adds_bos=False, context=2048, prefill="<think>\n", think_tokens=True,
        architecture="llama", sampling=Recommended(0.6, 0.95, "the protocol of the evaluation"),
    )  # fmt: skip


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture
def score_rows() -> list[Score]:
    return scores()


@pytest.fixture
def comparison_rows() -> list[Comparison]:
    return comparisons()


@pytest.fixture
def mixture_score_rows() -> list[Score]:
    return mixture_scores()


@pytest.fixture
def mixture_comparison_rows() -> list[Comparison]:
    return mixture_comparisons()


def build_run(path: Path, recipe: Recipe, *, problems: int, seed: int) -> Run:
    """Write a run folder with a manifest, as if every stage before `release` had run."""
    run = Run(path, recipe)
    rng = random.Random(seed)
    for domain in recipe.domains:
        _write_domain(run, domain, problems, rng)
    for model in recipe.trained():
        _write_training(run, model, rng)
    statistics = json.dumps(merge_record(recipe, rng))
    record = run.merged() / "cuvee_merge.json"
    _do(run, "merge", "merged", [run.merged()], _writer(record, statistics))

    def evaluate() -> dict[str, Any]:
        rows = [*scores(), *mixture_scores()]
        write_rows(run.scores(), rows, Score)
        write_rows(run.comparisons(), [*comparisons(), *mixture_comparisons()], Comparison)
        for row in rows:
            write_rows(run.score_verdicts(row.model, row.benchmark), _verdicts(row), Verdict)
        answer = _trace(_problem("math", 1), "merged", 1, rng)
        for benchmark in recipe.evaluate.benchmarks:
            write_rows(run.score_traces("merged", benchmark), [answer], Trace)
        return {"scores": len(rows)}

    _do(run, "evaluate", "scores", [run.scores(), run.comparisons()], evaluate)
    (run.path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    _write_exports(run)
    return run


def _write_exports(run: Run) -> None:
    """What is known of the recipe's GGUF files, without the files."""
    for quantization in run.recipe.release.gguf:
        row = parity_row(f"{run.recipe.name}.{quantization}.gguf", quantization)
        export = Export(row.file, quantization, row.bytes, "", 2048, 2_000_000)
        write_export(export_file(run, quantization), export)
        write_rows(parity_file(run, quantization), [row], Parity)


def parity_row(file: str, quantization: str, **changes: Any) -> Parity:
    """A row of a file that passed."""
    values: dict[str, Any] = {
        "bytes": 1_234_567, "texts": 40, "texts_unlike": 0, "chats": 6, "chats_unlike": 0,
        "text": "cuvee's own text", "positions": 511, "left_out": 0, "perplexity": 12.5,
        "perplexity_checkpoint": 12.25, "kl_mean": 0.0123, "kl_p99": 0.25, "same_top": 0.975,
        "logit_difference": None, "engine_positions": 3, "engine_kl": 0.0001, "passed": True,
        "detail": "",
    }  # fmt: skip
    return Parity(file=file, quantization=quantization, **(values | changes))


def _verdicts(score: Score) -> list[Verdict]:
    """The verdicts that a score of one sample a problem counts, over problems shuffled by model."""
    names = [f"{score.benchmark}-{number}" for number in range(score.n_problems)]
    random.Random(score.model).shuffle(names)
    counts: dict[VerdictName, int] = {
        "correct": score.correct,
        "wrong": score.wrong,
        "no_answer": score.no_answer,
        "not_checked": score.not_checked,
    }
    kinds = [kind for kind, number in counts.items() for _ in range(number)]
    return [
        Verdict(
            f"{name}-{score.model}", name, score.domain, kind, "equal", None, None, None, "x", 0.0
        )
        for name, kind in zip(names, kinds, strict=False)
    ]


def _write_training(run: Run, model: str, rng: random.Random) -> None:
    """The code specialist's folder is as the first version wrote it: no page, nothing held out."""
    folder = run.specialist(model)
    files = {
        "train_log.jsonl": _train_log(rng),
        "preflight.json": json.dumps(PREFLIGHTS[model]),
    }
    if model != "code":
        files |= {"held_out.jsonl": _held_out_log(rng), "preflight.html": "<p>rows</p>"}
    writers = [_writer(folder / name, text) for name, text in files.items()]
    _do(run, "train", model, [folder], lambda: {"files": len([write() for write in writers])})


def _do(
    run: Run, stage: str, name: str, outputs: list[Path], work: Callable[[], Mapping[str, Any]]
) -> None:
    execute(run, Task(stage, name, (), tuple(outputs), {}, work))


def _writer(path: Path, text: str) -> Callable[[], Mapping[str, Any]]:
    def work() -> dict[str, Any]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return {"bytes": len(text)}

    return work


def _write_domain(run: Run, domain: str, count: int, rng: random.Random) -> None:
    problems = [_problem(domain, i) for i in range(count)]
    lost = [
        Dropped(f"{domain}-lost{i}", domain, "problem", None, reason, None)
        for i, reason in enumerate(["near_duplicate", "near_duplicate", "overlaps_benchmark"])
    ]

    def write_problems() -> dict[str, Any]:
        write_rows(run.dropped("problems", domain), lost, Dropped)
        return {"problems": write_rows(run.problems(domain), problems, Problem)}

    outputs = [run.problems(domain), run.dropped("problems", domain)]
    _do(run, "problems", domain, outputs, write_problems)
    traces = []
    for teacher in run.recipe.teachers_of(domain):
        own = [_trace(p, teacher.name, n, rng) for n, p in enumerate(problems)]
        file = run.traces(domain, teacher.name)
        _do(run, "teach", f"{domain}/{teacher.name}", [file], _rows(file, own, Trace))
        traces += own
    verdicts = [_verdict(t) for t in traces]
    file = run.verdicts(domain)
    _do(run, "verify", domain, [file], _rows(file, verdicts, Verdict))
    _write_selection(run, domain, traces)


def _rows(file: Path, rows: list[Any], row_type: Any) -> Callable[[], Mapping[str, Any]]:
    return lambda: {"rows": write_rows(file, rows, row_type)}


def _write_selection(run: Run, domain: str, traces: list[Trace]) -> None:
    examples, dropped, taken = [], [], set()
    for t in traces:
        reason = "request_failed" if t.error else FATES[_fault(t)][2]
        if reason is None and t.problem_id in taken:
            reason = "not_chosen"
        if reason is None:
            taken.add(t.problem_id)
            prompt, tokens = f"What is {t.problem_id}?", t.completion_tokens or 0
            examples.append(
                Example(t.id, t.problem_id, domain, t.model, prompt, t.reasoning, t.answer, tokens)
            )
        else:
            dropped.append(Dropped(t.id, domain, "trace", t.model, reason, "measured 0.71"))

    def work() -> dict[str, Any]:
        write_rows(run.dropped("select", domain), dropped, Dropped)
        return {"examples": write_rows(run.examples(domain), examples, Example)}

    _do(run, "select", domain, [run.examples(domain), run.dropped("select", domain)], work)


def _problem(domain: str, number: int) -> Problem:
    prompt = f"What is {number} + {number}?\n\nPlease reason step by step."
    name = f"{domain}-p{number}"
    return Problem(name, domain, "generator:x", prompt, prompt, "math", str(2 * number), None, "{}")


def _fault(trace: Trace) -> str:
    return (trace.fingerprint or "scripted/none").removeprefix("scripted/")


def _trace(problem: Problem, teacher: str, number: int, rng: random.Random) -> Trace:
    """alice is always sound, bob goes through the faults in turn, carol's third request fails."""
    fault = list(FATES)[number % len(FATES)] if teacher == "bob" else "none"
    failed = teacher == "carol" and number == 2
    hostile = teacher == "alice" and problem.id == "math-p0"
    steps = "\n".join(f"Step {i}: add {i} and {i}, giving {2 * i}." for i in range(number % 7 + 1))
    finish = "error" if failed else "length" if fault == "truncated" else "stop"
    return Trace(
        id="0" if hostile else f"{problem.id}-{teacher}",
        problem_id=problem.id,
        domain=problem.domain,
        model=teacher,
        sample=0,
        reasoning="" if failed else HOSTILE if hostile else steps,
        answer="" if failed else f"The answer is \\boxed{{{2 * number}}}.",
        finish_reason=finish,
        prompt_tokens=20,
        completion_tokens=None if failed else round(rng.lognormvariate(4.5, 0.4)),
        seconds=0.1,
        request=f"key-{problem.id}-{teacher}",
        fingerprint=None if failed else f"scripted/{fault}",
        error="HTTP 500 after 6 tries" if failed else None,
    )


def _verdict(trace: Trace) -> Verdict:
    verdict, reason, _ = FATES[_fault(trace)]
    if trace.error:
        verdict, reason = "not_checked", "request_failed"
    extracted = None if verdict == "no_answer" or trace.error else "24"
    return Verdict(
        trace.id, trace.problem_id, trace.domain, verdict, reason, extracted, "24", None,
        "math-verify", 0.01,
    )  # fmt: skip


def _train_log(rng: random.Random) -> str:
    lines = [
        {
            "step": step,
            "loss": 2.2 * 0.97**step + 0.3 + rng.uniform(-0.08, 0.08),
            "learning_rate": 1e-4,
            "tokens": 900 * step,
            "seconds": 1.7,
        }
        for step in range(1, 61)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _held_out_log(rng: random.Random) -> str:
    lines = [
        {"step": step, "loss": 2.2 * 0.97**step + 0.5 + rng.uniform(-0.02, 0.02), "tokens": 300}
        for step in range(0, 61, 6)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def merge_record(recipe: Recipe, rng: random.Random) -> dict[str, Any]:
    """What `cuvee_merge.json` holds, in the keys that the report reads."""
    names = [(layer, module) for layer in range(LAYERS) for module in MODULES]
    tensors = [
        {"layer": layer, "module": module, "fusions": [_fusion(rng.uniform(0.05, 0.3), 1000)]}
        for layer, module in [*names, (None, "embed_tokens"), (None, "norm")]
    ]
    first, second = recipe.merge_order()
    return {"fusions": [{"anchor": second, "other": first}], "tensors": tensors}


def _fusion(share: float, elements: int) -> dict[str, Any]:
    return {
        "share_adopted": share,
        "elements": elements,
        "differing": elements,
        "degenerate": False,
    }


def score(model: str, benchmark: str, domain: str, correct: int, **changes: Any) -> Score:
    """A score of 64 problems, one sample each, with a plain ±12-point interval."""
    mean = correct / 64
    values: dict[str, Any] = {
        "mean": mean, "low": max(0, mean - 0.12), "high": min(1, mean + 0.12),
        "lower_bound": mean, "upper_bound": mean, "n_problems": 64, "n_samples": 64,
        "correct": correct, "wrong": 60 - correct, "no_answer": 4, "truncated": 3,
        "not_checked": 0, "mean_tokens": 80.0, "protocol": '{"temperature": 0.0}',
    }  # fmt: skip
    return Score(model=model, benchmark=benchmark, domain=domain, **(values | changes))


def scores() -> list[Score]:
    """Math's specialist gains clearly; code's score has no headline for the base."""
    return [
        score("base", "sums", "math", 2),
        score("math", "sums", "math", 28),
        score("code", "sums", "math", 3),
        score("merged", "sums", "math", 20),
        score(
            "base", "lists", "code", 4, mean=None, low=0.05, high=0.2, lower_bound=0.0625,
            upper_bound=0.125, wrong=52, not_checked=4,
        ),
        score("math", "lists", "code", 5),
        score("code", "lists", "code", 50),
        score("merged", "lists", "code", 48),
    ]  # fmt: skip


def comparisons() -> list[Comparison]:
    """Clear gains, one clear merge tax (sums) and one that includes 0 (lists)."""
    return [
        Comparison("math", "base", "sums", 26 / 64, 0.27, 0.54, 0.0001, 64),
        Comparison("code", "base", "sums", 1 / 64, -0.05, 0.08, 0.61, 64),
        Comparison("merged", "base", "sums", 18 / 64, 0.16, 0.40, 0.0002, 64),
        Comparison("merged", "math", "sums", -8 / 64, -0.22, -0.03, 0.012, 64),
        Comparison("math", "base", "lists", 1 / 64, -0.06, 0.09, 0.7, 64),
        Comparison("code", "base", "lists", 46 / 64, 0.6, 0.83, 0.00001, 64),
        Comparison("merged", "base", "lists", 44 / 64, 0.56, 0.8, 0.00001, 64),
        Comparison("merged", "code", "lists", -2 / 64, -0.1, 0.04, 0.4, 64),
    ]


def mixture_scores() -> list[Score]:
    return [score("mixture", "sums", "math", 25), score("mixture", "lists", "code", 40)]


def mixture_comparisons() -> list[Comparison]:
    """The merged model is not shown to differ on sums, and better on lists."""
    return [
        Comparison("mixture", "base", "sums", 23 / 64, 0.24, 0.48, 0.0001, 64),
        Comparison("merged", "mixture", "sums", -5 / 64, -0.19, 0.03, 0.18, 64),
        Comparison("mixture", "base", "lists", 36 / 64, 0.44, 0.68, 0.00001, 64),
        Comparison("merged", "mixture", "lists", 8 / 64, 0.02, 0.23, 0.02, 64),
    ]
