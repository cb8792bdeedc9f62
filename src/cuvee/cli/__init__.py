"""The command line: one command for the whole job, one for each stage, and a few around them.

Every command is a few lines on a function of the package, imported when it is called, so
that `cuvee --help` is quick. Errors of the tree in `cuvee.errors` become one message and
their exit code: 0 done, 1 the run failed, 2 the recipe or a flag is wrong, 3 stopped at the
budget. A traceback is a bug of cuvee.
"""

import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cuvee import __version__
from cuvee.cli import bench as benching
from cuvee.cli import benchmarks as benchmarking
from cuvee.cli import chat as chatting
from cuvee.cli import compare as comparing
from cuvee.cli import conformance as conforming
from cuvee.cli import evaluate as evaluating
from cuvee.cli import explain as explaining
from cuvee.cli import fit as fitting
from cuvee.cli import ledger as ledgers
from cuvee.cli import merge as merging
from cuvee.cli import merge_search as searching
from cuvee.cli import plan as planning
from cuvee.cli import preflight as preflighting
from cuvee.cli import release as releasing
from cuvee.cli import run as running
from cuvee.cli import score as scoring
from cuvee.cli import serve as serving
from cuvee.cli import verify as verifying
from cuvee.cli import view as viewing

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

STAGE_HELP = {
    "problems": "Load problems, drop duplicates and what overlaps a benchmark, check the golds.",
    "teach": "Ask every teacher; every answer is kept in the ledger and never bought twice.",
    "verify": verifying.VERIFY_HELP,
    "select": "Filter the verified traces and choose the examples to train on.",
    "train": "Train one specialist per domain on its examples.",
    "merge": merging.MERGE_HELP,
    "evaluate": evaluating.EVALUATE_HELP,
    "release": releasing.RELEASE_HELP,
}


OWN_COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "evaluate": (evaluating.evaluate, evaluating.EVALUATE_EXAMPLES),
    "merge": (merging.merge, merging.MERGE_EXAMPLES),
    "release": (releasing.release, releasing.RELEASE_EXAMPLES),
    "train": (running.train, running.TRAIN_EXAMPLES),
    "verify": (verifying.verify, verifying.VERIFY_EXAMPLES),
}
"""Stages whose command works alone too: the command, and the examples of its help."""


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


def _register() -> None:
    """Add the commands to `app`, in the order of its help."""
    example = "Example: cuvee run recipes/demo.yaml --set train.epochs=2 --until select"
    app.command(epilog=example)(running.run)
    for stage, description in STAGE_HELP.items():
        example = f"Example: cuvee {stage} recipes/demo.yaml (the stages before it must be done)"
        command, examples = OWN_COMMANDS.get(stage, (running.stage_command(stage), example))
        app.command(stage, rich_help_panel="One stage of a run", help=description, epilog=examples)(
            command
        )
    example = "Example: cuvee diff runs/demo/05_specialists/math runs/demo/06_merged --html d.html"
    app.command(rich_help_panel="Around a run", epilog=example)(merging.diff)
    app.command(
        "merge-search",
        rich_help_panel="Around a run",
        help=searching.HELP,
        epilog=searching.EXAMPLES,
    )(searching.merge_search)
    examples = conforming.EXAMPLES
    app.command(rich_help_panel="Around a run", epilog=examples)(conforming.conformance)
    app.command(
        rich_help_panel="Around a run",
        help=preflighting.PREFLIGHT_HELP,
        epilog=preflighting.EXAMPLES,
    )(preflighting.preflight)
    app.command(rich_help_panel="Around a run", help=fitting.FIT_HELP, epilog=fitting.EXAMPLES)(
        fitting.fit
    )
    app.command(rich_help_panel="Around a run", help=scoring.HELP, epilog=scoring.EXAMPLES)(
        scoring.score
    )
    app.command(rich_help_panel="Around a run", help=comparing.HELP, epilog=comparing.EXAMPLES)(
        comparing.compare
    )
    app.command(
        rich_help_panel="Around a run", help=benchmarking.HELP, epilog=benchmarking.EXAMPLES
    )(benchmarking.benchmarks)
    app.command(rich_help_panel="Around a run", help=benching.HELP, epilog=benching.EXAMPLES)(
        benching.bench
    )
    app.command(rich_help_panel="Around a run", help=serving.HELP, epilog=serving.EXAMPLES)(
        serving.serve
    )
    app.command(rich_help_panel="Around a run", help=chatting.HELP, epilog=chatting.EXAMPLES)(
        chatting.chat
    )
    app.add_typer(ledgers.app, name="ledger", rich_help_panel="Around a run")
    app.command(rich_help_panel="Around a run", help=planning.HELP, epilog=planning.EXAMPLES)(
        planning.plan
    )
    example = "Example: cuvee status runs/demo"
    app.command(rich_help_panel="Around a run", epilog=example)(running.status)
    app.command(rich_help_panel="Around a run", epilog=explaining.EXAMPLES)(explaining.explain)
    app.command(rich_help_panel="Around a run", epilog=viewing.EXAMPLES)(viewing.view)
    example = "Example: cuvee init my.yaml"
    app.command(rich_help_panel="Around a run", epilog=example)(running.init)
    example = "Example: cuvee schema > recipe.schema.json"
    app.command(rich_help_panel="Around a run", epilog=example)(running.schema)


_register()


def main() -> None:
    """Run the command line; the entry point `cuvee`."""
    sys.exit(app())
