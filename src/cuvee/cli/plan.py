"""`cuvee plan`: what a recipe will cost and need, before it runs, after a pilot, and on the way."""

from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli.messages import errors_as_messages
from cuvee.cli.run import LimitOption, RecipeArgument, SetOption

HELP = (
    "Say what a recipe will cost and need: dollars, hours, disk, memory, GPUs, stage by stage.\n\n"
    "Before a run it rests on assumptions, which are listed; after `cuvee run --limit N`, or "
    "while a run is under way, on what the run folder has measured. Nothing is asked, loaded "
    "or changed."
)
EXAMPLES = """Example: cuvee plan my.yaml (before anything ran)

cuvee run my.yaml --limit 50 --out runs/pilot; cuvee plan my.yaml --out runs/pilot

cuvee plan my.yaml --assume pass_rate.math=0.4..0.6 --assume problems.math=94000 --json"""
PIPED_WIDTH = 100


def plan(  # noqa: PLR0913 - each is an option of the command
    recipe: RecipeArgument,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="The run folder to measure in. Default: runs/NAME."
        ),
    ] = None,
    limit: LimitOption = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            "--assume", metavar="NAME=VALUE", help="Replace an assumption; LOW..HIGH is a range."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 1 where something does not fit here, or a budget is not enough.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    override: SetOption = None,
) -> None:
    """Say what a recipe will cost and need."""
    with errors_as_messages():
        import json

        from rich.console import Console

        from cuvee.plan.budget import not_enough
        from cuvee.plan.estimate import estimate
        from cuvee.plan.estimate import run_folder as folder_of
        from cuvee.plan.machine import this_machine
        from cuvee.plan.reading import read
        from cuvee.plan.show import as_json as values
        from cuvee.plan.show import text
        from cuvee.recipe import load_recipe

        file = recipe / "recipe.yaml" if recipe.is_dir() else recipe
        # The recipe in a pilot's folder says `limit`: what is planned is the whole.
        whole = ["limit=null"] if recipe.is_dir() and limit is None else []
        wishes = [*whole, *(override or []), *([f"limit={limit}"] if limit else [])]
        opened = load_recipe(file, wishes)
        folder = folder_of(opened, recipe, out)
        found = estimate(
            opened, measured=read(folder, opened), assume=assume or [],
            machine=this_machine(folder),
        )  # fmt: skip
        if as_json:
            typer.echo(json.dumps(values(found), indent=1))
        else:
            console = Console(highlight=False)
            console.width = min(console.width, PIPED_WIDTH) if console.is_terminal else PIPED_WIDTH
            console.print(text(found))
        if strict and (found.misfits or any(not_enough(limit) for limit in found.budget)):
            raise typer.Exit(1)
