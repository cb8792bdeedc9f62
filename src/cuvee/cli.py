"""The command line: one command for the whole job, one for each stage, and a few around them.

Every command is a few lines on a function of the package, imported when it is called, so
that `cuvee --help` is quick. Errors of the tree in `cuvee.errors` become one message and
their exit code: 0 done, 1 the run failed, 2 the recipe or a flag is wrong, 3 stopped at the
budget. A traceback is a bug of cuvee.
"""

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cuvee import __version__
from cuvee.errors import CuveeError

app = typer.Typer(
    name="cuvee",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Split-merge distillation of reasoning models.\n\n"
    "Several teachers answer problems; answers are verified and selected; one specialist per "
    "domain is trained on them; the specialists are merged into one model, evaluated and "
    "released. One recipe says all of it; one folder holds what comes of it.\n\n"
    "[bold]Start here[/bold]\n\n"
    "  cuvee init my.yaml            write a commented recipe\n\n"
    "  cuvee run my.yaml --limit 20  a pilot of 20 problems a domain\n\n"
    "  cuvee run my.yaml             the run; kill it, run it again to go on\n\n"
    "  cuvee status runs/my          what is done, outdated or to do",
)

RecipeArgument = Annotated[
    Path,
    typer.Argument(metavar="RECIPE", help="A recipe (YAML), or the folder of an earlier run."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The run folder. Default: runs/NAME."),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, metavar="N", help="N problems a domain and benchmark: a pilot."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the recipe, e.g. train.epochs=2."
    ),
]

STAGE_HELP = {
    "problems": "Load problems, drop duplicates and what overlaps a benchmark, check the golds.",
    "teach": "Ask every teacher; every answer is kept in the ledger and never bought twice.",
    "verify": "Check every trace: math by symbolic comparison, code by running its tests.",
    "select": "Filter the verified traces and choose the examples to train on.",
    "train": "Train one specialist per domain on its examples.",
    "merge": "Merge the specialists into one model (Arcee Fusion).",
    "evaluate": "Score base, specialists and merged model on the benchmarks.",
    "release": "Write the report, the model card and GGUF files.",
}


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """Turn expected errors into one message and an exit code; let bugs through."""
    try:
        yield
    except CuveeError as error:
        _stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        _stop("stopped; run the same command again to go on", 130)
    except OSError as error:
        _stop(_describe(error), 1)


def _describe(error: OSError) -> str:
    place = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"disk full while writing{place}: free some space and run the same command again; "
            "what is finished is kept"
        )
    if error.filename:
        return f"cannot read or write{place}: {error.strerror}"
    return f"the operating system refused: {error}"


def _stop(message: str, code: int) -> NoReturn:
    from cuvee.progress import console, log

    log.error("%s", message)
    console.print(f"error: {message}", style="red", markup=False)
    raise typer.Exit(code)


def _version(value: bool) -> None:  # noqa: FBT001 - typer calls it with the flag's value
    if value:
        typer.echo(f"cuvee {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    # SIGTERM ends a run as Ctrl-C does: engines are stopped, the manifest stays whole.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@app.command(epilog="Example: cuvee run recipes/demo.yaml --set train.epochs=2 --until select")
def run(
    recipe: RecipeArgument,
    *,
    out: OutOption = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")
    ] = None,
    limit: LimitOption = None,
    override: SetOption = None,
) -> None:
    """Run all stages of a recipe; what is done already is skipped.

    Stages: problems, teach, verify, select, train, merge, evaluate, release. Kill it anywhere
    and run it again: nothing that was answered, trained or merged is lost or paid for twice.
    """
    with _errors_as_messages():
        from cuvee.errors import RecipeError
        from cuvee.runfolder import STAGES

        if until is not None and until not in STAGES:
            raise RecipeError(f"--until {until}: no such stage; there are {', '.join(STAGES)}")
        last = STAGES.index(until) if until else len(STAGES) - 1
        _run(recipe, STAGES[: last + 1], out=out, limit=limit, override=override)


def _run(
    place: Path,
    stages: tuple[str, ...],
    *,
    out: Path | None,
    limit: int | None,
    override: list[str] | None,
) -> None:
    from cuvee.pipeline import open_recipe, run_stages
    from cuvee.progress import say

    overrides = [*(override or []), *([f"limit={limit}"] if limit else [])]
    recipe, path = open_recipe(place, overrides=overrides, out=out)
    outcome = run_stages(recipe, path, stages)
    if not outcome.done:
        say(f"nothing to do: all {outcome.skipped} tasks are done ({path})")
    if "release" in stages:
        _show_scores(path)


def _show_scores(path: Path) -> None:
    """Print the score table and where the report is."""
    from rich.console import Console

    from cuvee.records import Comparison, Score, read_rows
    from cuvee.release.report import score_table
    from cuvee.runfolder import FOLDERS

    folder = path / FOLDERS["evaluate"]
    out = Console()
    if (folder / "scores.parquet").exists():
        scores = read_rows(folder / "scores.parquet", Score)
        comparisons = read_rows(folder / "comparisons.parquet", Comparison)
        out.print(score_table(scores, comparisons))
    out.print(f"report: {path / FOLDERS['release'] / 'report.html'}", soft_wrap=True, markup=False)


def _stage_command(stage: str) -> Callable[..., None]:
    def command(
        recipe: RecipeArgument,
        *,
        out: OutOption = None,
        limit: LimitOption = None,
        override: SetOption = None,
    ) -> None:
        with _errors_as_messages():
            _run(recipe, (stage,), out=out, limit=limit, override=override)

    command.__doc__ = STAGE_HELP[stage]
    return command


for _stage in STAGE_HELP:
    app.command(
        _stage,
        rich_help_panel="One stage of a run",
        epilog=f"Example: cuvee {_stage} recipes/demo.yaml (the stages before it must be done)",
    )(_stage_command(_stage))


@app.command(rich_help_panel="Around a run", epilog="Example: cuvee status runs/demo")
def status(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")],
) -> None:
    """Show every task of a run: done, outdated or to do, with its counts and seconds."""
    with _errors_as_messages():
        from rich.console import Console
        from rich.table import Table

        from cuvee.pipeline import open_recipe, states

        recipe, _ = open_recipe(path, overrides=[], out=None)
        table = Table("task", "state", "seconds", "counts", box=None, pad_edge=False)
        for task in states(recipe, path):
            counts = ", ".join(f"{name} {value}" for name, value in task.counts.items())
            seconds = "" if task.seconds is None else f"{task.seconds:.1f}"
            table.add_row(task.key, task.state, seconds, counts)
        Console().print(table)


@app.command(rich_help_panel="Around a run", epilog="Example: cuvee init my.yaml")
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "recipe.yaml"
    ),
) -> None:
    """Write a commented recipe to start from. Refuses to overwrite a file."""
    with _errors_as_messages():
        from importlib import resources

        from cuvee.errors import RecipeError

        if path.exists():
            raise RecipeError(f"{path}: exists already; name another file")
        text = resources.files("cuvee").joinpath("recipe/starter.yaml").read_text("utf-8")
        path.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {path}; edit it, then: cuvee run {path} --limit 20")


@app.command(rich_help_panel="Around a run", epilog="Example: cuvee schema > recipe.schema.json")
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from cuvee.recipe import recipe_schema

    typer.echo(recipe_schema())


def main() -> None:
    """Run the command line; the entry point `cuvee`."""
    sys.exit(app())


if __name__ == "__main__":
    main()
