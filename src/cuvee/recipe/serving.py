"""`serve:`: an engine that cuvee starts for a model and stops again; and sampling."""

from typing import Any, Literal

from pydantic import Field

from cuvee.recipe.base import Section


class Serve(Section):
    """How to serve a model over HTTP.

    `llama.cpp` runs the prebuilt package xllamacpp on the CPU (or the GPU it was built
    for) from a GGUF file; `vllm` runs `command serve MODEL` in its own environment.
    """

    engine: Literal["llama.cpp", "vllm"] = "llama.cpp"
    model: str | None = None
    """What to serve: a .gguf file, folder or hub id. A checkpoint of the run where None."""
    quantization: Literal["F32", "F16", "BF16", "Q8_0"] = "Q8_0"
    """Of the GGUF export of a checkpoint (llama.cpp alone)."""
    slots: int = Field(default=16, ge=1)
    """Requests answered at once (llama.cpp `n_parallel`; vLLM `max_num_seqs`)."""
    context: int = Field(default=2048, ge=64)
    """Tokens of context a slot."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads (llama.cpp alone); None leaves it to the engine: all cores."""
    command: str | None = None
    """vLLM's executable, e.g. `/opt/vllm/bin/vllm`."""
    devices: list[int] = Field(default_factory=list)
    """GPU numbers (vLLM); empty leaves CUDA_VISIBLE_DEVICES alone."""
    replicas: Literal[1] = 1
    """More than one replica is not built yet."""
    start_timeout: float = Field(default=300, gt=0)
    """Seconds until the engine must answer its health check."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM flags: `tensor_parallel_size: 4` becomes `--tensor-parallel-size 4`."""


class Sampling(Section):
    """What decides a sample. All of it is part of the ledger's key."""

    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=32768, ge=1)
