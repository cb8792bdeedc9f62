"""A two-layer base and rows to train it on."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.random_model import write_random_model
from cuvee.recipe import Train
from cuvee.records import Example, write_rows
from cuvee.train.job import Job

MakeJob = Callable[..., Job]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_random_model(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(base)


def example(number: int, *, reasoning: str = "It is so.", answer: str = "So.") -> Example:
    return Example(
        id=f"row{number}",
        problem_id=f"problem{number}",
        domain="math",
        teacher="alice",
        prompt=f"Question {number}?",
        reasoning=reasoning,
        answer=answer,
        tokens=0,
    )


def sums(count: int) -> list[Example]:
    """Return rows of different lengths."""
    rng = random.Random(5)
    rows = []
    for number in range(count):
        terms = [rng.randint(1, 20) for _ in range(rng.randint(2, 6))]
        steps = " ".join(f"{sum(terms[:n])} + {t};" for n, t in enumerate(terms))
        rows.append(example(number, reasoning=steps, answer=rf"\boxed{{{sum(terms)}}}"))
    return rows


TINY = {
    "epochs": 2,
    "learning_rate": 1e-3,
    "batch_size": 2,
    "max_tokens": 256,
    "gradient_checkpointing": False,
    "save_every": 3,
}


@pytest.fixture
def make_job(base: Path, tmp_path: Path) -> MakeJob:
    """Return a maker of jobs; keywords override `train` settings."""

    def make(rows: list[Example], *, name: str = "work", **train: object) -> Job:
        examples = tmp_path / "examples.parquet"
        write_rows(examples, rows, Example)
        settings = Train.model_validate({**TINY, **train})
        return Job(base, examples, tmp_path / name, settings, seed=3)

    return make
