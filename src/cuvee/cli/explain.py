"""`cuvee explain`: the whole way of a problem, trace or example of a run; or a list of ids."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.cli.merge import PIPED_WIDTH
from cuvee.cli.messages import errors_as_messages
from cuvee.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cuvee.lineage.way import Way
    from cuvee.runfolder import Run

EXAMPLES = (
    "Examples: cuvee explain runs/demo | cuvee explain runs/demo --reason repetition "
    "| cuvee explain runs/demo 3c2f35e3 --full | cuvee explain runs/demo 3c2f35e3 --json"
)


def explain(  # noqa: PLR0913 - one a flag
    path: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    wanted: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="Of a problem, trace or example; its beginning is enough."
        ),
    ] = None,
    *,
    domain: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this domain (or benchmark, with an ID)."),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Without ID: only what came to too_long, chosen, ..."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only traces of this teacher.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="With ID: long texts whole.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: everything, texts whole.")
    ] = False,
) -> None:
    """Show the way of a problem, trace or example through a run.

    From the source row over the problem, each request, its verdict and every filter's decision
    to the training set. Without an ID: how many rows came to what, and the first ids of each.
    A run that is half way shows what there is.
    """
    with errors_as_messages():
        from cuvee.lineage.shelves import open_run

        run = open_run(path)
        if wanted is None:
            _refuse("--full", full, "an ID, whose texts it shows")
            _list(run, domain=domain, reason=reason, teacher=teacher, as_json=as_json)
            return
        _refuse("--reason", reason is not None, "no ID: it finds ids")
        ways = _ways(run, wanted, domain=domain, teacher=teacher)
        if as_json:
            _print_json({"ways": [dataclasses.asdict(way) for way in ways]})
            return
        from cuvee.lineage.tree import show

        for way in ways:
            _print(show(way, full=full))


def _refuse(flag: str, given: bool, needs: str) -> None:  # noqa: FBT001 - of a flag, what else
    if given:
        raise RecipeError(f"{flag} needs {needs}")


def _ways(run: "Run", wanted: str, *, domain: str | None, teacher: str | None) -> list["Way"]:
    from cuvee.lineage.explain import explain as follow
    from cuvee.lineage.find import find_places
    from cuvee.lineage.requests import open_books
    from cuvee.lineage.shelves import shelves

    found = shelves(run)
    searched = [shelf for shelf in found if domain in (None, shelf.name)]
    if not searched:
        known = ", ".join(dict.fromkeys(shelf.name for shelf in found))
        raise RecipeError(f"--domain {domain}: not in this run; there are: {known}")
    places = find_places(searched, wanted)
    with open_books(run) as books:
        return [follow(place, books, teacher=teacher) for place in places]


def _list(
    run: "Run", *, domain: str | None, reason: str | None, teacher: str | None, as_json: bool
) -> None:
    from cuvee.lineage.listing import list_run
    from cuvee.lineage.shelves import shelves
    from cuvee.lineage.tree import show_listing

    listing = list_run(shelves(run), domain=domain, reason=reason, teacher=teacher)
    if as_json:
        _print_json(dataclasses.asdict(listing))
        return
    _print(show_listing(listing))
    for name in listing.missing:
        typer.echo(name)


def _print_json(value: dict[str, Any]) -> None:
    # ASCII alone: what a model wrote must not steer the terminal it is printed to.
    typer.echo(json.dumps(value, indent=1, ensure_ascii=True))


def _print(shown: "RenderableType") -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(width=width, highlight=False).print(shown)
