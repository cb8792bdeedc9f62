"""How good a judge is: it grades solutions whose reasoning people have labelled.

    python benchmarks/judge.py --data DATA --gguf judge.gguf --ledger judge.sqlite
    python benchmarks/judge.py --data DATA --url https://host/v1 --model NAME --key-env KEY ...

DATA holds `outputs_mr_gsm8k/*.json` (MR-GSM8K: answers of two models, all with wrong reasoning;
some state the right result all the same) and `outputs_champ/*.jsonl` (CHAMP: the first wrong step
of four models' solutions, or none found). As MR-GSM8K's models have no right solution here, its
reference solutions stand for those: written by people, so told apart by style as well. A seeded
sample of each group is graded by the default rubric; a solution is flagged where the grade of the
first point (reasoning) is below a threshold. Prints Markdown: precision and recall of "this
reasoning is wrong" with 95 % Wilson intervals, and what the judge does with the same text twice,
with padding, and with pairs in both orders. Answers are kept in the ledger: the same command goes
on where it ended. What was not judged is in no rate, and counted.
"""

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cuvee.errors import CuveeError
from cuvee.evaluate.statistics.intervals import wilson_interval
from cuvee.models.engines import engine_identity, serve
from cuvee.recipe import Sampling, Serve, Teacher
from cuvee.recipe.rubric import DEFAULT_POINTS
from cuvee.records import Trace, content_hash
from cuvee.teach.client import Books, Endpoint, Request, ask, request_seed
from cuvee.teach.endpoints import find_remote
from cuvee.teach.ledger import Ledger
from cuvee.verify.judge_bias import (
    Changes,
    Swaps,
    count_changes,
    count_swaps,
    pad,
    pair_message,
    read_choice,
)
from cuvee.verify.judge_rubric import Solution, grade_of, rubric_message

LONGEST = 2500
"""Characters of a solution; longer ones are left out, and counted."""
THRESHOLDS = (2, 3, 4, 5)
FLAGGED_BELOW = 4


@dataclass(frozen=True)
class Row:
    """A solution and what people say of its reasoning."""

    group: str
    wrong: bool
    question: str
    text: str


Tell = Callable[[Sequence[tuple[str, str]]], list[Trace]]
"""(id, message) pairs -> the judge's answers in order."""


def plain(text: str) -> str:
    """Return a GSM8K solution without calculator marks, step numbers and the last line's `####`."""
    text = re.sub(r"<<[^>]*>>", "", text)
    text = re.sub(r"^Step \d+:\s*", "", text, flags=re.MULTILINE)
    return re.sub(r"^#### *(.*)$", r"The answer is \1.", text, flags=re.MULTILINE).strip()


def mr_gsm8k(folder: Path) -> list[Row]:
    """Return wrong solutions, each text once, and the reference solutions of their questions."""
    rows: dict[tuple[str, str], Row] = {}
    for file in sorted((folder / "outputs_mr_gsm8k").glob("*.json")):
        for found in json.loads(file.read_text(encoding="utf-8")):
            question = found["question"]
            text = plain("\n".join(found["model_output_steps"]))
            right = found["model_output_answer_correctness"] == "correct"
            group = f"mr_gsm8k, {'right' if right else 'wrong'} answer"
            wrong = found["model_output_solution_correctness"] == "wrong"
            rows[question, text] = Row(group, wrong, question, text)
            reference = plain(found["ground_truth_solution"])
            if reference and found["question_type"] == "original":
                rows[question, reference] = Row(
                    "mr_gsm8k, reference", wrong=False, question=question, text=reference
                )
    return list(rows.values())


def champ(folder: Path) -> list[Row]:
    """Return solutions with a wrong step, and those in which none was found."""
    file = folder / "outputs_champ" / "champ_first_wrong_step.jsonl"
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    rows = {(row["problem"], row["solution"]): row for row in found}
    return [
        Row(
            f"champ, {'no' if row['first_wrong_text'] is None else 'a'} wrong step",
            row["first_wrong_text"] is not None,
            row["problem"],
            row["solution"].strip(),
        )
        for row in rows.values()
    ]


