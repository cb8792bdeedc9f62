"""`cuvee bench`: the speed and memory of served models, side by side."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.cli.messages import errors_as_messages, refuse_flags
from cuvee.errors import CuveeError, RecipeError

if TYPE_CHECKING:
    from cuvee.serve.bench.subjects import Subject
    from cuvee.serve.bench.turns import Measured, Settings

WIDTH = 140
"""Of the tables where there is no terminal."""

HELP = """Measure how fast models are served, side by side.

MODEL is a .gguf file, which llama.cpp serves, or several (quantisations of
one model); checkpoint folders or hub ids with --command, which vLLM serves;
or the URL of one server that runs, with --model-name. For every context
length (tokens of the prompt) and concurrency (requests at once): prompt and
generation tokens a second, time to the first token and between tokens; for
engines that are started also memory and start. A number is the median of the
repeats, with the least and the most. Models are measured in turns, so that
what else the machine does hits all alike; one is started at a time."""

EXAMPLES = (
    "Examples: cuvee bench model.Q4_K_M.gguf "
    "| cuvee bench m.F16.gguf m.Q8_0.gguf m.Q4_K_M.gguf --context 512 --concurrency 1,4 "
    "| cuvee bench Qwen/Qwen3-8B --command /opt/vllm/bin/vllm --concurrency 1,16,64 "
    "| cuvee bench http://127.0.0.1:8000/v1 --model-name m --json speed.json"
)

ModelsArgument = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="What to measure: see above.")
]
ConcurrencyOption = Annotated[
    str, typer.Option(metavar="N,...", help="Requests at once; the most are an engine's slots.")
]
ContextOption = Annotated[str, typer.Option(metavar="N,...", help="Tokens of a prompt.")]
TokensOption = Annotated[int, typer.Option(min=8, metavar="N", help="Tokens of an answer.")]
RepeatsOption = Annotated[int, typer.Option(min=1, metavar="N", help="Turns of each model.")]
NameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model's name on the server of a URL.")
]
KeyOption = Annotated[
    str | None, typer.Option(metavar="VAR", help="Environment variable with a URL's API key.")
]
CommandOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="vLLM's executable: serve with it.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of llama.cpp. Default: all cores.")
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="serve.KEY=VALUE",
        help="How an engine is started: serve.start_timeout=900, "
        "serve.args.tensor_parallel_size=4.",
    ),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="PATH", help="Write everything, each round too.")
]


def bench(  # noqa: PLR0913 - one a flag
    models: ModelsArgument,
    *,
    concurrency: ConcurrencyOption = "1,4,16",
    context: ContextOption = "512,4096",
    tokens: TokensOption = 128,
    repeats: RepeatsOption = 3,
    model_name: NameOption = None,
    key_env: KeyOption = None,
    command: CommandOption = None,
    threads: ThreadsOption = None,
    override: SettingOption = None,
    out: JsonOption = None,
) -> None:
    """Bench (the help is `HELP`)."""
    import time

    with errors_as_messages():
        from cuvee.serve.bench.turns import Settings

        settings = Settings(
            concurrency=numbers(concurrency, "--concurrency"),
            context=numbers(context, "--context"),
            tokens=tokens,
            repeats=repeats,
            seed=time.time_ns(),
        )
        of_engines = {"--command": command, "--threads": threads, "--set": override or None}
        of_urls = {"--model-name": model_name, "--key-env": key_env}
        subjects: list[Subject]
        if any(model.startswith(("http://", "https://")) for model in models):
            from cuvee.serve.bench.subjects import remote

            refuse_flags(of_engines, "only for models that cuvee starts, not for a URL")
            if len(models) > 1:
                raise RecipeError("a URL is measured alone: its machine is another's")
            subjects = [remote(models[0], model=model_name, key_env=key_env)]
        else:
            refuse_flags(of_urls, "only for a URL")
            subjects = _started(models, settings, command, threads, override or [])
        _run(subjects, settings, out=out)


def numbers(text: str, flag: str) -> tuple[int, ...]:
    """Return `4,1` as (1, 4). Raises RecipeError for anything but whole numbers >= 1."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise RecipeError(f"{flag} {text!r}: write whole numbers from 1 on: {flag} 1,4,16")
    return tuple(sorted({int(part) for part in parts}))


