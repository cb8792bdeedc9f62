"""`cuvee merge-search`: tries ways to merge a run's specialists on problems held apart."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cuvee.cli.messages import errors_as_messages
from cuvee.cli.run import OutOption, RecipeArgument, SetOption

if TYPE_CHECKING:
    from cuvee.search.search import Searched

PIPED_WIDTH = 160
"""Columns of a table that goes into a file or another program."""

HELP = """Try ways to merge the specialists of a run; rank them on problems held apart.

Methods, orders, anchors and parameters: the field's usual ones, or those of a
YAML file. Each is merged, served and asked problems of the run that no
example was chosen from, never a benchmark's, and compared with the recipe's
own merge. What was tried goes to RUN/search: tried.parquet, tried.yaml, and
best.yaml with the section to paste. The run is not changed. Stop it anywhere:
the same command goes on with what is not scored yet."""

EXAMPLES = (
    "Examples: cuvee merge-search recipes/demo.yaml --dry-run "
    "| cuvee merge-search runs/demo --tries 8 --problems 50 "
    "| cuvee merge-search runs/demo --candidates mine.yaml --samples 4 --keep"
)


def merge_search(  # noqa: PLR0913 - one a flag
    recipe: RecipeArgument,
    *,
    candidates: Annotated[
        Path | None,
        typer.Option("--candidates", metavar="FILE", help="What to try: a list, or a grid."),
    ] = None,
    tries: Annotated[
        int, typer.Option(min=1, metavar="N", help="Candidates at most, beside the recipe's own.")
    ] = 16,
    problems: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of each domain. Default: 100, and at least 30."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Answers to each problem.")] = 1,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the weights of what is tried from now on.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list what would be tried, stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was tried as JSON.")] = False,
    out: OutOption = None,
    override: SetOption = None,
) -> None:
    """Search (the help is `HELP`)."""
    with errors_as_messages():
        from cuvee.pipeline import open_recipe
        from cuvee.progress import say
        from cuvee.runfolder import Run
        from cuvee.search.search import Wanted, search

        opened, path = open_recipe(recipe, overrides=list(override or []), out=out)
        wanted = Wanted(
            file=candidates,
            tries=tries,
            problems=problems,
            samples=samples,
            keep=keep,
            dry_run=dry_run,
        )
        found = search(Run(path.absolute(), opened), wanted)
        _show(found, as_json=as_json, dry_run=dry_run)
        if not dry_run:
            say(f"written to {path / 'search'}: tried.parquet, tried.yaml, best.yaml")


def _show(found: "Searched", *, as_json: bool, dry_run: bool) -> None:
    """Print what was tried, or would be: JSON or lines on stdout, sentences beside it."""
    import json

    from rich.console import Console

    from cuvee.progress import say
    from cuvee.search.shown import tried_table
    from cuvee.search.tried import as_json as row_json

    if as_json:
        rows = [row_json(row) for row in found.rows]
        said = {"tried": rows, "says": found.said, "not_tried": found.not_tried}
        typer.echo(json.dumps(said, indent=1))
        return
    if dry_run:
        for line in found.said:
            typer.echo(line)
        return
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(tried_table(found.rows))
    for line in found.said:
        say(line)
