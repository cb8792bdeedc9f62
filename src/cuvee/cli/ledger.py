"""`cuvee ledger`: what the ledger holds; answers out of it and into it; whether it is sound."""

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from cuvee.cli.merge import PIPED_WIDTH
from cuvee.cli.messages import errors_as_messages
from cuvee.errors import DataError, RecipeError

if TYPE_CHECKING:
    from cuvee.recipe.address import Place
    from cuvee.teach.ledger.survey import Chosen, Group

HELP = """Look into a ledger, carry answers to another, tidy it, check it.

A ledger keeps every teacher's answers, so that none is bought twice: an SQLite
file, or for many machines a database, postgresql://user@host/name. `ledger:`
in a recipe says which, ~/.cache/cuvee/ledger.sqlite by default. Runs may go on
writing to it meanwhile (not while it is copied)."""

EXAMPLES = {
    "stats": "Examples: cuvee ledger stats ~/.cache/cuvee/ledger.sqlite "
    "| cuvee ledger stats ledger.sqlite --by account",
    "export": "Example: cuvee ledger export ledger.sqlite qwq.parquet --teacher qwq-32b "
    '--note "QwQ-32B, Apache-2.0"',
    "import": "Example: cuvee ledger import ledger.sqlite qwq.parquet other.parquet",
    "prune": "Examples: cuvee ledger prune ledger.sqlite --older-than 365 "
    "| cuvee ledger prune ledger.sqlite --teacher qwq-32b --yes",
    "verify": "Example: cuvee ledger verify ledger.sqlite",
    "copy": "Example: cuvee ledger copy ledger.sqlite postgresql://cuvee@db.example.org/ledger",
}

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode="rich")

LedgerArgument = Annotated[
    str, typer.Argument(metavar="LEDGER", help="The ledger's file, or postgresql://user@host/name.")
]
TeacherOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only answers of this teacher.")
]
IdentityOption = Annotated[
    str | None, typer.Option(metavar="ID", help="Only answers of this model: see stats.")
]
AccountOption = Annotated[
    str | None, typer.Option(metavar="RUN", help="Only answers that this run bought: see stats.")
]


@app.command(epilog=EXAMPLES["stats"])
def stats(
    ledger: LedgerArgument,
    *,
    by: Annotated[
        Literal["teacher", "identity", "account"],
        typer.Option(help="One row a teacher, model or run."),
    ] = "teacher",
) -> None:
    """Count answers, tokens and money, by teacher, model or run.

    Tokens and USD are what the answers cost when they were bought. What was
    spent (and a budget limits) is more where requests are in doubt: sent, with
    an unknown fate, and counted at the most they can cost; or were pruned.
    """
    from cuvee.teach.ledger.survey import survey

    with errors_as_messages():
        _print_table(survey(_place(ledger), by), by=by)


@app.command(epilog=EXAMPLES["export"])
def export(
    ledger: LedgerArgument,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The .parquet file to write.")],
    *,
    teacher: TeacherOption = None,
    identity: IdentityOption = None,
    account: AccountOption = None,
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="Kept in the file: models, licence, terms.")
    ] = "",
) -> None:
    """Write answers to a Parquet file, for another ledger or any other program.

    It has all that replaying them needs: a run on a ledger that imported it
    sends no request that the file answers.
    """
    from cuvee.progress import bar, say
    from cuvee.teach.ledger import carry
    from cuvee.teach.ledger.survey import Chosen, count_chosen

    with errors_as_messages():
        if out.suffix.lower() != ".parquet":
            raise RecipeError(f"{out}: an export is a Parquet file; let its name end in .parquet")
        place, chosen = _place(ledger), Chosen(teacher, identity, account)
        total = count_chosen(place, chosen).answers
        if not total:
            raise DataError(f"{ledger}: {_described(chosen)}: no such answers")
        with bar(f"export {place.name}", total=total, unit="answers") as tick:
            written = carry.export(place, out, chosen=chosen, note=note, tick=tick)
        say(f"{written} answers, {out.stat().st_size / 1e6:.1f} MB: {out}")


@app.command("import", epilog=EXAMPLES["import"])
def import_(
    ledger: Annotated[
        str, typer.Argument(metavar="LEDGER", help="File or database; made if there is none.")
    ],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="What `cuvee ledger export` wrote.")
    ],
) -> None:
    """Add the answers of exported files; none that is there is overwritten.

    Rows whose key is not the hash of their request, or that cannot be read, are
    refused and counted; the exit code is then 1.
    """
    from cuvee.progress import bar, say, warn
    from cuvee.teach.ledger import carry, located

    with errors_as_messages():
        place, refused = located(ledger), 0
        totals = [carry.count_rows(file) for file in files]
        for file, total in zip(files, totals, strict=True):
            with bar(f"import {file.name}", total=total, unit="answers") as tick:
                done = carry.import_answers(place, file, tick=tick)
            say(f"{file}: {done.added} answers added, {done.held} were there already")
            if done.note:
                say(f"{file}: {done.note}")
            for detail in done.details:
                warn(f"{file}: {detail}")
            refused += done.refused.total()
        if refused:
            raise DataError(f"{refused} rows were refused; all others are in {ledger}")