def sample(rows: Sequence[Row], *, each: int, seed: int) -> list[Row]:
    """Return a seeded sample of up to `each` rows of every group; say what there was."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    drawn: list[Row] = []
    for group, members in groups.items():
        fit = [row for row in members if len(row.text) <= LONGEST]
        taken = random.Random(content_hash(seed, group)).sample(fit, min(each, len(fit)))
        left_out = len(members) - len(fit)
        print(f"- {group}: {len(taken)} of {len(members)} ({left_out} too long)", flush=True)
        drawn += taken
    return drawn


def judge_of(arguments: argparse.Namespace, resources: ExitStack) -> Endpoint:
    """Return the judge; one of a file is started, and ends with `resources`."""
    if arguments.url:
        teacher = Teacher(
            name="judge",
            url=arguments.url,
            model=arguments.model,
            key_env=arguments.key_env,
            concurrency=arguments.slots,
        )
        return find_remote(teacher).endpoint
    spec = Serve(slots=arguments.slots, context=2048, threads=arguments.threads)
    identity = engine_identity(spec, arguments.gguf)
    folder = Path(arguments.ledger).expanduser().absolute().parent
    engine = resources.enter_context(serve(spec, arguments.gguf, name="judge", folder=folder))
    return Endpoint("judge", engine.url, engine.model, identity, concurrency=arguments.slots)


def teller(endpoint: Endpoint, ledger: Ledger, arguments: argparse.Namespace) -> Tell:
    """Return what asks the judge."""
    sampling = Sampling(temperature=arguments.temperature, max_tokens=arguments.max_tokens)

    def tell(messages: Sequence[tuple[str, str]]) -> list[Trace]:
        requests = [
            Request(name, "judge", 0, message, request_seed(arguments.seed, message, 0))
            for name, message in messages
        ]
        books = Books(ledger, content_hash("benchmarks/judge.py"))
        return list(ask(endpoint, requests, sampling=sampling, books=books))

    return tell


@dataclass(frozen=True)
class Graded:
    """What the judge said of one solution."""

    reasoning: float | None
    """Grade of the first point of the rubric; None: not judged."""
    lowest: float | None
    reason: str


def grade(
    rows: Sequence[Row], tell: Tell, *, points: Sequence[str], again: str = ""
) -> list[Graded]:
    """Return what the judge says of each row; another `again` asks anew about the same text."""
    solutions = [
        Solution(content_hash(row.question, row.text, again), "", "judge", row.question, row.text)
        for row in rows
    ]
    answers = tell([(s.trace_id, rubric_message(s, points)) for s in solutions])
    found = [grade_of(answer, [answer], points=len(points)) for answer in answers]
    return [Graded((json.loads(g.points) or [None])[0], g.grade, g.reason) for g in found]


def rate(count: int, of: int) -> str:
    """Return a share with its 95 % Wilson interval."""
    if of == 0:
        return "- (n 0)"
    low, high = wilson_interval(np.array([1.0] * count + [0.0] * (of - count)), samples=of)
    return f"{count / of:.2f} [{low:.2f}, {high:.2f}] ({count} of {of})"


def groups_table(rows: Sequence[Row], grades: Sequence[Graded]) -> list[str]:
    """Return a line a group: the grades of the reasoning, and what was not judged."""
    lines = ["| group | reasoning | not judged | 1 | 2 | 3 | 4 | 5 | mean |", "|---" * 9 + "|"]
    for group in dict.fromkeys(row.group for row in rows):
        own = [(row, g) for row, g in zip(rows, grades, strict=True) if row.group == group]
        said = [g.reasoning for _, g in own if g.reasoning is not None]
        counts = " | ".join(str(said.count(value)) for value in range(1, 6))
        mean = f"{sum(said) / len(said):.2f}" if said else "-"
        label = "wrong" if own[0][0].wrong else "right"
        lines.append(f"| {group} | {label} | {len(own) - len(said)} | {counts} | {mean} |")
    return lines


def detection_table(rows: Sequence[Row], grades: Sequence[Graded]) -> list[str]:
    """Return precision and recall of flagging wrong reasoning, a line a set and threshold."""
    head = "| set | flagged below | precision | recall | wrong among the judged |"
    lines = [head, "|---" * 5 + "|"]
    for name in dict.fromkeys(row.group.split(",")[0] for row in rows):
        own = [
            (row.wrong, g.reasoning)
            for row, g in zip(rows, grades, strict=True)
            if row.group.startswith(name) and g.reasoning is not None
        ]
        wrong = sum(is_wrong for is_wrong, _ in own)
        for threshold in THRESHOLDS:
            flagged = [is_wrong for is_wrong, said in own if said < threshold]
            hit = sum(flagged)
            shares = f"{rate(hit, len(flagged))} | {rate(hit, wrong)} | {rate(wrong, len(own))}"
            lines.append(f"| {name} | {threshold} | {shares} |")
    return lines


def right_answers(rows: Sequence[Row], grades: Sequence[Graded]) -> str:
    """Return the recall on what no check of answers can find."""
    said = [
        g.reasoning
        for row, g in zip(rows, grades, strict=True)
        if row.group == "mr_gsm8k, right answer" and g.reasoning is not None
    ]
    flagged = sum(value < FLAGGED_BELOW for value in said)
    found = rate(flagged, len(said))
    return f"Right answer, wrong reasoning: flagged (below {FLAGGED_BELOW}) {found}."


def pairs_of(rows: Sequence[Row], *, most: int) -> list[tuple[str, str, str]]:
    """Return (question, reference, wrong solution) of MR-GSM8K's questions that have both."""
    right = {row.question: row.text for row in rows if row.group == "mr_gsm8k, reference"}
    found = [
        (r.question, right[r.question], r.text) for r in rows if r.wrong and r.question in right
    ]
    return sorted(found, key=lambda pair: content_hash(*pair))[:most]


