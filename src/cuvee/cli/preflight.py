"""`cuvee preflight`: what training would learn of a run's examples, or of a file's rows."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cuvee.cli.merge import PIPED_WIDTH
from cuvee.cli.messages import errors_as_messages
from cuvee.cli.run import SetOption
from cuvee.cli.verify import is_recipe
from cuvee.errors import RecipeError, TrainError

if TYPE_CHECKING:
    from cuvee.recipe import Recipe, Train
    from cuvee.train.preflight import Check

PREFLIGHT_HELP = """Show what training would learn: every check, count and sample row.

RECIPE (.yaml, or the folder of a run): the examples that its stage `select`
chose, with its `train:`, for each model that is trained; on a Ray cluster
where it says `workers: ray`.

FILE (.parquet, .jsonl, .jsonl.gz, .json, .csv): its rows, with the columns
prompt, reasoning and answer, or `messages` of one user and one assistant turn.
It needs --model; settings come by --set train.KEY=VALUE.

Nothing is trained. With --out the page (preflight.html), the findings
(preflight.json) and the tokens (tokens.parquet) are kept. The exit code is 1
where a finding is an error: training would not start."""

EXAMPLES = (
    "Examples: cuvee preflight runs/demo --out preflight "
    "| cuvee preflight rows.jsonl --model Qwen/Qwen2.5-0.5B --set train.max_tokens=8192"
)

WRITTEN = ("tokens.parquet", "arrow", "preflight.html")
"""What a preflight replaces in its folder, beside its findings."""

PlaceArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE|RECIPE", help="Rows to train on, or a recipe or run folder."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="BASE", help="Hub id, folder or .gguf. Default: the recipe's `base`."
    ),
]
DomainOption = Annotated[
    str | None, typer.Option("--domain", metavar="D", help="Of a RECIPE: this domain alone.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Keep page, findings and tokens. Of a RECIPE: DIR/DOMAIN."
    ),
]
FirstOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of a FILE: the first N rows.")
]


def preflight(
    place: PlaceArgument,
    *,
    model: ModelOption = None,
    domain: DomainOption = None,
    out: OutOption = None,
    limit: FirstOption = None,
    override: SetOption = None,
) -> None:
    """Preflight (the help is `PREFLIGHT_HELP`)."""
    with errors_as_messages():
        if is_recipe(place):
            if limit is not None:
                raise RecipeError(f"{place}: --limit: only with a FILE of rows")
            refused = of_recipe(place, model, domain=domain, out=out, override=override)
        else:
            if domain is not None:
                raise RecipeError(f"{place}: --domain: only with a RECIPE")
            refused = of_file(place, model, out=out, limit=limit, override=override)
        if refused:
            raise TrainError(f"{', '.join(refused)}: training would not start (see the errors)")


def of_recipe(
    place: Path,
    model: str | None,
    *,
    domain: str | None,
    out: Path | None,
    override: list[str] | None,
) -> list[str]:
    """Go over the examples of a run; return the names of those that would stop its training.

    Raises RecipeError where a domain is not known or has no examples yet.
    """
    from cuvee.models.checkpoint import resolve
    from cuvee.pipeline import open_recipe
    from cuvee.runfolder import Run

    recipe, path = open_recipe(place, overrides=override or [], out=None)
    names = recipe.trained()
    if domain is not None and domain not in names:
        raise RecipeError(f"--domain {domain}: no such domain; there are {', '.join(names)}")
    chosen = [domain] if domain is not None else names
    files = {name: Run(path, recipe).examples(name) for name in chosen}
    if missing := [name for name, file in files.items() if not file.exists()]:
        raise RecipeError(
            f"{files[missing[0]]}: no examples of {missing[0]} yet; make them first: "
            f"cuvee run {place} --until select"
        )
    base = resolve(model or recipe.base, weights=False)
    refused = []
    with _checking(recipe) as check:
        for name, file in files.items():
            with _folder(out and out / name) as folder:
                title = f"{recipe.name}, {name}"
                if not show(file, base, train=recipe.train, out=folder, title=title, check=check):
                    refused.append(title)
    _say_where(out)
    return refused


@contextmanager
def _checking(recipe: "Recipe") -> "Iterator[Check]":
    """Yield what checks batches: this machine, or the cluster that `workers: ray` asks for."""
    from cuvee.train.preflight import check_here, check_on_ray
    from cuvee.workers.nodes import checked_cluster

    if recipe.workers != "ray":
        yield check_here
        return
    with checked_cluster(recipe.address):
        yield check_on_ray


def of_file(
    place: Path,
    model: str | None,
    *,
    out: Path | None,
    limit: int | None,
    override: list[str] | None,
) -> list[str]:
    """Go over the rows of a file; return its name where they would stop a training.

    Raises RecipeError without a model, DataError for rows that are no examples.
    """
    if model is None:
        raise RecipeError(f"{place}: rows of a file need --model: the base they are to train")

    from cuvee.models.checkpoint import resolve
    from cuvee.recipe import load_train
    from cuvee.train.preflight_rows import write_examples

    train = load_train(override or [])
    base = resolve(model, weights=False)
    with _folder(out) as folder:
        rows = folder / ".examples.parquet"
        try:
            write_examples(place, rows, limit=limit)
            clean = show(rows, base, train=train, out=folder, title=place.name)
        finally:
            rows.unlink(missing_ok=True)
    _say_where(out)
    return [] if clean else [place.name]


def show(
    examples: Path,
    base: Path,
    *,
    train: "Train",
    out: Path,
    title: str,
    check: "Check | None" = None,
) -> bool:
    """Check the rows of an examples file, print the view, write the page into `out`.

    `check` checks the batches; None: this machine does. Returns whether training could start.
    Raises what the preflight raises where it cannot say more, and DataError where the base has
    no usable tokenizer.
    """
    from rich.console import Console

    from cuvee.atomic import remove, write_text
    from cuvee.models.checkpoint import load_tokenizer
    from cuvee.train.preflight import FINDINGS, check_here, read_findings
    from cuvee.train.preflight import preflight as go_over
    from cuvee.train.preflight_page import PAGE, PAGE_SAMPLES, page, terminal
    from cuvee.train.preflight_samples import samples

    remove(out / PAGE)  # of an earlier one; the preflight removes its own
    tokenizer = load_tokenizer(base)
    clean = True
    try:
        go_over(
            examples, tokenizer, base=base, train=train, out=out,
            processes=train.launcher.processes, check=check or check_here,
        )  # fmt: skip
    except TrainError:
        if not (out / FINDINGS).exists():
            raise
        clean = False
    findings = read_findings(out)
    shown = samples(out, tokenizer, count=PAGE_SAMPLES, examples=examples)
    write_text(out / PAGE, page(findings, shown, title=title))
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(width=width, highlight=False).print(terminal(findings, shown, title=title), "")
    return clean


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Yield the folder to work in: `out`, made where it is not there, or one that is removed."""
    from tempfile import TemporaryDirectory

    if out is None:
        with TemporaryDirectory(prefix="cuvee-preflight-") as temporary:
            yield Path(temporary)
        return
    if out.exists() and not out.is_dir():
        raise RecipeError(f"--out {out}: a file is in the way; name a folder")
    foreign = [name for name in WRITTEN if (out / name).exists()]
    if foreign and not (out / "preflight.json").exists():
        raise RecipeError(
            f"--out {out}: {foreign[0]} in it is of no preflight and would be replaced; name "
            "another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    yield out


def _say_where(out: Path | None) -> None:
    from cuvee.progress import say

    kept = (
        f"page, findings and tokens: {out}" if out else "nothing was kept; --out DIR keeps a page"
    )
    say(kept)
