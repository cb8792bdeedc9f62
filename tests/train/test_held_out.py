"""What is held out is never trained on, is measured exactly, and measuring changes nothing."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.tokens import IGNORED
from cuvee.train.guard import Step
from cuvee.train.held_out import watch_losses
from cuvee.train.job import Job
from cuvee.train.preflight import tokenised
from cuvee.train.watch import best_step, read_log

pytestmark = pytest.mark.filterwarnings(
    "ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"
)
MakeJob = Callable[..., Job]
RunJob = Callable[[Job], tuple[dict[str, Any], list[dict[str, Any]]]]


def mean_by_token(base: Path, job: Job) -> tuple[float, int]:
    """Return the held-out rows' mean loss over their trained tokens, and how many those are."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = pq.read_table(job.preflight / "tokens.parquet").to_pylist()
    total, tokens = 0.0, 0
    for row in rows:
        if row["held_out"]:
            labels = torch.tensor(row["labels"])[1:]
            with torch.no_grad():
                logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            total += functional.cross_entropy(
                logits, labels, ignore_index=IGNORED, reduction="sum"
            ).item()
            tokens += int((labels != IGNORED).sum())
    return total / tokens, tokens


@pytest.mark.parametrize("packing", [True, False])
def test_the_held_out_loss_is_the_mean_over_trained_tokens(
    make_job: MakeJob, run_job: RunJob, base: Path, *, packing: bool
) -> None:
    job = make_job(16, held_out=0.3, packing=packing, micro_batch=2, precision="fp32")
    summary, _ = run_job(job)
    lines = read_log(job.model / "held_out.jsonl")
    before, tokens = mean_by_token(base, job)
    assert lines[0] == {"step": 0, "loss": pytest.approx(before, rel=1e-5), "tokens": tokens}
    after, _ = mean_by_token(job.model, job)
    assert lines[-1]["step"] == summary["steps"]
    assert lines[-1]["loss"] == pytest.approx(after, rel=1e-5)
    assert (summary["held_out_loss_before"], summary["held_out_loss"]) == (
        lines[0]["loss"],
        lines[-1]["loss"],
    )


def test_the_loss_of_trl_is_weighed_by_tokens_as_well(
    make_job: MakeJob, run_job: RunJob, base: Path, tmp_path: Path
) -> None:
    # As on a GPU, where TRL's own loss stays.
    job = make_job(12, held_out=0.3, packing=False, epochs=1)
    run_job(job)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=SFTConfig(
            str(tmp_path), bf16=False, use_cpu=True, per_device_eval_batch_size=1,
            prediction_loss_only=True, report_to="none", max_length=256,
        ),
        train_dataset=tokenised(job.preflight, held_out=False),
        eval_dataset=tokenised(job.preflight, held_out=True),
        processing_class=load_tokenizer(base),
    )  # fmt: skip
    expected, tokens = mean_by_token(base, job)
    assert watch_losses(trainer, Step(), processes=1) == tokens
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_held_out_rows_are_not_trained_on(make_job: MakeJob, run_job: RunJob) -> None:
    job = make_job(16, held_out=0.3, epochs=1)
    _, told = run_job(job)
    rows = pq.read_table(job.preflight / "tokens.parquet").to_pylist()
    assert 0 < sum(row["held_out"] for row in rows) < 16
    assert told[-1]["tokens"] == sum(len(r["input_ids"]) for r in rows if not r["held_out"])


def test_measuring_changes_no_weight(make_job: MakeJob, run_job: RunJob) -> None:
    # Dropout draws random numbers at each step: a measurement must not draw some of its own.
    given = {"held_out": 0.3, "epochs": 3, "lora": {"rank": 2, "dropout": 0.3}}
    often = make_job(12, name="often", held_out_every=1, **given)
    seldom = make_job(12, name="seldom", held_out_every=1000, **given)
    for job in (often, seldom):
        run_job(job)
    assert len(read_log(often.held_out_log)) > len(read_log(seldom.held_out_log)) == 2
    left, right = (load_file(job.model / "model.safetensors") for job in (often, seldom))
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}], ids=["full", "lora"])
def test_the_best_checkpoint_is_taken_and_kept(
    make_job: MakeJob, run_job: RunJob, lora: dict[str, int] | None
) -> None:
    # So high a learning rate that the held-out loss soon goes up again.
    job = make_job(
        12, held_out=0.3, held_out_every=1, best_checkpoint=True, epochs=12, lora=lora,
        learning_rate=2e-1 if lora else 3e-2, save_every=4, keep_checkpoints=1, max_spike=None,
        precision="fp32",
    )  # fmt: skip
    summary, _ = run_job(job)
    losses = {line["step"]: line["loss"] for line in read_log(job.held_out_log)}
    best = min((step for step in losses if step), key=losses.__getitem__)
    assert best < summary["steps"], "the last step is the best: nothing is proved"
    assert (summary["best_step"], summary["best_held_out_loss"]) == (best, losses[best])
    measured, _ = mean_by_token(job.model, job)
    assert measured == pytest.approx(losses[best], rel=1e-5)
    kept = {path.name for path in job.checkpoints.glob("checkpoint-*")}
    assert kept == {f"checkpoint-{best}", f"checkpoint-{summary['steps']}"}


def test_the_first_of_equal_losses_is_the_best_and_the_base_is_none() -> None:
    lines = [(0, 1.0), (2, 3.0), (4, 2.0), (6, 2.0)]
    assert best_step([{"step": step, "loss": loss} for step, loss in lines]) == 4
    assert best_step([{"step": 0, "loss": 1.0}]) is None
    assert best_step([]) is None


def test_without_held_out_rows_nothing_is_measured(make_job: MakeJob, run_job: RunJob) -> None:
    job = make_job(4, epochs=1)
    summary, _ = run_job(job)
    assert not (job.model / "held_out.jsonl").exists()
    assert summary["held_out_loss"] is None
    assert summary["best_step"] is None
    assert math.isfinite(summary["final_loss"])
    assert json.loads((job.model / "train_summary.json").read_text()) == summary
