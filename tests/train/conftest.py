"""A two-layer base and rows to train it on."""

import io
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.random_model import write_random_model
from cuvee.recipe import Train
from cuvee.records import Example, write_rows
from cuvee.train.job import Job, prepare, read_job
from cuvee.train.sft import run


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_random_model(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(base)


def sum_rows(count: int) -> list[Example]:
    """Return examples of different lengths."""
    rng = random.Random(5)
    rows = []
    for number in range(count):
        terms = [rng.randint(1, 20) for _ in range(rng.randint(2, 6))]
        steps = " ".join(f"{sum(terms[:n])} + {t};" for n, t in enumerate(terms))
        answer = rf"\boxed{{{sum(terms)}}}"
        prompt = f"Question {number}?"
        rows.append(
            Example(f"row{number}", f"p{number}", "math", "alice", prompt, steps, answer, 0)
        )
    return rows


@pytest.fixture
def sums() -> Callable[[int], list[Example]]:
    return sum_rows


@pytest.fixture
def make_job(base: Path, tmp_path: Path) -> Callable[..., Job]:
    """Return a maker of jobs of so many rows; keywords override `train` settings."""

    def make(
        count: int, *, more: Sequence[Example] = (), name: str = "work", **train: object
    ) -> Job:
        examples = tmp_path / "examples.parquet"
        write_rows(examples, [*sum_rows(count), *more], Example)
        settings = {
            "epochs": 2,
            "learning_rate": 1e-3,
            "batch_size": 2,
            "max_tokens": 256,
            "gradient_checkpointing": False,
            "save_every": 3,
            "warmup": 0,  # else the first step, which may be the only one, moves nothing
        }
        return Job(base, examples, tmp_path / name, Train.model_validate(settings | train), seed=3)

    return make


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run torch on one thread, here and in processes started: two-layer models gain nothing."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run_job(one_thread: None) -> Callable[[Job], tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return a function that runs a job in this process: the summary, and what was told."""

    def run_it(job: Job) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        parent = io.StringIO()
        summary = run(read_job(prepare(job)), parent)
        told = [json.loads(line) for line in parent.getvalue().splitlines()]
        return summary, [line for line in told if "warning" not in line]

    return run_it
