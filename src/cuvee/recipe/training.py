"""`train:` and `merge:`: how specialists are made, and how they become one model."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section


class Lora(Section):
    """LoRA instead of full fine-tuning; the adapter is merged into the specialist at the end."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Launcher(Section):
    """Where a training runs: how many machines and GPUs, and how they share the work."""

    nodes: int = Field(default=1, ge=1)
    """Machines; with more than one, each runs the printed command (`--print-command`)."""
    gpus: int | None = Field(default=None, ge=1)
    """Of each machine; None: one, or the CPU where there is none."""
    cpu: bool = False
    """`gpus` counts processes on the CPU instead: slow, to try a strategy out."""
    strategy: Literal["ddp", "fsdp", "zero3"] = "ddp"
    """`ddp` copies the model to each GPU; `fsdp` and `zero3` share it out over all."""
    sequence_parallel: int = Field(default=1, ge=1)
    """GPUs that share one sequence (context parallelism); it divides nodes * gpus."""

    @property
    def processes(self) -> int:
        """Return how many processes train together, on all nodes."""
        return self.nodes * (self.gpus or 1)

    @model_validator(mode="after")
    def _shared(self) -> Self:
        if self.processes % self.sequence_parallel:
            raise ValueError(
                f"sequence_parallel = {self.sequence_parallel} does not divide nodes * gpus = "
                f"{self.processes}"
            )
        return self


class Train(Section):
    """Hyper-parameters, the same for every specialist."""

    epochs: float = Field(default=5, gt=0)
    learning_rate: float = Field(default=1e-5, gt=0)
    scheduler: Literal["constant_with_warmup", "cosine", "linear"] = "constant_with_warmup"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps."""
    decay_to: float = Field(default=0.0, ge=0, lt=1)
    """Share of the learning rate at which `cosine` ends; refused with any other scheduler."""
    batch_size: int = Field(default=96, ge=1)
    """Rows (packed rows where `packing`) an optimizer step."""
    micro_batch: int = Field(default=1, ge=1)
    """Rows a forward pass of each process; `batch_size` must be a multiple of all of them."""
    max_tokens: int = Field(default=16384, ge=16)
    """Longest row, and the length of a packed row. Longer examples are dropped and counted."""
    packing: bool = True
    weight_decay: float = Field(default=0.01, ge=0)
    adam_beta2: float = Field(default=0.95, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: bool = True
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the products; weights and optimizer are float32 in any case. `auto` is bf16, but
    fp32 on x86 CPUs without bfloat16 arithmetic, which would emulate it many times slower."""
    weights: Literal["fp32", "bf16"] = "fp32"
    """Of the master weights and the optimizer. bf16 halves the memory, and most small updates
    are lost in it: the preflight says so."""
    kernels: bool = False
    """Use the hub's GPU kernels where the model has some (`use_kernels` of transformers)."""
    save_every: int = Field(default=100, ge=1)
    """Steps between checkpoints, from which a killed run goes on."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many are kept, the newest ones."""
    held_out: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the problems whose examples are not trained on but measured: the held-out loss."""
    held_out_every: int | None = Field(default=None, ge=1)
    """Steps between those measurements; None: about ten in a training."""
    best_checkpoint: bool = False
    """Take the checkpoint of the lowest held-out loss instead of the last; needs `held_out`."""
    max_spike: float | None = Field(default=10.0, gt=1)
    """Stop where a step's loss is that many times the median of the steps before it, naming
    its rows; None: only where it is no finite number."""
    report_to: list[Literal["trackio", "wandb", "tensorboard"]] = Field(default_factory=list)
    """Trackers that get the metrics as well; the JSONL files are written in any case."""
    lora: Lora | None = None
    launcher: Launcher = Launcher()

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.decay_to and self.scheduler != "cosine":
            raise ValueError(f"decay_to belongs to scheduler cosine, got {self.scheduler}")
        if self.best_checkpoint and not self.held_out:
            raise ValueError("best_checkpoint needs held_out: the share of problems it looks at")
        if self.held_out_every is not None and not self.held_out:
            raise ValueError("held_out_every needs held_out: the share of problems to measure")
        return self


class Merge(Section):
    """How the specialists become one model."""

    method: str = "arcee_fusion"
    """Any method of `cuvee merge`; one that needs a base has the recipe's."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Of the method, as in a merge config."""
    specialists: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Domain -> its own parameters, such as `weight`."""
    order: list[str] | None = None
    """Domains in the order they are fused; None: the order of `domains`."""
    anchor: Literal["later", "earlier"] = "later"
    """Whose weights stay where the rule adopts nothing, at each fusion (TinyR1: `later`)."""
    out_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    mode: Literal["exact", "mergekit"] = "exact"
    """`mergekit`: its arithmetic and its sampling, with the recipe's seed."""
