"""`cuvee serve`: an engine for a checkpoint or file, on this machine alone, until it is ended.

What is asked for becomes a `Plan` (no process yet), `run` starts it. A checkpoint for
llama.cpp is exported once into the cache, under a name that says its identity. The server
listens on 127.0.0.1 and wants a random token unless told otherwise. Not here: the command
line, what a model needs of memory (`cuvee.fit`).
"""

import dataclasses
import re
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cuvee.errors import EngineError, RecipeError
from cuvee.models.engines import Door, Engine, serve
from cuvee.models.health import answers, is_healthy
from cuvee.progress import say
from cuvee.recipe import Quantization, Serve
from cuvee.serve.facts import ServingFacts, serving_facts

LONGEST_CONTEXT = 8192
"""Tokens a slot where nobody says: memory for a model's whole context is seldom there."""
CACHE = Path("~/.cache/cuvee").expanduser()


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the user said."""

    model: str
    engine: Literal["llama.cpp", "vllm"] | None = None
    """None: vLLM where `command` is given, else llama.cpp."""
    command: str | None = None
    quantization: Quantization | None = None
    slots: int = 4
    """Of each replica."""
    replicas: int = 1
    context: int | None = None
    port: int = 0
    guarded: bool = True
    """Whether requests must bring a token."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be served, and how."""

    spec: Serve
    path: str
    """What the engine opens: a .gguf file, or a folder."""
    name: str
    facts: ServingFacts
    door: Door


def planned(asked: Asked, *, cache: Path = CACHE) -> Plan:
    """Return what serving a model means; exports a checkpoint for llama.cpp.

    Raises RecipeError for what names no model or flags that do not fit it, DataError where it
    cannot be read or exported.
    """
    engine = asked.engine or ("vllm" if asked.command is not None else "llama.cpp")
    is_file = asked.model.endswith(".gguf")
    _check(asked, engine, is_file=is_file)
    source = Path(asked.model).expanduser() if is_file else _folder(asked.model)
    facts = serving_facts(source)
    context = asked.context or min(facts.context, LONGEST_CONTEXT)
    if context > facts.context:
        raise RecipeError(f"--context {context}: {asked.model} was made for {facts.context}")
    spec = Serve(
        engine=engine,
        command=asked.command,
        slots=asked.slots,
        replicas=asked.replicas,
        context=context,
    )
    file = source
    if engine == "llama.cpp" and not is_file:
        file = _exported(source, asked.quantization or "Q8_0", cache=cache)
    token = secrets.token_urlsafe(24) if asked.guarded else None
    said = source.resolve().name.removesuffix(".gguf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", said).lstrip("._-") or "model"
    return Plan(spec, str(file), name, facts, Door(asked.port, token))


@contextmanager
def running(plan: Plan) -> Iterator[Engine]:
    """Serve while the block runs. Raises as `cuvee.models.engines.serve` does."""
    with (
        tempfile.TemporaryDirectory(prefix="cuvee-serve-") as folder,
        serve(plan.spec, plan.path, name=plan.name, folder=Path(folder), door=plan.door) as engine,
    ):
        yield engine


def said(spec: Serve) -> str:
    """Return in words what is started."""
    engines = spec.engine if spec.replicas == 1 else f"{spec.replicas} engines of {spec.engine}"
    each = ", each" if spec.replicas > 1 else ":"
    return f"{engines}{each} {spec.slots} slots of {spec.context} tokens"


def until_ended(engine: Engine, *, balanced: bool = False, seconds: float = 2.0) -> None:
    """Wait until the engine no longer answers; raises EngineError then. Ctrl-C comes through.

    Of one that is `balanced` any answer will do: while all replicas are replaced it says that
    none is up, and it ends when they have been given up.
    """
    health = engine.url.removesuffix("/v1") + "/health"
    lives = answers if balanced else is_healthy
    silent = 0
    while silent < 3:  # one busy moment is no death
        signal.sigtimedwait([], seconds)
        silent = 0 if lives(health) else silent + 1
    raise EngineError(f"the engine at {engine.url} no longer answers")


def _check(asked: Asked, engine: str, *, is_file: bool) -> None:
    if asked.model.startswith(("http://", "https://")):
        raise RecipeError(f"{asked.model}: it is served already; `cuvee chat` talks to a URL")
    if engine == "vllm" and is_file:
        raise RecipeError(f"{asked.model}: llama.cpp serves a .gguf file, not vLLM")
    if engine == "vllm" and asked.command is None:
        raise RecipeError("--engine vllm: --command is missing: vLLM's executable")
    if engine == "llama.cpp" and asked.command is not None:
        raise RecipeError("--command is vLLM's executable; leave --engine llama.cpp out")
    if engine == "vllm" and asked.replicas > 1:
        raise RecipeError(
            "--replicas: of llama.cpp alone; vLLM shares out GPUs by itself, which a recipe's "
            "serve.replicas and serve.devices say"
        )
    if asked.quantization is not None and (is_file or engine == "vllm"):
        raise RecipeError("--quantization: only of a checkpoint that is exported for llama.cpp")
    if is_file and not Path(asked.model).expanduser().is_file():
        raise RecipeError(f"{asked.model}: no such file")


def _folder(model: str) -> Path:
    from cuvee.models.checkpoint import resolve  # torch: seconds that a file need not wait

    return resolve(model)


def _exported(checkpoint: Path, quantization: Quantization, *, cache: Path) -> Path:
    from cuvee.models.files import identity
    from cuvee.models.gguf_write import write_gguf

    file = cache / "gguf" / f"{identity(checkpoint)}.{quantization}.gguf"
    if not file.is_file():
        say(f"exporting {checkpoint} as {quantization} once, to {file}")
        write_gguf(checkpoint, file, quantization=quantization)
    return file
