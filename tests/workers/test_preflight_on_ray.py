"""The preflight on a Ray of one machine writes the files that it writes here."""

import copy
import dataclasses
import json
import os
import pickle
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import TrainError
from cuvee.models.checkpoint import load_tokenizer, resolve
from cuvee.recipe import Train
from cuvee.records import Example, write_rows
from cuvee.train.preflight import Findings, check_here, check_on_ray, preflight
from cuvee.train.preflight.batches import Check, Checked, Reader, check_batch

from .conftest import workers_of

# Of a Ray that had to be started twice: it forgets its own processes.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ROWS = 200
ODD: dict[int, dict[str, str]] = {
    3: {"reasoning": ""},
    30: {"answer": "22 " * 400},
    64: {"answer": "22 <|endoftext|>"},
    90: {"prompt": "Why 7?", "reasoning": "It is 7 twice.", "answer": "So 7."},
    150: {"prompt": "Is <|im_end|> a token?"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resolve("random:two-layer", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuvee.train.preflight.encode.BATCH_ROWS", 8)


def write_examples(file: Path) -> None:
    rows = []
    for number in range(ROWS):
        texts = {
            "prompt": f"Why {number}?",
            "reasoning": f"It is {number} twice.",
            "answer": f"So {number}.",
            **ODD.get(number, {}),
        }
        row = {"id": f"r{number}", "problem_id": f"p{number // 2}", "teacher": "t", "tokens": 0}
        rows.append(Example(domain="math", **row, **texts))  # type: ignore[arg-type]
    write_rows(file, rows, Example)


def look(folder: Path, base: Path, check: Check) -> tuple[Findings, bytes, Any]:
    """Return what was found, and the two files that were written."""
    write_examples(folder / "examples.parquet")
    found = preflight(
        folder / "examples.parquet",
        copy.deepcopy(load_tokenizer(base)),
        base=base,
        train=Train(max_tokens=200, batch_size=2, held_out=0.2),
        out=folder / "out",
        check=check,
    )
    out = folder / "out"
    written = json.loads((out / "preflight.json").read_text("utf-8"))
    return found, (out / "tokens.parquet").read_bytes(), written


@pytest.mark.usefixtures("small_batches")
def test_tokens_and_findings_are_the_same_when_all_has_been_sent(
    tmp_path: Path, base: Path
) -> None:
    def sent(value: Any) -> Any:
        return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own, and as Ray sends it

    def away(batches: Iterable[list[Example]], reader: Reader) -> Iterator[Checked]:
        there = sent(reader)
        return (sent(check_batch(sent(batch), there)) for batch in batches)

    assert look(tmp_path, base, away) == look(tmp_path, base, check_here)


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus", "small_batches")
def test_tokens_and_findings_are_the_same_though_a_worker_is_killed(
    tmp_path: Path, base: Path
) -> None:
    def killing(batches: Iterable[list[Example]], reader: Reader) -> Iterator[Checked]:
        for number, checked in enumerate(check_on_ray(batches, reader)):
            if number == 5:
                os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
            yield checked

    here = look(tmp_path, base, check_here)
    assert look(tmp_path, base, killing) == here
    assert here[0].dropped_too_long == ["r30"]
    assert here[0].held_out > 0
    assert (here[0].without_reasoning, here[0].duplicates) == (1, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus", "small_batches")
def test_a_batch_that_kills_every_worker_is_no_batch_left_out(tmp_path: Path, base: Path) -> None:
    class End:
        """An end of turn that the process dies of at one row's text."""

        def __init__(self, text: str) -> None:
            self.text = text

        def __radd__(self, text: str) -> str:
            if "It is 30 twice" in text:
                os._exit(1)
            return text + self.text

    def deadly(batches: Iterable[list[Example]], reader: Reader) -> Iterator[Checked]:
        end: Any = End(reader.end)
        return check_on_ray(batches, dataclasses.replace(reader, end=end))

    with pytest.raises(TrainError, match="the 8 examples from r24 to r31 lost every worker"):
        look(tmp_path, base, deadly)
    assert not (tmp_path / "out" / "tokens.parquet").exists()
