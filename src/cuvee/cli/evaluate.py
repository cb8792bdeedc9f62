"""`cuvee evaluate`: one model on one benchmark, alone; or the stage of a run."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.cli.messages import errors_as_messages, refuse_flags
from cuvee.cli.run import run_recipe
from cuvee.cli.verify import SandboxOption, names_recipe
from cuvee.errors import RecipeError

SEED = 42

EVALUATE_HELP = """Score a model on a benchmark; or all models of a run on all of its.

MODEL is a .gguf file, a checkpoint folder or a hub id (llama.cpp serves it, or
vLLM with --command), or the URL of a server that runs (with --model-name).
--benchmark is a name that `cuvee benchmarks` lists, or a .yaml file. Prompt,
samples and sampling are the benchmark's own unless given here; the score says
all of them. Problems, answers, verdicts and score go to --out. Stop it anywhere:
the same command goes on and asks nothing twice.

RECIPE ends in .yaml or .yml, or is the folder of a run: that run's stage, as
any other; it takes --out (its folder), --limit and --set alone."""

EVALUATE_EXAMPLES = (
    "Examples: cuvee evaluate model.gguf --benchmark gsm8k --limit 100 "
    "| cuvee evaluate runs/demo/06_merged --benchmark gsm8k --file test.jsonl --out scored/merged "
    "| cuvee evaluate Qwen/Qwen3-8B --benchmark aime25 --samples 16 --command /opt/vllm/bin/vllm "
    "| cuvee evaluate https://api.example.com/v1 --model-name m --key-env KEY --benchmark math500 "
    "| cuvee evaluate recipes/demo.yaml"
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL|RECIPE", help="What to score: see above.")
]
BenchmarkOption = Annotated[
    str | None,
    typer.Option("--benchmark", metavar="NAME", help="A known benchmark, or a .yaml file."),
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The benchmark's problems as a local file."),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="The folder to write. Default: scored/MODEL-BENCHMARK."
    ),
]
CountOption = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="The first N problems.")
]


SamplesOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Answers to each problem.")
]
TemperatureOption = Annotated[float | None, typer.Option(metavar="T", help="0 is greedy.")]
TopPOption = Annotated[float | None, typer.Option(metavar="P", help="In (0, 1].")]
TokensOption = Annotated[
    int | None, typer.Option(metavar="N", help="Longest answer, reasoning included.")
]
SeedOption = Annotated[
    int | None, typer.Option(min=0, metavar="N", help=f"Of the sampling. Default: {SEED}.")
]
ModelNameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model's name on the server of a URL.")
]
KeyOption = Annotated[
    str | None, typer.Option(metavar="VAR", help="Environment variable with a URL's API key.")
]
CommandOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="vLLM's executable: serve with it.")
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Requests at once. Default: 4 with llama.cpp, else 32."),
]
LedgerOption = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Where answers are kept. Default: as in a recipe."),
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A key of a recipe: evaluate.serve.threads=2, verify.code_seconds=10.",
    ),
]


def evaluate(  # noqa: PLR0913 - one a flag
    place: ModelArgument,
    *,
    benchmark: BenchmarkOption = None,
    file: FileOption = None,
    out: OutOption = None,
    limit: CountOption = None,
    samples: SamplesOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    max_tokens: TokensOption = None,
    seed: SeedOption = None,
    model_name: ModelNameOption = None,
    key_env: KeyOption = None,
    command: CommandOption = None,
    concurrency: ConcurrencyOption = None,
    sandbox: SandboxOption = None,
    ledger: LedgerOption = None,
    override: SettingOption = None,
) -> None:
    """Evaluate (the help is `EVALUATE_HELP`)."""
    sections = {
        "evaluate.sampling.temperature": temperature,
        "evaluate.sampling.top_p": top_p,
        "evaluate.sampling.max_tokens": max_tokens,
        "evaluate.concurrency": concurrency,
        "evaluate.serve.command": command,
        "evaluate.serve.engine": "vllm" if command is not None else None,
    }
    own = {"file": file, "samples": samples, "seed": seed, "sandbox": sandbox, "ledger": ledger}
    url = {"model_name": model_name, "key_env": key_env}
    with errors_as_messages():
        if names_recipe(place):
            flags = {key.rpartition(".")[2]: value for key, value in sections.items()}
            del flags["engine"]  # it goes with --command
            given = {"benchmark": benchmark} | own | url | flags
            refuse_flags(
                {f"--{name.replace('_', '-')}": value for name, value in given.items()},
                f"only with a MODEL; a recipe ({place}) says it under `evaluate`",
            )
            run_recipe(Path(place), ("evaluate",), out=out, limit=limit, override=override)
            return
        settings = [f"{key}={value}" for key, value in sections.items() if value is not None]
        _evaluate_model(
            {"model": place, **url},
            benchmark,
            own | {"limit": limit},
            out=out,
            settings=[*settings, *(override or [])],
        )


def _evaluate_model(
    model: Mapping[str, Any],
    benchmark: str | None,
    own: Mapping[str, Any],
    *,
    out: Path | None,
    settings: list[str],
) -> None:
    """Measure a model by its flags, print the score and where it is."""
    from rich.console import Console

    from cuvee.evaluate.alone import Asked, Place, evaluate_alone
    from cuvee.evaluate.scored import score_table
    from cuvee.problems.benchmarks import declaration
    from cuvee.progress import say
    from cuvee.recipe import Recipe, load_evaluate
    from cuvee.verify.sandbox import KINDS

    if benchmark is None:
        raise RecipeError(
            f"{model['model']}: --benchmark is missing: a name that `cuvee benchmarks` lists, or "
            "a .yaml file"
        )
    evaluate, verify = load_evaluate(settings)
    if evaluate.benchmarks or evaluate.teachers:
        raise RecipeError("--set evaluate.benchmarks, evaluate.teachers: only with a RECIPE")
    if own["sandbox"] not in (None, *KINDS):
        raise RecipeError(f"--sandbox {own['sandbox']}: there are {', '.join(KINDS)}")
    found = declaration(benchmark)
    if own["samples"] is not None:
        found = found.model_copy(update={"samples": own["samples"]})
    place = Place(**model)
    asked = Asked(
        benchmark=found,
        file=own["file"],
        limit=own["limit"],
        seed=SEED if own["seed"] is None else own["seed"],
        evaluate=evaluate,
        verify=verify,
        sandbox=own["sandbox"] or "bubblewrap",
    )
    out = out or Path("scored") / f"{place.name}-{found.name}"
    score = evaluate_alone(
        place, asked, out=out, ledger=own["ledger"] or Recipe.model_fields["ledger"].default
    )
    Console(width=None if sys.stdout.isatty() else 120).print(score_table([score]))
    say(f"written to {out}: problems, traces, verdicts, scores (.parquet)")