def _started(
    models: list[str],
    settings: "Settings",
    command: str | None,
    threads: int | None,
    override: list[str],
) -> "list[Subject]":
    """Return models with the engine that serves them, as the flags say."""
    from cuvee.recipe import load_evaluate
    from cuvee.serve.bench.subjects import started

    flags = {"command": command, "threads": threads}
    if command is not None:
        flags["engine"] = "vllm"
    if wrong := [text for text in override if not text.startswith("serve.")]:
        raise RecipeError(f"--set {wrong[0]}: here there is only serve.KEY=VALUE")
    given = [f"serve.{key}={value}" for key, value in flags.items() if value is not None]
    spec = load_evaluate([f"evaluate.{text}" for text in (*given, *override)])[0].serve
    own = {"slots": "--concurrency", "context": "--context and --tokens"}
    for key in ("slots", "context", "model", "quantization"):
        if key in spec.model_fields_set:
            raise RecipeError(f"--set serve.{key}: not here; {own.get(key, 'MODEL')} says it")
    if spec.over is not None:
        raise RecipeError("--set serve.over: not here; a bench measures this machine alone")
    sizes = {"slots": settings.slots, "context": settings.slot_context}
    return started(models, spec.model_copy(update=sizes))


def _run(subjects: "list[Subject]", settings: "Settings", *, out: Path | None) -> None:
    """Measure, print the tables and what must be said, write the JSON."""
    import json
    import tempfile

    from cuvee import __version__
    from cuvee.atomic import write_text
    from cuvee.models.engines import engine_version
    from cuvee.progress import bar, say
    from cuvee.serve.bench.subjects import Started
    from cuvee.serve.bench.turns import measure

    each = settings.repeats * sum(at_once for _, at_once in settings.cells)
    prompts = settings.repeats * sum(n * at_once for n, at_once in settings.cells)
    say(
        f"models: {len(subjects)}; each gets {each} requests: {prompts} tokens of prompts, "
        f"{each * settings.tokens} of answers"
    )
    versions = {
        subject.name: f"{subject.spec.engine} {engine_version(subject.spec)}"
        for subject in subjects
        if isinstance(subject, Started)
    }
    total = len(subjects) * len(settings.cells) * settings.repeats
    try:
        with (
            tempfile.TemporaryDirectory(prefix="cuvee-bench-") as folder,
            bar("bench", total=total, unit="rounds") as tick,
        ):
            measured = measure(subjects, settings, folder=Path(folder), tick=tick)
    except KeyboardInterrupt:
        raise CuveeError("stopped: a bench is measured whole, and nothing of it is kept") from None
    whole = _show(subjects, settings, measured)
    if out is not None:
        about = {"cuvee": __version__, "cores": os.cpu_count(), "engines": versions}
        write_text(out, json.dumps(about | whole, indent=1))
        say(f"written to {out}")
    if all(cell["cell"] is None for cell in whole["cells"]):
        raise CuveeError("nothing could be measured: see the reasons above")


def _show(subjects: "list[Subject]", settings: "Settings", measured: "Measured") -> dict[str, Any]:
    """Print the tables and what must be said; return all of it for machines."""
    from rich.console import Console

    from cuvee.progress import warn
    from cuvee.serve.bench import shown

    found = shown.results(subjects, settings, measured)
    taken = shown.loads(subjects, found, measured)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(shown.cell_table(found))
    if taken:
        console.print()
        console.print(shown.load_table(taken))
    for line in shown.notes(found, settings, measured):
        warn(line)
    return shown.as_json(settings, measured, found, taken)
