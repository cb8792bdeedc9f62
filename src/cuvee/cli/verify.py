"""`cuvee verify`: rows of a file, alone and without a recipe; or the stage of a run."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.cli.merge import PIPED_WIDTH
from cuvee.cli.messages import errors_as_messages
from cuvee.cli.run import SetOption, run_recipe
from cuvee.errors import DataError, RecipeError

if TYPE_CHECKING:
    from cuvee.records import Verdict

FILES = (".jsonl", ".jsonl.gz", ".parquet", ".json", ".csv")
RECIPES = (".yaml", ".yml")

VERIFY_HELP = """Check answers: the rows of a file; or the traces of a run.

FILE ends in .jsonl, .jsonl.gz, .parquet, .json or .csv; no recipe is needed.
A row holds a problem (question, gold or tests) and a reply, and gets a verdict:
correct, wrong, no_answer or not_checked, with its reason. Rows may be of any
number. Without --out only the summary is printed. The exit code is 0 when all
rows were gone through, whatever their verdicts.

RECIPE ends in .yaml or .yml, or is the folder of a run: that run's stage, as
any other. --set belongs to it alone, --out (its folder) and --limit to both,
the other flags to a FILE."""

VERIFY_EXAMPLES = (
    "Examples: cuvee verify answers.jsonl --out verdicts.jsonl "
    "| cuvee verify answers.parquet --columns reply=output,gold=solution --verifier math "
    "| cuvee verify --golds problems.jsonl | cuvee verify recipes/demo.yaml "
    "| cuvee verify answers.parquet --workers ray --address auto --out verdicts.parquet"
)


PlaceArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE|RECIPE", help="Rows to check, or a recipe or run folder."),
]
VerdictsOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="PATH",
        help="Write the verdicts: .jsonl, .jsonl.gz or .parquet. Of a RECIPE: the run folder.",
    ),
]
GoldsOption = Annotated[
    bool, typer.Option("--golds", help="Check each row's gold by its own verifier, as a reply.")
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="OURS=NAME,...",
        help="Names of columns: question, gold, program, tests, instructions, kwargs, "
        "verifier, reply, id, finish_reason.",
    ),
]
VerifierOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="math, code, choice, instructions or none, of rows without a column `verifier`. "
        "Default: instructions or code where a row has them or tests, else math.",
    ),
]
SandboxOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND", help="What runs programs: bubblewrap (default), landlock or none."
    ),
]
WorkersOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="pool (default: this machine) or ray (a cluster)."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Of the Ray cluster, or auto. Default: RAY_ADDRESS, else a Ray of this machine.",
    ),
]
FirstOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="The first N rows, or N problems a domain."),
]


@dataclasses.dataclass(frozen=True)
class Where:
    """Where rows are checked. Raises RecipeError for workers that there are not."""

    sandbox: str
    workers: str
    address: str | None

    def __post_init__(self) -> None:
        """Check the names."""
        if self.workers not in ("pool", "ray"):
            raise RecipeError(f"--workers {self.workers}: pool or ray")


def verify(  # noqa: PLR0913 - one a flag
    place: PlaceArgument,
    *,
    out: VerdictsOption = None,
    golds: GoldsOption = False,
    columns: ColumnsOption = None,
    verifier: VerifierOption = None,
    sandbox: SandboxOption = None,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rows at once. Default: one a core.")
    ] = None,
    math_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Time of one comparison. Default: 5.")
    ] = None,
    code_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Time of one test case. Default: 6.")
    ] = None,
    memory_mb: Annotated[
        int | None, typer.Option(metavar="MB", help="Memory of one program. Default: 1024.")
    ] = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    limit: FirstOption = None,
    override: SetOption = None,
) -> None:
    """Verify (the help is `VERIFY_HELP`)."""
    limits = {
        "processes": processes,
        "math_seconds": math_seconds,
        "code_seconds": code_seconds,
        "memory_mb": memory_mb,
    }
    with errors_as_messages():
        how = {
            "verifier": verifier,
            "columns": columns and read_columns(columns),
            "golds": golds or None,
        }
        if is_recipe(place):
            where = {"sandbox": sandbox, "workers": workers, "address": address}
            _refuse({**how, **limits, **where}, "a FILE of rows", place)
            run_recipe(place, ("verify",), out=out, limit=limit, override=override)
            return
        _refuse({"set": override or None}, "a RECIPE", place)
        given = {name: value for name, value in how.items() if value is not None}
        at = Where(sandbox or "bubblewrap", workers or "pool", address)
        check_file(place, out=out, limit=limit, limits=limits, at=at, how=given)


def is_recipe(place: Path) -> bool:
    """Say whether a path means a recipe (or a run), by its name; rows are a file's otherwise.

    Raises RecipeError for a name that says neither.
    """
    name = place.name.lower()
    if place.is_dir() or name.endswith(RECIPES):
        return True
    if name.endswith(FILES):
        return False
    raise RecipeError(
        f"{place}: rows end in {', '.join(FILES)}; a recipe ends in {' or '.join(RECIPES)} or is "
        "the folder of a run"
    )


def read_columns(given: list[str]) -> dict[str, str]:
    """Return `ours=name,ours=name` as a mapping. Raises RecipeError for anything else."""
    found: dict[str, str] = {}
    for part in ",".join(given).split(","):
        ours, equals, name = part.partition("=")
        if not equals or not ours.strip() or not name.strip():
            raise RecipeError(f"--columns {part!r}: write our name = the file's: reply=output")
        found[ours.strip()] = name.strip()
    return found


def check_file(
    place: Path,
    *,
    out: Path | None,
    limit: int | None,
    limits: Mapping[str, Any],
    at: Where,
    how: Mapping[str, Any],
) -> None:
    """Check the rows of a file, write the verdicts, print the summary.

    `how` has the fields of `Reading` that were given. Raises what reading, checking and
    writing raise.
    """
    from collections import deque
    from itertools import islice

    from rich.console import Console

    from cuvee.problems.files import count_rows, read_each
    from cuvee.progress import bar, say
    from cuvee.verify.rows import Reading
    from cuvee.verify.summary import Summary, check_out, summary_table, write_verdicts

    reading = Reading(**how)
    if out is not None:
        check_out(out)
    total = min(count_rows(place), limit or 10**18)
    rows = (row for _, row in islice(read_each(place), limit))
    summary = Summary()
    with (
        _checking(at, reading, _limits(limits)) as check,
        bar(f"verify {place.name}", total=total, unit="rows") as tick,
    ):
        checked = check(rows, tick=tick)
        verdicts = summary.counting(_named(place, checked))
        if out is None:
            deque(verdicts, maxlen=0)
        else:
            write_verdicts(out, verdicts)
    # Where nobody reads along, reasons and numbers stay on one line.
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(summary_table(summary))
    if out is not None:
        say(f"{summary.reasons.total()} verdicts: {out}")
    forgeable = sum(n for name, n in summary.checkers.items() if "forgeable" in name)
    if forgeable:
        say(f"{forgeable} of the verdicts are forgeable: their tests ran beside the program")


@contextlib.contextmanager
def _checking(at: Where, reading: Any, limits: Any) -> "Iterator[Callable[..., Iterator[Verdict]]]":
    """Yield what checks rows while the block runs: on this machine, or on a cluster."""
    from cuvee.recipe.cluster import refused_address

    if why := refused_address(at.workers, at.address):
        raise RecipeError(f"--{why}")
    if at.workers == "pool":
        from cuvee.verify.rows import check_reading

        yield functools.partial(check_reading, reading=reading, limits=limits, sandbox=at.sandbox)
        return
    from cuvee.verify.clustered import check_rows_on_ray, opened

    # Rows of a file say what they are as they come; programs may be among them.
    programs = reading.verifier in ("code", None)
    with opened(at.address, sandbox=at.sandbox if programs else None):
        yield functools.partial(
            check_rows_on_ray, reading=reading, limits=limits, sandbox=at.sandbox
        )


def _limits(given: Mapping[str, Any]) -> Any:
    """Return the limits with what was given. Raises RecipeError for one out of range."""
    from pydantic import ValidationError

    from cuvee.recipe import Verify

    try:
        return Verify.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        flag = str(first["loc"][0]).replace("_", "-")
        raise RecipeError(f"--{flag} {first['input']}: {first['msg'].lower()}") from error


def _named(place: Path, verdicts: "Iterator[Verdict]") -> "Iterator[Verdict]":
    """Yield the verdicts; an error of the first row gets the file's name."""
    try:
        yield from verdicts
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(str(place)) else f"{place}: {text}") from error


def _refuse(flags: Mapping[str, Any], whose: str, place: Path) -> None:
    """Raise RecipeError for flags that belong to the other kind of place."""
    given = [name.replace("_", "-") for name, value in flags.items() if value is not None]
    if given:
        raise RecipeError(f"{place}: --{', --'.join(given)}: only with {whose}")
