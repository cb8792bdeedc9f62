"""The training process: `python -m cuvee.train.sft JOB.json` makes one specialist.

Files in: a job (`cuvee.train.job`). Files out, in its folder: `model/` with the specialist,
a plain float32 checkpoint, and beside the weights `preflight.json`, `train_log.jsonl` and
`train_summary.json`. Stdout carries JSON lines for the parent (`cuvee.train.launch`);
whatever else is printed goes to stderr. Not here: starting it, and the run folder.
"""

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from cuvee.errors import CuveeError, TrainError
from cuvee.models.checkpoint import load_tokenizer
from cuvee.models.tokens import Encoded
from cuvee.recipe import Lora, Train
from cuvee.records import Example, read_rows
from cuvee.train.job import Job, read_job
from cuvee.train.labelled import train_on_labelled
from cuvee.train.preflight import PACKING, Findings, dataset, preflight
from cuvee.train.save import save_specialist, write_json
from cuvee.train.watch import Watch, complete_checkpoint, read_log

KEPT_CHECKPOINTS = 2
"""The newest, and the one before it for a kill while the newest is written."""


def main(arguments: Sequence[str]) -> int:
    """Train as the job file says; return the exit code."""
    parent = _speak_on_stdout()
    try:
        summary = run(read_job(Path(arguments[0])), parent)
    except (CuveeError, OSError, SafetensorError) as error:
        _tell(parent, {"error": str(error), "kind": type(error).__name__})
        return 1
    _tell(parent, {"summary": summary})
    return 0


def run(job: Job, parent: TextIO) -> dict[str, Any]:
    """Make the specialist of a job, going on from its last complete checkpoint.

    Progress goes to `parent` as JSON lines. Returns the summary that is also written beside
    the weights. Raises TrainError where training cannot start or go on.
    """
    tokenizer = load_tokenizer(job.base)
    rows, findings = preflight(
        read_rows(job.examples, Example),
        tokenizer,
        train=job.train,
        vocabulary=_vocabulary(job),
        processes=_processes(),
    )
    write_json(job.folder / "preflight.json", dataclasses.asdict(findings))
    set_seed(job.seed)  # before the trainer: it draws LoRA's first weights when it is made
    trainer = _trainer(job, _load(job), tokenizer, rows)
    _check_rows_kept(trainer, findings, job)
    checkpoint = complete_checkpoint(job.checkpoints)
    done = _step_of(checkpoint)
    _tell(parent, {"steps": findings.steps, "done": done})
    trainer.add_callback(Watch(job.log, after=done, tell=lambda line: _tell(parent, line)))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return _finish(job, trainer, findings)


def _vocabulary(job: Job) -> int:
    """Return the number of token ids the base knows, from its configuration alone."""
    config = AutoConfig.from_pretrained(job.base, local_files_only=True).get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and job.train.max_tokens > limit:
        raise TrainError(
            f"train.max_tokens = {job.train.max_tokens}, but {job.base} was made for {limit} "
            f"positions: set train.max_tokens to at most {limit}"
        )
    return int(config.vocab_size)


def _load(job: Job) -> PreTrainedModel:
    """Return the base in float32: the master weights that small updates are not lost in."""
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            job.base, dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise TrainError(f"{job.base}: its weights cannot be loaded: {error}") from error
    # A base's odd sampling defaults must not fail each save; its file is copied at the end.
    model.generation_config = GenerationConfig()
    return model


