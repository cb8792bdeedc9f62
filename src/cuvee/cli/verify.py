"""`cuvee verify`: rows of a file, or of many, without a recipe; or the stage of a run."""

import contextlib
import dataclasses
import functools
import glob
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
    from cuvee.verify.summary import Summary

FILES = (".jsonl", ".jsonl.gz", ".parquet", ".json", ".csv")
RECIPES = (".yaml", ".yml")

VERIFY_HELP = """Check answers: the rows of a file, or of many; or the traces of a run.

FILE ends in .jsonl, .jsonl.gz, .parquet, .json or .csv; no recipe is needed.
A row holds a problem (question, gold or tests) and a reply, and gets a verdict:
correct, wrong, no_answer or not_checked, with its reason. Rows may be of any
number. Without --out only the summary is printed. The exit code is 0 when all
rows were gone through, whatever their verdicts.

SHARDS are Parquet files: a URL (s3://bucket/traces/*.parquet), a pattern, or a
folder of them. Verdicts go to --out, a shard for a shard, same name, same row
order. Started again, it goes on with the shards that are not done. Where some
could not be read the others are done, and the exit code is 1.

RECIPE ends in .yaml or .yml, or is the folder of a run: that run's stage, as
any other. --set belongs to it alone, --out (its folder) to all, --limit not to
SHARDS, the other flags to a FILE or SHARDS."""

VERIFY_EXAMPLES = (
    "Examples: cuvee verify answers.jsonl --out verdicts.jsonl "
    "| cuvee verify answers.parquet --columns reply=output,gold=solution --verifier math "
    "| cuvee verify --golds problems.jsonl | cuvee verify recipes/demo.yaml "
    "| cuvee verify answers.parquet --workers ray --address auto --out verdicts.parquet "
    "| cuvee verify 's3://bucket/traces/*.parquet' --out s3://bucket/verdicts/ --workers ray"
)


PlaceArgument = Annotated[
    str,
    typer.Argument(metavar="FILE|SHARDS|RECIPE", help="Rows to check, or a recipe or run folder."),
]
VerdictsOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="PATH",
        help="Write the verdicts: .jsonl, .jsonl.gz or .parquet; of SHARDS a folder or URL, a "
        "shard for each. Of a RECIPE: the run folder.",
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
        shards = is_shards(place)
        if not shards and is_recipe(Path(place)):
            where = {"sandbox": sandbox, "workers": workers, "address": address}
            _refuse({**how, **limits, **where}, "a FILE of rows", place)
            folder = None if out is None else Path(out)
            run_recipe(Path(place), ("verify",), out=folder, limit=limit, override=override)
            return
        _refuse({"set": override or None}, "a RECIPE", place)
        given = {name: value for name, value in how.items() if value is not None}
        at = Where(sandbox or "bubblewrap", workers or "pool", address)
        if shards:
            _refuse({"limit": limit}, "a FILE or a RECIPE; here name fewer shards", place)
            check_shards(place, out=out, limits=limits, at=at, how=given)
            return
        to = None if out is None else Path(out)
        check_file(Path(place), out=to, limit=limit, limits=limits, at=at, how=given)


def is_shards(place: str) -> bool:
    """Say whether a place means many files: a URL, a pattern, or a folder of Parquet files."""
    path = Path(place)
    if "://" in place or (glob.has_magic(place) and not path.exists()):
        return True
    recipe = (path / "recipe.yaml").exists()
    return path.is_dir() and not recipe and any(path.glob("*.parquet"))


def names_recipe(place: str) -> bool:
    """Say whether a place is a recipe, or the folder of a run, and not a model."""
    return place.lower().endswith(RECIPES) or (Path(place) / "recipe.yaml").exists()


def is_recipe(place: Path) -> bool:
    """Say whether a path means a recipe (or a run), by its name; rows are a file's otherwise.

    Raises RecipeError for a name that says neither.
    """
    name = place.name.lower()
    if place.is_dir() or name.endswith(RECIPES):
        return True
    if name.endswith(FILES):
        return False
    missing = "" if place.exists() else "there is no such file or folder; "
    raise RecipeError(
        f"{place}: {missing}rows end in {', '.join(FILES)}; a recipe ends in "
        f"{' or '.join(RECIPES)} or is the folder of a run"
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

    from cuvee.problems.files import count_rows, read_each
    from cuvee.progress import bar
    from cuvee.verify.rows import Reading
    from cuvee.verify.summary import Summary, check_out, write_verdicts

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
    _show(summary, None if out is None else f"{out}")


def check_shards(
    place: str, *, out: str | None, limits: Mapping[str, Any], at: Where, how: Mapping[str, Any]
) -> None:
    """Check the rows of shards where they stand, print the summary of all of them.

    Raises DataError where shards could not be done, after the summary of the others; and what
    `verify_shards` raises.
    """
    from cuvee.recipe.cluster import refused_address
    from cuvee.shards.record import How
    from cuvee.shards.verify import verify_shards
    from cuvee.shards.workers import on_ray, on_this_machine
    from cuvee.verify.rows import Reading

    if out is None:
        raise RecipeError("shards: --out FOLDER is needed: verdicts go there, a shard for a shard")
    if why := refused_address(at.workers, at.address):
        raise RecipeError(f"--{why}")
    workers = functools.partial(on_ray, address=at.address)
    verified = verify_shards(
        place,
        out,
        How(Reading(**how), _limits(limits), at.sandbox),
        open_workers=on_this_machine if at.workers == "pool" else workers,
    )
    _show(verified.summary, f"{verified.shards} shards in {out}")
    if verified.failed:
        shown = "\n  ".join(verified.failed[:20])
        others = "all others are" if verified.shards else "and no other is there"
        raise DataError(
            f"{len(verified.failed)} shards or pieces of shards could not be done, {others}; "
            f"mend them and run the same command again:\n  {shown}"
        )


def _show(summary: "Summary", place: str | None) -> None:
    """Print the table of what the verdicts were, and where they are."""
    from rich.console import Console

    from cuvee.progress import say
    from cuvee.verify.summary import summary_table

    # Where nobody reads along, reasons and numbers stay on one line.
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(summary_table(summary))
    if place is not None:
        say(f"{summary.reasons.total()} verdicts: {place}")
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


def _refuse(flags: Mapping[str, Any], whose: str, place: str) -> None:
    """Raise RecipeError for flags that belong to the other kind of place."""
    given = [name.replace("_", "-") for name, value in flags.items() if value is not None]
    if given:
        raise RecipeError(f"{place}: --{', --'.join(given)}: only with {whose}")
