"""How fast selecting is: each filter by itself, and the whole stage on a run folder.

    python benchmarks/selection.py --texts TRACES.jsonl --base models/SOME.gguf

Traces of about `--tokens` tokens are put together of paragraphs of the texts' `thinking` (JSONL)
in a seeded order. Prints Markdown tables: milliseconds a trace for each filter, on one core and
by processor time; the length of the reasoning doubled, to see that time doubles; then the stage's
wall time and peak memory for `--traces` of them. Not here: whether filters are right
(tests/select). (A file named select.py here would hide the standard library's.)
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.recipe import parse_recipe
from cuvee.records import Problem, Trace, Verdict, content_hash, write_rows
from cuvee.runfolder import Run, execute
from cuvee.select.choose import Candidate, choose
from cuvee.select.prose import answers_early, copied, foreign, gives_up
from cuvee.select.repetition import repetitive
from cuvee.select.stage import load_student, tasks
from cuvee.select.structure import control_tokens, malformed
from cuvee.select.words import grams

CHARACTERS_A_TOKEN = 4
QUESTION = "How many boxes are in the warehouse after the second delivery, if none is broken? " * 4
TEACHERS = ("ann", "bo")


def paragraphs(file: Path) -> list[str]:
    """Return the paragraphs of a JSONL file's reasoning."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return [part for row in rows for part in (row["thinking"] or "").split("\n\n") if part.strip()]


def reasoning(parts: Sequence[str], *, characters: int, seed: int) -> str:
    """Return about so many characters of paragraphs in a seeded order."""
    shuffled = random.Random(seed)
    text: list[str] = []
    length = 0
    while length < characters:
        text.append(shuffled.choice(parts))
        length += len(text[-1]) + 2
    return "\n\n".join(text)


def a_trace(text: str, number: int) -> Trace:
    """Return a finished trace: trace `number` of its teacher, four samples a problem."""
    teacher = TEACHERS[number % len(TEACHERS)]
    return Trace(
        id=f"{number:08}",
        problem_id=f"p{number // 4}",
        domain="math",
        model=teacher,
        sample=number // len(TEACHERS) % 2,
        reasoning=text,
        answer="The answer is \\boxed{22}.",
        finish_reason="stop",
        prompt_tokens=5,
        completion_tokens=None,
        seconds=0.1,
        request=str(number),
        fingerprint=None,
        error=None,
    )


def cost(work: Callable[[Trace], object], traces: Sequence[Trace]) -> float:
    """Return milliseconds of processor time a trace."""
    grams.cache_clear()
    begin = time.process_time()
    for trace in traces:
        work(trace)
    return (time.process_time() - begin) / len(traces) * 1000


def each_filter(parts: Sequence[str], characters: int, base: str, traces: int) -> None:
    """Print what each filter costs, at one length and at twice that."""
    student = load_student(base)
    work: dict[str, Callable[[Trace], object]] = {
        "structure": lambda t: malformed(t, verifier="math"),
        "control tokens": lambda t: control_tokens(t, student.control_tokens),
        "language": lambda t: foreign(t, language="en", least=0.9),
        "repetition, loop": lambda t: repetitive(t, most=0.4),
        "copying, after repetition": lambda t: (
            repetitive(t, most=0.4),
            copied(t, QUESTION, most=0.5),
        ),
        "giving up": gives_up,
        "answering early": lambda t: answers_early(t, QUESTION, least=0.1),
        "same text (hash)": lambda t: content_hash(t.reasoning, t.answer),
    }
    short, long = (
        [
            a_trace(reasoning(parts, characters=size, seed=number), number)
            for number in range(traces)
        ]
        for size in (characters, 2 * characters)
    )
    print(f"| filter | ms at {characters:,} characters | ms at {2 * characters:,} |\n|---|---|---|")
    for name, of_trace in work.items():
        print(f"| {name} | {cost(of_trace, short):.2f} | {cost(of_trace, long):.2f} |")
    for name, rows in (("short", short), ("long", long)):
        begin, used = time.perf_counter(), time.process_time()
        counts = student.count([(QUESTION, t.reasoning, t.answer) for t in rows])
        wall, used = time.perf_counter() - begin, time.process_time() - used
        wall_ms, used_ms = (seconds / len(rows) * 1000 for seconds in (wall, used))
        print(
            f"\ntoken window, {name}, {sum(counts) / len(rows):,.0f} tokens a trace, in a batch: "
            f"{used_ms:.1f} ms of processor time, {wall_ms:.1f} of wall time"
        )


def the_choice(traces: int) -> None:
    """Print what the choice among many candidates takes."""
    select = {"target": traces // 8, "balance": ["source", "difficulty"], "per_problem": 2}
    recipe = a_recipe("random:two-layer", select)
    candidates = [
        Candidate(str(number), f"p{number // 4}", TEACHERS[number % 2], number % 997, str(number))
        for number in range(traces)
    ]
    groups = {c.problem_id: (c.problem_id[-1], c.problem_id[-2:-1]) for c in candidates}
    begin = time.process_time()
    choose(candidates, select=recipe.domains["math"].select, groups=groups, seed=1)
    used = time.process_time() - begin
    print(f"\nchoice among {traces:,} candidates: {used:.1f} s of processor time")


def a_recipe(base: str, select: dict[str, Any]) -> Any:
    """Return a recipe of one domain."""
    domain = {
        "problems": [{"source": "generator:arithmetic", "count": 1}],
        "verifier": "math",
        "select": select,
    }
    data = {
        "name": "benchmark",
        "base": base,
        "domains": {"math": domain},
        "teachers": [{"name": name, "scripted": {}} for name in TEACHERS],
    }
    return parse_recipe(data, where="benchmark")


def the_stage(parts: Sequence[str], characters: int, base: str, traces: int) -> None:
    """Print wall time and peak memory of the stage."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as resources:
        run = Run(Path(folder), a_recipe(base, {"language": "en"}))
        rows = lambda teacher: (  # noqa: E731 - written to a file, never held
            a_trace(reasoning(parts, characters=characters, seed=number), number)
            for number in range(traces)
            if TEACHERS[number % 2] == teacher
        )
        for teacher in TEACHERS:
            write_rows(run.traces("math", teacher), rows(teacher), Trace)
        problems = [
            Problem(f"p{n}", "math", "test", QUESTION, QUESTION, "math", "22", None, "{}")
            for n in range(-(-traces // 4))
        ]
        write_rows(run.problems("math"), problems, Problem)
        verdicts = [a_verdict(number) for number in range(traces)]
        write_rows(run.verdicts("math"), verdicts, Verdict)
        (task,) = tasks(run, resources)
        begin, used = time.perf_counter(), time.process_time()
        counts = execute(run, task)
        seconds, used = time.perf_counter() - begin, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\nstage, {traces:,} traces of about {characters:,} characters: {seconds:.0f} s, "
        f"{used / traces * 1000:.1f} ms of processor time a trace, {peak:,.0f} MB; {dict(counts)}"
    )


def a_verdict(number: int) -> Verdict:
    """Return the verdict `correct` on trace `number`."""
    return Verdict(
        f"{number:08}", f"p{number // 4}", "math", "correct", "equal", "22", "22", None, "-", 0.0
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--base", required=True, help="whose tokenizer counts")
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--traces", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=100_000)
    given = parser.parse_args()
    parts, characters = paragraphs(given.texts), given.tokens * CHARACTERS_A_TOKEN
    each_filter(parts, characters, given.base, min(200, given.traces))
    the_choice(given.candidates)
    the_stage(parts, characters, given.base, given.traces)


if __name__ == "__main__":
    main()
