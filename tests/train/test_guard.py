"""A loss that breaks stops the training and names its rows: packed, padded, in any process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from cuvee.errors import TrainError
from cuvee.train.guard import FEWEST, Step, broken, rows_with
from cuvee.train.job import Job
from cuvee.train.preflight import PACKING

pytestmark = pytest.mark.filterwarnings(
    "ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"
)
NAN = float("nan")


def logs(loss: float, norm: float = 1.0) -> dict[str, float]:
    return {"loss": loss, "grad_norm": norm, "learning_rate": 1e-5}


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (logs(20.1), [2.0] * FEWEST, "the loss is 20.1, more than train.max_spike = 10 times 2,"),
        (logs(20.0), [2.0] * FEWEST, None),
        (logs(20.1), [2.0] * (FEWEST - 1), None),
        (logs(20.1), [2.0] * 100 + [3.0] * 100, None),  # the last hundred alone count
        (logs(20.1), [2.0] * 6 + [500.0] * 4, "times 2, the median of the 10 steps before"),
        (logs(NAN), [], "the loss is nan"),
        (logs(float("inf")), [1.0] * 50, "the loss is inf"),
        (logs(2.0, NAN), [], r"the gradient is nan (the loss 2)"),
    ],
)
def test_a_step_is_broken_where_its_loss_is_many_times_the_median_or_no_number(
    now: dict[str, float], before: list[float], words: str | None
) -> None:
    said = broken(now, before, max_spike=10.0)
    assert (said is None) if words is None else (said is not None and words in said)


def test_without_a_limit_only_what_is_no_number_is_broken() -> None:
    assert broken(logs(1e9), [1.0] * 50, max_spike=None) is None
    assert broken(logs(NAN), [1.0] * 50, max_spike=None) is not None


def rows_file(folder: Path, rows: dict[str, list[int]]) -> Path:
    schema = pa.schema([("id", pa.string()), ("input_ids", pa.list_(pa.int32()))])
    table = {"id": list(rows), "input_ids": list(rows.values())}
    pq.write_table(pa.table(table, schema=schema), folder / "tokens.parquet")
    return folder / "tokens.parquet"


def test_the_rows_of_a_batch_are_found_by_their_tokens(tmp_path: Path) -> None:
    rows = {f"row{n}": [7 * n + k for k in range(3 + n)] for n in range(9)}
    file = rows_file(tmp_path, rows)
    data = Dataset.from_dict({"input_ids": list(rows.values()), "labels": list(rows.values())})
    packed = pack_dataset(data, 16, PACKING)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    found = []
    for row in packed:
        step = Step()
        step.add(collate([row]), torch.tensor(1.0))
        found.append(rows_with(step.worst_first(), file))
    by_length = {len(tokens): name for name, tokens in rows.items()}
    assert found == [[by_length[n] for n in row["seq_lengths"]] for row in packed]
    assert sorted(name for names in found for name in names) == sorted(rows)


def test_padded_rows_are_found_and_the_worst_pass_comes_first(tmp_path: Path) -> None:
    rows = {"a": [5, 6], "b": [5, 6, 0], "c": [8], "d": [9, 9, 9, 9]}
    file = rows_file(tmp_path, rows)
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    step = Step()
    for names, loss in [("ab", 0.1), ("c", NAN), ("d", 0.7)]:
        batch = collate([{"input_ids": rows[name]} for name in names])
        step.add(batch, torch.tensor(loss))
    assert rows_with(step.worst_first(), file) == ["c", "d", "a", "b"]


def test_rows_with_the_same_tokens_are_both_named(tmp_path: Path) -> None:
    file = rows_file(tmp_path, {"a": [5, 6], "twin": [5, 6], "c": [8]})
    tokens = torch.tensor([5, 6], dtype=torch.int32).numpy().tobytes()
    assert rows_with([tokens], file) == ["a", "twin"]


@pytest.mark.parametrize("packing", [True, False])
def test_a_training_that_breaks_names_all_rows_of_the_step(
    make_job: Callable[..., Job], run_job: Callable[..., Any], *, packing: bool
) -> None:
    job = make_job(5, learning_rate=1e30, epochs=4, batch_size=5, packing=packing)
    with pytest.raises(TrainError, match=r"the (loss|gradient) is (nan|inf)(.|\n)*Its 5 rows"):
        run_job(job)
    report = json.loads((job.folder / "broken_step.json").read_text())
    assert sorted(report["rows"]) == [f"row{n}" for n in range(5)]
    assert report["step"] == 2


def test_a_spike_stops_and_a_larger_limit_goes_on_from_the_checkpoint(
    make_job: Callable[..., Job], run_job: Callable[..., Any]
) -> None:
    # The rows differ, so that some loss is above the median of the ten before it.
    job = make_job(12, epochs=4, learning_rate=1e-6, batch_size=1, packing=False, max_spike=1.0001)
    with pytest.raises(TrainError, match=r"a larger train\.max_spike goes on") as stopped:
        run_job(job)
    report = json.loads((job.folder / "broken_step.json").read_text())
    assert len(report["rows"]) == 1
    assert report["rows"][0] in str(stopped.value)
    assert report["step"] > FEWEST

    loosened = job.train.model_copy(update={"max_spike": None})
    summary, told = run_job(Job(job.base, job.examples, job.folder, loosened, job.seed))
    assert told[0]["done"] == (report["step"] - 1) // 3 * 3  # save_every is 3
    assert summary["steps"] == 48
