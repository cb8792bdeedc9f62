"""How fast the preflight is, and what it takes of memory, beside tokenising and nothing else.

    python benchmarks/preflight.py --data ../shared/data --model HuggingFaceTB/SmolLM2-135M
    python benchmarks/preflight.py --data ../shared/data --model FOLDER --rows 1000

Examples are worked solutions of GSM8K's training set put together at random (seeded) until the
row has about `--tokens` tokens; four of them share a prompt. `preflight` does all of it: reads
the Parquet file, renders, tokenises, checks, writes `tokens.parquet` and `preflight.json`.
`bare` is the limit: the fast tokenizer's `encode_batch` on the same texts, rendered beforehand,
in batches of the same size, whose result is thrown away. Each in a process of its own. Prints a
Markdown table: seconds, seconds of all cores, tokens a second, peak memory, and the ratios. Not
here: tokenizers against each other, and `datasets`' or TRL's own tokenising.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cuvee.models.adapted import load_adapted
from cuvee.models.checkpoint import resolve
from cuvee.models.template import end_of_turn, render_prompt, target_text
from cuvee.models.tokens import text_ids
from cuvee.recipe import Train
from cuvee.records import Example, iter_rows, write_rows
from cuvee.train.preflight import TOKENS, preflight
from cuvee.train.preflight.encode import in_batches

WAYS = ("bare", "preflight")
SAMPLES = 4
"""Examples of one prompt."""


def examples(data: Path, model: Path, *, rows: int, tokens: int, seed: int) -> Iterator[Example]:
    """Yield examples of about so many tokens each."""
    lines = (data / "gsm8k" / "train.jsonl").read_text("utf-8").splitlines()
    problems = [json.loads(line) for line in lines]
    tokenizer = load_adapted(model)
    sample = "\n".join(problem["answer"] for problem in problems[:200])
    solutions = round(tokens / (len(text_ids(tokenizer, sample)) / 200))
    rng = random.Random(seed)
    for number in range(rows):
        question = problems[number // SAMPLES % len(problems)]["question"]
        reasoning = "\n".join(p["answer"] for p in rng.choices(problems, k=solutions))
        yield Example(
            id=f"{number:016x}",
            problem_id=f"{number // SAMPLES:016x}",
            domain="math",
            teacher="gsm8k",
            prompt=question,
            reasoning=reasoning,
            answer="That is all.",
            tokens=0,
        )


def bare(file: Path, model: Path) -> tuple[float, float, int]:
    """Tokenise the texts of a file; return seconds, seconds of all cores, and tokens."""
    tokenizer = load_adapted(model)
    backend, end = tokenizer.backend_tokenizer, end_of_turn(tokenizer)
    seconds = processor = 0.0
    tokens = 0
    for batch in in_batches(iter_rows(file, Example)):
        prompts = [render_prompt(tokenizer, example.prompt) for example in batch]
        texts = [
            prompt + target_text(prompt, example.reasoning, example.answer) + end
            for prompt, example in zip(prompts, batch, strict=True)
        ]
        start, begun = time.perf_counter(), time.process_time()
        found = backend.encode_batch(texts, add_special_tokens=False)
        seconds += time.perf_counter() - start
        processor += time.process_time() - begun
        tokens += sum(map(len, found))
    return seconds, processor, tokens


def whole(file: Path, model: Path, out: Path) -> tuple[float, float, int]:
    """Run the preflight; return seconds, seconds of all cores, and tokens."""
    tokenizer = load_adapted(model)
    train = Train(max_tokens=8192, held_out=0.02)
    start, begun = time.perf_counter(), time.process_time()
    findings = preflight(file, tokenizer, base=model, train=train, out=out)
    seconds, processor = time.perf_counter() - start, time.process_time() - begun
    held_out = findings.kept - findings.held_out
    return seconds, processor, round(findings.tokens * findings.kept / held_out)


def measure(way: str, file: Path, model: Path) -> dict[str, float]:
    """Measure one way in this process."""
    if way == "bare":
        seconds, processor, tokens = bare(file, model)
    else:
        seconds, processor, tokens = whole(file, model, file.parent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "processor": processor, "tokens": tokens, "peak": peak}


def apart(way: str, file: Path, model: Path) -> dict[str, float]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--file", str(file), "--model", str(model)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Write the examples, measure both ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="folder with gsm8k/train.jsonl")
    parser.add_argument("--model", required=True, help="whose tokenizer: hub id, folder, .gguf")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=4_000, help="of a row, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = resolve(given.model, weights=False)
    if given.way:
        print(json.dumps(measure(given.way, given.file, model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.parquet"
        rows = examples(given.data, model, rows=given.rows, tokens=given.tokens, seed=given.seed)
        write_rows(file, rows, Example)
        found = {way: apart(way, file, model) for way in WAYS}
        size = (file.parent / TOKENS).stat().st_size
    print(table(found, rows=given.rows, size=size))


def table(found: dict[str, dict[str, float]], *, rows: int, size: int) -> str:
    """Return the table, and how large the written file is."""
    lines = [
        f"| {rows:,} rows | seconds | of all cores | ratio | of all cores | tokens a second "
        "| peak MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for way, run in found.items():
        ratio = run["seconds"] / found["bare"]["seconds"]
        cores = run["processor"] / found["bare"]["processor"]
        lines.append(
            f"| {way} | {run['seconds']:.1f} | {run['processor']:.1f} | {ratio:.2f} "
            f"| {cores:.2f} | {run['tokens'] / run['seconds']:,.0f} | {run['peak']:,.0f} |"
        )
    tokens = found["preflight"]["tokens"]
    lines.append(f"\n{tokens:,.0f} tokens, {tokens / rows:,.0f} a row; {TOKENS}: {size:,} bytes")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