def _trainer(
    job: Job, model: PreTrainedModel, tokenizer: Any, rows: Sequence[Encoded]
) -> SFTTrainer:
    trainer = SFTTrainer(
        model=model,
        args=_config(job),
        train_dataset=dataset(rows),
        processing_class=tokenizer,
        peft_config=_lora(job.train.lora) if job.train.lora else None,
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.use_cpu:
        train_on_labelled(trainer)
    return trainer


def _config(job: Job) -> SFTConfig:
    train, processes = job.train, _processes()
    if train.batch_size % (train.micro_batch * processes):
        raise TrainError(
            f"train.batch_size = {train.batch_size} is no multiple of train.micro_batch "
            f"({train.micro_batch}) times {processes} processes"
        )
    try:
        return SFTConfig(
            output_dir=str(job.checkpoints),
            seed=job.seed,
            data_seed=job.seed,
            max_length=train.max_tokens,
            packing=train.packing,
            packing_strategy=PACKING,
            num_train_epochs=train.epochs,
            per_device_train_batch_size=train.micro_batch,
            gradient_accumulation_steps=train.batch_size // (train.micro_batch * processes),
            learning_rate=train.learning_rate,
            lr_scheduler_type=train.scheduler,
            warmup_steps=train.warmup,  # below 1 it is a share of the steps
            weight_decay=train.weight_decay,
            adam_beta1=0.9,
            adam_beta2=train.adam_beta2,
            max_grad_norm=train.max_grad_norm,
            gradient_checkpointing=train.gradient_checkpointing,
            bf16=precision(train) == "bf16",  # autocast: the weights stay in float32
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="steps",
            save_steps=train.save_every,
            save_total_limit=KEPT_CHECKPOINTS,
            logging_steps=1,
            logging_nan_inf_filter=False,  # else a loss of NaN is logged as the mean before it
            include_num_input_tokens_seen="all",
            report_to="none",
            disable_tqdm=True,
        )
    except ValueError as error:
        raise TrainError(f"this machine cannot train with these settings: {error}") from error


def _lora(lora: Lora) -> LoraConfig:
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _check_rows_kept(trainer: SFTTrainer, findings: Findings, job: Job) -> None:
    """Raise TrainError where TRL would not train exactly the tokens the preflight saw."""
    prepared = trainer.train_dataset
    tokens = sum(len(ids) for ids in prepared["input_ids"])
    if (len(prepared), tokens) != (findings.rows, findings.tokens):
        raise TrainError(
            f"TRL prepared {len(prepared)} rows of {tokens} tokens from {job.examples}, the "
            f"preflight {findings.rows} rows of {findings.tokens}: rows were cut or lost; "
            "install the trl version of constraints.txt"
        )


def _finish(job: Job, trainer: SFTTrainer, findings: Findings) -> dict[str, Any]:
    log = read_log(job.log)
    if not log or log[-1]["step"] != findings.steps:
        raise TrainError(f"{job.log}: training ended before step {findings.steps}")
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.train.lora is not None:
        model = model.merge_and_unload()  # a specialist is always a plain checkpoint
    moved = save_specialist(model, base=job.base, out=job.model)
    if not moved["moved"]:
        raise TrainError(
            f"no weight moved in {findings.steps} steps: train.warmup holds the first steps at "
            "learning rate 0; lower it, or train on more examples or epochs"
        )
    summary = {
        "examples": findings.kept,
        "dropped_too_long": len(findings.dropped_too_long),
        "steps": findings.steps,
        "precision": precision(job.train),
        "tokens": log[-1]["tokens"],
        "final_loss": log[-1]["loss"],
        "seconds": round(sum(line["seconds"] for line in log), 1),
        **moved,
    }
    write_json(job.model / "preflight.json", dataclasses.asdict(findings))
    write_json(job.model / "train_summary.json", summary)
    (job.model / "train_log.jsonl").write_bytes(job.log.read_bytes())
    return summary


def precision(train: Train) -> str:
    """Return `bf16` or `fp32`: what products are computed in on this machine."""
    if train.precision != "auto":
        return train.precision
    # Known to be slow: an x86 CPU without bfloat16 arithmetic, where it is emulated.
    on_gpu, on_x86 = torch.cuda.is_available(), platform.machine() == "x86_64"
    slow = on_x86 and not on_gpu and not torch.cpu._is_avx512_bf16_supported()
    return "fp32" if slow else "bf16"


def _processes() -> int:
    """Return how many processes train together, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _speak_on_stdout() -> TextIO:
    """Return the real stdout for the parent's lines; what libraries print goes to stderr."""
    parent = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return parent


def _tell(parent: TextIO, line: Mapping[str, Any]) -> None:
    if os.environ.get("RANK", "0") == "0":
        parent.write(json.dumps(dict(line)) + "\n")
        parent.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
