"""What a training takes of memory and time: the estimate beside what was measured.

    python benchmarks/memory.py
    python benchmarks/memory.py --shapes llama,qwen3 --json

Trains random models of small shapes on random rows, each in a process of its own exactly as a
run starts it (`python -m cuvee.train.sft`), and prints a Markdown table. Measured is the
process's peak resident memory, less that of the same process with a model of 0.09 million
weights: imports, tokenizer, trainer and threads stand in both. `--model FOLDER` trains a real
checkpoint instead. Not here: GPUs, and several processes.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM

from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.random_model import Architecture, write_random_model
from cuvee.models.shape import ModelShape
from cuvee.models.tokens import encode_example
from cuvee.recipe import Train
from cuvee.records import Example, write_rows
from cuvee.train.duration import measure_speed, seconds
from cuvee.train.job import Job, prepare
from cuvee.train.memory import Memory, estimate

ROWS = 6


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model and how it is trained."""

    architecture: Architecture
    sizes: dict[str, int]
    tokens: int
    """Of each row."""
    train: dict[str, Any]


def sizes(hidden: int, inner: int, layers: int, heads: int, vocabulary: int) -> dict[str, int]:
    """Return a configuration's sizes; two key-value heads, heads of 64."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": vocabulary,
    }


TINY = Shape("llama", {}, 100, {})
SHAPES = {
    "llama": Shape("llama", sizes(256, 704, 8, 4, 8192), 480, {"gradient_checkpointing": False}),
    "qwen2": Shape("qwen2", sizes(512, 1408, 8, 8, 2048), 400, {"gradient_checkpointing": True}),
    "qwen3": Shape(
        "qwen3",
        sizes(256, 704, 4, 4, 1024),
        1500,
        {"gradient_checkpointing": False, "precision": "bf16"},
    ),
    "packed": Shape(
        "llama",
        sizes(256, 704, 6, 4, 1024),
        500,
        {"gradient_checkpointing": True, "packing": True, "max_tokens": 2048},
    ),
    "lora": Shape(
        "qwen2",
        sizes(512, 1408, 6, 8, 2048),
        900,
        {"gradient_checkpointing": False, "lora": {"rank": 8}},
    ),
}
"""Name -> what is trained; small enough for seconds on two cores."""


def main() -> None:
    """Measure the shapes, print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--shapes", default=",".join(SHAPES), help="separated by commas")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a checkpoint instead")
    parser.add_argument("--tokens", type=int, default=1024, help="of a row, with --model")
    parser.add_argument("--set", default="{}", help="keys of train: as JSON, with --model")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    given = parser.parse_args()
    names = given.shapes.split(",")
    if unknown := sorted(set(names) - set(SHAPES)):
        parser.error(f"--shapes: {', '.join(unknown)}; known are {', '.join(SHAPES)}")
    chosen = {name: SHAPES[name] for name in names}
    if given.model:
        chosen = {given.model.name: Shape("llama", {}, given.tokens, json.loads(given.set))}
    with tempfile.TemporaryDirectory() as place:
        baseline, _ = measured(TINY, Path(place) / "tiny", None)
        rows = []
        for name, shape in chosen.items():
            row = compared(name, shape, Path(place) / name, given.model)
            rows.append({**row, "baseline": baseline, "growth": row["peak"] - baseline})
            if given.json:
                print(json.dumps(rows[-1]), flush=True)
    if not given.json:
        print("\n".join(table(rows)))


def compared(name: str, shape: Shape, folder: Path, model: Path | None) -> dict[str, Any]:
    """Train one shape; return estimate and measurement, bytes and seconds."""
    peak, took = measured(shape, folder, model)
    base = model or folder / "base"
    train, lengths = settings(shape), row_lengths(shape, base)
    sized = ModelShape.of(base)
    memory = estimate(sized, train, lengths=lengths, processes=1, device="cpu")
    speed = measure_speed(train, device="cpu")
    expected = seconds(
        sized,
        tokens=sum(lengths) * int(train.epochs),
        row=max(lengths),
        train=train,
        processes=1,
        speed=speed,
    )
    return {
        "name": name,
        "parameters": sized.parameters,
        "peak": peak,
        "seconds": took,
        "seconds_estimated": expected,
        "estimated": memory.total,
        "estimated_growth": memory.total - tiny_estimate().total,
        **{part: getattr(memory, part) for part in PARTS},
        "moment": memory.moment,
    }


PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "overhead")


def tiny_estimate() -> Memory:
    """Return the estimate for the model whose process is the baseline."""
    with tempfile.TemporaryDirectory() as place:
        write_random_model(Path(place))
        shape = ModelShape.of(Path(place))
        return estimate(shape, settings(TINY), lengths=[TINY.tokens], processes=1, device="cpu")


def measured(shape: Shape, folder: Path, model: Path | None) -> tuple[int, float]:
    """Train a shape in a process of its own; return its peak bytes and its training's seconds."""
    base = model or folder / "base"
    if model is None:
        make(shape, base)
    examples = folder / "examples.parquet"
    folder.mkdir(exist_ok=True)
    write_rows(examples, rows_of(shape, base), Example)
    job = Job(base, examples, folder / "work", settings(shape), seed=3)
    command = [sys.executable, "-m", "cuvee.train.sft", str(prepare(job))]
    environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    log = folder / "log.txt"
    with log.open("w") as errors, (folder / "told.txt").open("w") as told:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=told, stderr=errors
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: {(folder / 'told.txt').read_text()}{log.read_text()}")
    steps = [json.loads(line) for line in job.log.read_text().splitlines()]
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    return used.ru_maxrss * 1024, sum(step["seconds"] for step in steps)


def make(shape: Shape, base: Path) -> None:
    """Write a random checkpoint of a shape; its tokenizer knows the first 265 tokens."""
    write_random_model(base, architecture=shape.architecture)
    file = base / "config.json"
    config = json.loads(file.read_text()) | shape.sizes
    if "layer_types" in config:
        config["layer_types"] = ["full_attention"] * config["num_hidden_layers"]
    file.write_text(json.dumps(config))
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).save_pretrained(base)


def rows_of(shape: Shape, base: Path) -> list[Example]:
    """Return rows of about so many tokens each, nearly all of them inside the loss."""
    tokenizer = load_tokenizer(base)
    empty = len(encode_example(tokenizer, "Q?", "0", "A").input_ids)
    words = " ".join(str(number % 10) for number in range(shape.tokens))
    per_token = len(tokenizer(words).input_ids) / len(words)
    text = words[: int((shape.tokens - empty) / per_token)]
    return [
        Example(f"row{n}", f"p{n}", "math", "alice", "Q?", f"{n}{text}", "A", 0)
        for n in range(ROWS)
    ]


def settings(shape: Shape) -> Train:
    """Return `train:` of a shape: two micro-batches a step, three steps."""
    train = {
        "epochs": 2 if shape.train.get("packing") else 1,
        "batch_size": 1 if shape.train.get("packing") else 2,
        "max_tokens": shape.tokens + 8,
        "packing": False,
        "precision": "fp32",
        "warmup": 0,
        "learning_rate": 1e-3,
    }
    return Train.model_validate(train | shape.train)


def row_lengths(shape: Shape, base: Path) -> list[int]:
    """Return the tokens of the rows as they are trained."""
    tokenizer = load_tokenizer(base)
    rows = rows_of(shape, base)
    one = [len(encode_example(tokenizer, r.prompt, r.reasoning, r.answer).input_ids) for r in rows]
    if not shape.train.get("packing"):
        return one
    together = settings(shape).max_tokens // one[0]
    return [sum(one[start : start + together]) for start in range(0, len(one), together)]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return a Markdown table in MB and seconds."""
    head = ["shape", "weights (M)", *PARTS, "growth est.", "growth meas.", "ratio", "s est.", "s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        parts = [f"{row[part] / 1e6:.0f}" for part in PARTS]
        cells = [row["name"], f"{row['parameters'] / 1e6:.1f}", *parts]
        cells += [f"{row['estimated_growth'] / 1e6:.0f}", f"{row['growth'] / 1e6:.0f}"]
        cells += [f"{row['estimated_growth'] / row['growth']:.2f}"]
        cells += [f"{row['seconds_estimated']:.1f}", f"{row['seconds']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", f"MB; baseline measured: {rows[0]['baseline'] / 1e6:.0f}"]


if __name__ == "__main__":
    main()