@app.command(epilog=EXAMPLES["prune"])
def prune(
    ledger: LedgerArgument,
    *,
    older_than: Annotated[
        int | None, typer.Option(min=0, metavar="DAYS", help="Only answers bought before that.")
    ] = None,
    teacher: TeacherOption = None,
    identity: IdentityOption = None,
    account: AccountOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would go.")] = (
        False
    ),
) -> None:
    """Remove answers, and give their space back: to the disk, or to the server.

    A run that asks for one of them again buys it again. What a run has spent
    does not go down. At least one choice must be given; several must all apply.
    """
    from cuvee.progress import say
    from cuvee.teach.ledger import survey

    with errors_as_messages():
        chosen = survey.Chosen(teacher, identity, account, before=_days_ago(older_than))
        if chosen == survey.Chosen():
            raise RecipeError(
                "say what to remove: --older-than DAYS, --teacher, --identity or --account"
            )
        place = _place(ledger)
        found = survey.count_chosen(place, chosen)
        if not found.answers:
            say(f"{ledger}: {_described(chosen)}: no such answers; nothing to remove")
            return
        what = f"{found.answers} answers ({_described(chosen)}), bought for {found.usd:.2f} USD"
        if not yes:
            say(f"{ledger}: would remove {what}; add --yes to do it")
            return
        removed = survey.prune(place, chosen)
        say(f"{ledger}: removed {removed} answers ({_described(chosen)})")
        if isinstance(place, Path):
            say(f"{ledger}: {survey.shrink(place) / 1e6:.1f} MB given back")
        else:
            say(f"{ledger}: the server will use their space again (autovacuum)")


@app.command(epilog=EXAMPLES["verify"])
def verify(ledger: LedgerArgument) -> None:
    """Check the file, every answer and the accounts.

    Of a server the answers and accounts; its files are its own matter. An
    answer is sound where its key is the hash of its request and its response
    can be read. Changes nothing. The exit code is 1 where something is wrong.
    """
    from cuvee.progress import bar, console, say
    from cuvee.teach.ledger.check import verify as check
    from cuvee.teach.ledger.survey import Chosen, count_chosen

    with errors_as_messages():
        place = _place(ledger)
        total = count_chosen(place, Chosen()).answers
        with bar(f"verify {place.name}", total=total, unit="answers") as tick:
            found = check(place, tick=tick)
        for detail in found.details:
            console.print(detail, style="red", markup=False)
        if found.faults:
            counts = ", ".join(f"{name} {n}" for name, n in sorted(found.faults.items()))
            raise DataError(
                f"{ledger}: {found.faults.total()} faults ({counts}); take a backup, or carry "
                "what is sound to a new ledger: `cuvee ledger export` it, `import` it there"
            )
        say(f"{ledger}: {found.answers} answers, all sound")


@app.command(epilog=EXAMPLES["copy"])
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The ledger: file or database.")],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="A new one, or the copy that was cut off.")
    ],
) -> None:
    """Copy a whole ledger: answers, what is in doubt, what every run has spent.

    From a file to a database, back, or between two of a kind. Stop the runs that
    use it first. Cut off, the same command goes on where it was; at the end both
    are read and compared, and only then is TO a ledger with its accounts.
    """
    from cuvee.progress import bar, say, warn
    from cuvee.teach.ledger import located
    from cuvee.teach.ledger.copies import copy as copy_all
    from cuvee.teach.ledger.survey import Chosen, count_chosen

    with errors_as_messages():
        place, other = _place(source), located(target)
        total = count_chosen(place, Chosen()).answers
        with bar(f"copy and compare {place.name}", total=3 * total, unit="answers") as tick:
            done = copy_all(place, other, tick=tick)
        if done.damaged:
            warn(
                f"{source}: {done.damaged} answers are not what was stored; they were copied as "
                "they are: `cuvee ledger verify` names them"
            )
        say(
            f"{target}: {done.answers} answers ({done.before} were there already), "
            f"{done.in_doubt} requests in doubt, all accounts; the same as in {source}"
        )


def _place(ledger: str) -> "Place":
    from cuvee.teach.ledger import located

    place = located(ledger)
    if isinstance(place, Path) and not place.is_file():
        raise DataError(f"{ledger}: no such ledger; `ledger:` in the recipe says where it is")
    return place


def _days_ago(days: int | None) -> str | None:
    if days is None:
        return None
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def _described(chosen: "Chosen") -> str:
    """Return the choice in words."""
    words = {
        "of teacher": chosen.teacher,
        "of model": chosen.identity,
        "of run": chosen.account,
        "from before": chosen.before,
    }
    return ", ".join(f"{w} {v}" for w, v in words.items() if v is not None) or "all answers"


def _print_table(groups: "Sequence[Group]", *, by: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(by, overflow="fold")
    spending = by != "identity"
    names = ["answers", "prompt tokens", "answer tokens", "USD"]
    names += ["in doubt", "spent USD"] * spending
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("first", no_wrap=True)
    table.add_column("last", no_wrap=True)
    for group in groups:
        table.add_row(*_cells(group, spending=spending))
    # Where nobody reads along, names and numbers stay on one line.
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    console.print(table)
    uncounted = sum(group.uncounted for group in groups)
    if uncounted:
        console.print(f"{uncounted} answers whose server did not count are in no sum of tokens")


def _cells(group: "Group", *, spending: bool) -> list[str]:
    cells = [escape(group.name) or "(not known)", f"{group.answers:,}"]
    cells += [f"{group.prompt_tokens:,}", f"{group.completion_tokens:,}", f"{group.usd:,.4f}"]
    if spending:
        cells += [f"{group.in_doubt or 0:,}", f"{group.spent_usd or 0:,.4f}"]
    return [*cells, group.first or "-", group.last or "-"]