def change_line(name: str, found: Changes) -> str:
    """Return a line of the table of biases: grades asked for twice."""
    n = found.pairs
    shares = f"{rate(found.same, n)} | {rate(found.raised, n)} | {rate(found.lowered, n)}"
    return f"| {name} | {shares} | {found.not_judged} |"


def swap_lines(found: Swaps) -> list[str]:
    """Return the table of pairs in both orders."""
    shares = (found.consistent, found.always_first, found.always_second, found.undecided)
    cells = " | ".join(rate(share, found.pairs) for share in shares)
    head = "| same choice | always first | always second | undecided | not judged |"
    return [head, "|---" * 5 + "|", f"| {cells} | {found.not_judged} |"]


def biases(
    rows: Sequence[Row],
    grades: Sequence[Graded],
    *,
    pairs: Sequence[tuple[str, str, str]],
    tell: Tell,
    points: Sequence[str],
) -> list[str]:
    """Return the tables of biases: the same rows twice, padded, and pairs in both orders."""
    before = [g.lowest for g in grades]
    twice = [g.lowest for g in grade(rows, tell, points=points, again="again")]
    padded = [replace(row, text=pad(row.text, seed=0)) for row in rows]
    longer = [g.lowest for g in grade(padded, tell, points=points)]
    as_given = tell([(content_hash(*p), pair_message(*p)) for p in pairs])
    swapped = [(question, second, first) for question, first, second in pairs]
    in_turn = tell([(content_hash(*p), pair_message(*p)) for p in swapped])
    choices = [
        [None if t.error else read_choice(t.answer) for t in ts] for ts in (as_given, in_turn)
    ]
    return [
        "| lowest point | the same | higher | lower | not judged |",
        "|---" * 5 + "|",
        change_line("same text twice", count_changes(before, twice)),
        change_line("padded", count_changes(before, longer)),
        "",
        *swap_lines(count_swaps(*choices)),
    ]


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    judge = parser.add_mutually_exclusive_group(required=True)
    judge.add_argument("--gguf", help="a model file, served here")
    judge.add_argument("--url", help="an OpenAI-style server, ending in /v1")
    parser.add_argument("--model", help="the model's name at --url")
    parser.add_argument("--key-env", help="environment variable with the key of --url")
    parser.add_argument("--ledger", default="judge.sqlite")
    parser.add_argument("--each", type=int, default=12, help="rows of each of the five groups")
    parser.add_argument("--biases", type=int, default=8, help="rows, and pairs, for the biases")
    parser.add_argument("--points", type=int, default=3, help="points of the default rubric")
    parser.add_argument("--max-tokens", type=int, default=120)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slots", type=int, default=2, help="requests at once")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.url and not arguments.model:
        parser.error("--url needs --model")
    return arguments


def main() -> None:
    """Sample, ask, print."""
    arguments, begin = read_arguments(), time.monotonic()
    points = DEFAULT_POINTS[: arguments.points]
    every = [*mr_gsm8k(arguments.data), *champ(arguments.data)]
    rows = sample(every, each=arguments.each, seed=arguments.seed)
    order = random.Random(arguments.seed).sample(range(len(rows)), min(arguments.biases, len(rows)))
    with ExitStack() as resources:
        ledger = resources.enter_context(Ledger.open(arguments.ledger))
        tell = teller(judge_of(arguments, resources), ledger, arguments)
        grades = grade(rows, tell, points=points)
        print("", *groups_table(rows, grades), "", *detection_table(rows, grades), sep="\n")
        print("", right_answers(rows, grades), "", sep="\n", flush=True)
        if order:
            some = [rows[at] for at in order]
            pairs = pairs_of([r for r in every if len(r.text) <= LONGEST], most=arguments.biases)
            given = [grades[at] for at in order]
            found = biases(some, given, pairs=pairs, tell=tell, points=points)
            print(*found, sep="\n")
    print(f"\n{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except CuveeError as error:
        sys.exit(f"judge: {error}")
