"""`serve:`: an engine that cuvee starts for a model and stops again; and sampling."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section

ONE_ENGINE_ALONE: dict[str, str] = {
    "command": "vllm",
    "devices": "vllm",
    "args": "vllm",
    "threads": "llama.cpp",
}
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")
"""Flags of vLLM that multiply the GPUs one replica needs."""

Quantization = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K"
]
"""Types of a GGUF file. The first four are written by cuvee, the rest by llama.cpp's own
quantiser (extra `quantize`)."""


class Serve(Section):
    """How to serve a model over HTTP.

    `llama.cpp` runs the prebuilt package xllamacpp on the CPU (or the GPU it was built
    for) from a GGUF file; `vllm` runs `command serve MODEL` in its own environment.
    """

    engine: Literal["llama.cpp", "vllm"] = "llama.cpp"
    model: str | None = None
    """What to serve: a .gguf file, folder or hub id. A checkpoint of the run where None."""
    quantization: Quantization = "Q8_0"
    """Of the GGUF export of a checkpoint (llama.cpp alone)."""
    slots: int = Field(default=16, ge=1)
    """Requests answered at once, by each replica (llama.cpp `n_parallel`; vLLM `max_num_seqs`)."""
    context: int = Field(default=2048, ge=64)
    """Tokens of context a slot."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of each replica (llama.cpp alone); None: all cores, shared out among them."""
    command: str | None = None
    """vLLM's executable, e.g. `/opt/vllm/bin/vllm`."""
    devices: list[int] = Field(default_factory=list)
    """GPU numbers (vLLM); empty leaves CUDA_VISIBLE_DEVICES alone."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the model behind one URL, on this machine. Of llama.cpp as many processes and
    a balancer; of vLLM its `data_parallel_size`, each copy with `tensor_parallel_size` x
    `pipeline_parallel_size` of the devices."""
    start_timeout: float = Field(default=300, gt=0)
    """Seconds until the engine must answer its health check."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM flags: `tensor_parallel_size: 4` becomes `--tensor-parallel-size 4`."""

    @model_validator(mode="after")
    def _engine(self) -> Self:
        for key, engine in ONE_ENGINE_ALONE.items():
            default = type(self).model_fields[key].get_default(call_default_factory=True)
            if self.engine != engine and getattr(self, key) != default:
                raise ValueError(f"{key} is for engine {engine} alone; this is {self.engine}")
        return self

    @model_validator(mode="after")
    def _devices(self) -> Self:
        if len(set(self.devices)) < len(self.devices) or min(self.devices, default=0) < 0:
            raise ValueError(f"devices are GPU numbers >= 0, each once; got {self.devices}")
        flags = {key.replace("-", "_"): value for key, value in self.args.items()}
        sizes = {key: flags[key] for key in PARALLEL if isinstance(flags.get(key), int)}
        needed = self.replicas * math.prod(sizes.values())
        if self.devices and needed > len(self.devices):
            raise ValueError(
                f"devices: {self.replicas} replica(s) with {sizes} need {needed} GPUs, "
                f"got {self.devices}"
            )
        return self


class Sampling(Section):
    """What decides a sample. All of it is part of the ledger's key."""

    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=32768, ge=1)
