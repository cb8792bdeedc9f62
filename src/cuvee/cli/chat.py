"""`cuvee chat`: a first look at a model in the terminal."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.cli.messages import errors_as_messages, refuse_flags

if TYPE_CHECKING:
    from cuvee.serve.chat import Server

HELP = """Talk to a model in the terminal: a checkpoint, a .gguf file or a URL.

A checkpoint or file is served for as long as the chat lasts, as `cuvee serve`
does. Reasoning is shown dim and apart from the answer; after each answer its
tokens and their speed. /reset, /system TEXT, /help, /quit; Ctrl-C stops an
answer. From a pipe, one question a line; what fails makes the exit code 1."""

EXAMPLES = (
    "Examples: cuvee chat model.Q4_K_M.gguf | cuvee chat runs/demo/06_merged --temperature 0 "
    "| cuvee chat https://api.example.com/v1 --model-name m --key-env API_KEY "
    "| echo 'What is 17 * 23?' | cuvee chat model.gguf"
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="CHECKPOINT|FILE|URL", help="Whom to talk to: see above.")
]
ModelNameOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Its name on the server of a URL. Default: its only model."),
]
KeyOption = Annotated[
    str | None, typer.Option(metavar="VAR", help="Environment variable with a URL's API key.")
]
SystemOption = Annotated[str | None, typer.Option(metavar="TEXT", help="The system message.")]
TemperatureOption = Annotated[
    float | None, typer.Option(min=0, metavar="T", help="Default: the recommended one.")
]
TopPOption = Annotated[float | None, typer.Option(min=0, max=1, metavar="P", help="In (0, 1].")]
TokensOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Longest answer, reasoning included.")
]
SlotContextOption = Annotated[
    int | None,
    typer.Option(min=64, metavar="N", help="Tokens of a checkpoint's or file's context."),
]
CommandOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="vLLM's executable: serve with it.")
]


def chat(  # noqa: PLR0913 - one a flag
    model: ModelArgument,
    *,
    model_name: ModelNameOption = None,
    key_env: KeyOption = None,
    system: SystemOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    max_tokens: TokensOption = None,
    context: SlotContextOption = None,
    command: CommandOption = None,
) -> None:
    """Chat (the help is `HELP`)."""
    sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    given = {key: value for key, value in sampling.items() if value is not None}
    with errors_as_messages(), ExitStack() as resources:
        # Within an answer Ctrl-C means that answer alone; SIGTERM always means the end.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        if model.startswith(("http://", "https://")):
            url = {"name": model_name, "key_env": key_env}
            refuse_flags({"--context": context, "--command": command}, "not for a URL")
            server = _remote(model, url, sampling=given)
        else:
            refuse_flags({"--model-name": model_name, "--key-env": key_env}, "only for a URL")
            server = _local(model, context, command, resources=resources, sampling=given)
        failed = _talk(server, system)
    raise typer.Exit(1 if failed else 0)


def _remote(url: str, named: Mapping[str, str | None], *, sampling: dict[str, Any]) -> "Server":
    import asyncio

    from cuvee.errors import RecipeError
    from cuvee.serve.chat import Server, first_model

    key_env = named["key_env"]
    key = None if key_env is None else os.environ.get(key_env)
    if key_env is not None and not key:
        raise RecipeError(f"--key-env {key_env}: that environment variable is not set")
    name = named["name"] or asyncio.run(first_model(url, key))
    return Server(url, name, key=key, sampling=sampling)


def _local(
    model: str,
    context: int | None,
    command: str | None,
    *,
    resources: ExitStack,
    sampling: dict[str, Any],
) -> "Server":
    from cuvee.progress import say
    from cuvee.serve.chat import Server
    from cuvee.serve.memory import warn_of_memory
    from cuvee.serve.start import Asked, planned, running

    plan = planned(Asked(model, command=command, slots=1, context=context))
    warn_of_memory(plan)
    say(f"starting {plan.spec.engine} with {plan.name}")
    engine = resources.enter_context(running(plan))
    return Server(
        engine.url,
        engine.model,
        key=plan.door.token,
        opened=plan.facts.opens_reasoning,
        sampling=plan.facts.sampling.request | sampling,
    )


def _talk(server: "Server", system: str | None) -> int:
    from cuvee.serve.chat import Conversation
    from cuvee.serve.screen import Screen
    from cuvee.serve.talk import Talk, piped, talk, typed

    screen = Screen(sys.stdout, colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    typing = sys.stdin.isatty()
    if typing:
        screen.say(f"{server.model} at {server.url}; /help lists the commands, Ctrl-D ends")
    lines = typed(screen.say) if typing else piped()
    return talk(Talk(server, Conversation(system), screen), lines)
