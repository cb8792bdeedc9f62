"""`cuvee serve`: the right engine for a checkpoint or file, on this machine alone."""

from typing import Annotated, Any

import typer

from cuvee.cli.messages import errors_as_messages

HELP = """Serve a model on this machine: an OpenAI-style API at 127.0.0.1, until Ctrl-C.

MODEL is a .gguf file, or a checkpoint folder or hub id: llama.cpp serves it (a
checkpoint is exported once, into ~/.cache/cuvee/gguf), or vLLM with --command.
Printed are the URL and a curl line with the recommended sampling. Requests must
bring the random token of that line unless --no-token is given."""

EXAMPLES = (
    "Examples: cuvee serve model.Q4_K_M.gguf | cuvee serve runs/demo/06_merged --port 8080 "
    "| cuvee serve runs/demo/06_merged --command /opt/vllm/bin/vllm --context 32768 "
    "| cuvee serve model.gguf --replicas 2 --slots 8 | cuvee serve model.gguf --print-command"
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="CHECKPOINT|FILE", help="What to serve: see above.")
]
EngineOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="llama.cpp (the default) or vllm.")
]
CommandOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="vLLM's executable: serve with it.")
]
TypeOption = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="Of a checkpoint's export for llama.cpp. Default: Q8_0."),
]
SlotsOption = Annotated[int, typer.Option(min=1, metavar="N", help="Requests at once.")]
ContextOption = Annotated[
    int | None,
    typer.Option(min=64, metavar="N", help="Tokens a request. Default: the model's, up to 8192."),
]
ReplicasOption = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Engines of llama.cpp behind one URL, each with --slots."
    ),
]
PortOption = Annotated[
    int, typer.Option(min=0, max=65535, metavar="N", help="0: any that is free.")
]
TokenOption = Annotated[
    bool, typer.Option("--token/--no-token", help="Whether requests must bring a random token.")
]
PrintOption = Annotated[
    bool, typer.Option("--print-command", help="Print the engines' own commands; start nothing.")
]


def serve(  # noqa: PLR0913 - one a flag
    model: ModelArgument,
    *,
    engine: EngineOption = None,
    command: CommandOption = None,
    quantization: TypeOption = None,
    slots: SlotsOption = 4,
    replicas: ReplicasOption = 1,
    context: ContextOption = None,
    port: PortOption = 0,
    token: TokenOption = True,
    print_command: PrintOption = False,
) -> None:
    """Serve (the help is `HELP`)."""
    with errors_as_messages():
        asked = {
            "engine": engine,
            "command": command,
            "quantization": quantization,
            "slots": slots,
            "replicas": replicas,
            "context": context,
            "port": port,
            "guarded": token,
        }
        _check(engine, quantization)
        if print_command:
            _refuse_unprinted(asked)
            _print_commands(model, slots=slots, context=context)
            return
        _serve(model, asked)


def _check(engine: str | None, quantization: str | None) -> None:
    from typing import get_args

    from cuvee.errors import RecipeError
    from cuvee.recipe import Quantization

    if engine not in (None, "llama.cpp", "vllm"):
        raise RecipeError(f"--engine {engine}: there are llama.cpp and vllm")
    if quantization is not None and quantization not in get_args(Quantization):
        raise RecipeError(
            f"--quantization {quantization}: there are {', '.join(get_args(Quantization))}"
        )


def _refuse_unprinted(asked: dict[str, Any]) -> None:
    """Raise RecipeError for flags that --print-command does not print."""
    from cuvee.errors import RecipeError

    flags = {f"--{key}": asked[key] for key in ("engine", "command", "quantization", "port")}
    flags["--no-token"] = not asked["guarded"]
    flags["--replicas"] = asked["replicas"] > 1
    if given := [name for name, value in flags.items() if value]:
        raise RecipeError(
            f"{', '.join(given)}: not with --print-command, which prints the commands of all "
            "engines, at their own ports and open to all"
        )


def _serve(model: str, asked: dict[str, Any]) -> None:
    from cuvee.errors import EngineError
    from cuvee.progress import say
    from cuvee.serve.commands import curl, notes
    from cuvee.serve.memory import warn_of_memory
    from cuvee.serve.start import Asked, planned, running, said, until_ended

    plan = planned(Asked(model, **asked))
    warn_of_memory(plan)
    say(f"starting {said(plan.spec)}")
    try:
        with running(plan) as engine:
            typer.echo(engine.url)
            typer.echo(curl(engine.url, engine.model, facts=plan.facts, token=plan.door.token))
            for note in notes(plan.facts):
                say(note)
            say("Ctrl-C ends it")
            until_ended(engine, balanced=plan.spec.replicas > 1)
    except KeyboardInterrupt:
        say("ended")
    except EngineError:
        if plan.door.port:
            say(f"port {plan.door.port}: is another program listening there?")
        raise


def _print_commands(model: str, *, slots: int, context: int | None) -> None:
    from pathlib import Path

    from cuvee.models.checkpoint import resolve
    from cuvee.serve.commands import Files, commands
    from cuvee.serve.facts import serving_facts

    is_file = model.endswith(".gguf")
    path = Path(model).expanduser() if is_file else resolve(model, weights=False)
    files = Files(gguf=model) if is_file else Files(checkpoint=model)
    name = Path(model).name.removesuffix(".gguf")
    listed = commands(serving_facts(path), files, name=name, slots=slots, context=context)
    for command in listed:
        typer.echo(f"# {command.title}\n{command.text}\n")
