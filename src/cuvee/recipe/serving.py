"""`serve:`: an engine that cuvee starts for a model and stops again; and sampling."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section
from cuvee.recipe.cluster import refused_address

ONE_ENGINE_ALONE: dict[str, str] = {
    "command": "vllm",
    "args": "vllm",
    "threads": "llama.cpp",
    "gpus": "llama.cpp",
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
    """GPU numbers of this machine; empty leaves CUDA_VISIBLE_DEVICES alone. Replicas of
    llama.cpp have the same number each: 0 and 1 for the first of two, 2 and 3 for the second."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the model behind one URL. Of llama.cpp as many processes and a balancer; of
    vLLM on this machine its `data_parallel_size`, each copy with `tensor_parallel_size` x
    `pipeline_parallel_size` of the devices."""
    over: Literal["ray"] | None = Field(default=None, exclude_if=lambda value: value is None)
    """`ray`: each replica, of vLLM too, is an engine of its own on a node of a Ray cluster that
    has room for it; None: all on this machine."""
    address: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of that cluster, `host:port` or `auto`; None: the recipe's `address`, else RAY_ADDRESS,
    else a Ray of this machine."""
    gpus: int | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)
    """GPUs of each replica of llama.cpp over Ray; None: none. vLLM's follow from its `args`."""
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
        if self.engine == "llama.cpp":
            if len(self.devices) % self.replicas:
                raise ValueError(
                    f"devices: {self.replicas} replicas of llama.cpp have GPUs of their own, the "
                    f"same number each; {self.devices} cannot be shared out so"
                )
            return self
        needed = self.replicas * self.gpus_each()
        if self.devices and needed > len(self.devices):
            raise ValueError(
                f"devices: {self.replicas} replica(s) with {self._sizes()} need {needed} GPUs, "
                f"got {self.devices}"
            )
        return self

    @model_validator(mode="after")
    def _over(self) -> Self:
        if self.over is None:
            for key in ("address", "gpus"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: only with over: ray")
            return self
        if self.devices:
            raise ValueError(
                f"devices {self.devices}: not with over: ray, which chooses the GPUs; say how "
                "many each replica has: gpus (llama.cpp), args.tensor_parallel_size (vllm)"
            )
        if self.engine == "llama.cpp" and self.threads is None:
            raise ValueError("over: ray needs threads: the CPUs that each replica takes of a node")
        if why := refused_address("ray", self.address):
            raise ValueError(why)
        return self

    def gpus_each(self) -> int:
        """Return how many GPUs a replica needs; of llama.cpp on this machine it is not said: 0."""
        return self.gpus or 0 if self.engine == "llama.cpp" else math.prod(self._sizes().values())

    def _sizes(self) -> dict[str, int]:
        flags = {key.replace("-", "_"): value for key, value in self.args.items()}
        return {key: flags[key] for key in PARALLEL if isinstance(flags.get(key), int)}


class Sampling(Section):
    """What decides a sample. All of it is part of the ledger's key."""

    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=32768, ge=1)


def addressed(data: Any) -> Any:
    """Return a recipe's mapping with its `address` in each `serve` over Ray that has none."""
    if not isinstance(data, Mapping) or data.get("address") is None:
        return data
    found = {**data}
    if isinstance(teachers := data.get("teachers"), list):
        found["teachers"] = [_with_address(teacher, data["address"]) for teacher in teachers]
    if "evaluate" in data:
        found["evaluate"] = _with_address(data["evaluate"], data["address"])
    return found


def unaddressed(data: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe as `addressed` got it: who sets another `address` sets it for all again."""
    for section in (*data["teachers"], data["evaluate"]):
        serve = section.get("serve") or {}
        if serve.get("address") == data.get("address"):
            serve.pop("address", None)
    return data


def _with_address(section: Any, address: Any) -> Any:
    serve = section.get("serve") if isinstance(section, Mapping) else None
    if not isinstance(serve, Mapping) or serve.get("over") is None:
        return section
    return {**section, "serve": {"address": address, **serve}}
