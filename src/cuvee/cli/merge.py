"""`cuvee merge` (any checkpoints by a config, or a run's specialists) and `cuvee diff`."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cuvee.cli.messages import errors_as_messages
from cuvee.cli.run import LimitOption, OutOption, SetOption, run_recipe
from cuvee.errors import RecipeError

UNITS = {
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip

PIPED_WIDTH = 160
"""Columns of a table that goes into a file or another program."""

MERGE_HELP = """Merge checkpoints by a config; or, without OUT, the specialists of a run.

CONFIG OUT: CONFIG is a YAML file as mergekit reads it, or ours; OUT is the folder to write.
Killed and started again, a merge goes on with the shards it has finished.

RECIPE: the stage of a run, as any other; `--out`, `--limit` and `--set` belong to it alone."""

MERGE_EXAMPLES = (
    "Examples: cuvee merge ties.yml merged --max-ram 4GB | cuvee merge ties.yml merged --dry-run "
    "| cuvee merge recipes/demo.yaml (the stages before it must be done)"
)

ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="Default: the cores this process may use."),
]


def merge(  # noqa: PLR0913 - one a flag
    place: Annotated[
        Path, typer.Argument(metavar="CONFIG|RECIPE", help="A merge config, or a recipe.")
    ],
    target: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="The folder to write, with a config.")
    ] = None,
    *,
    max_ram: Annotated[
        str | None,
        typer.Option("--max-ram", metavar="SIZE", help="Most memory to use, e.g. 4GB or 1.5GiB."),
    ] = None,
    threads: ThreadsOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would be done, stop.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, metavar="N", help="As `seed:` in a config that has none."),
    ] = None,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Read NaN and infinite values as 0.")
    ] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="End when the disk holds the result (cp does not).")
    ] = False,
    out: OutOption = None,
    limit: LimitOption = None,
    override: SetOption = None,
) -> None:
    """Merge (the help is `MERGE_HELP`)."""
    of_config = {
        "--max-ram": max_ram,
        "--threads": threads,
        "--dry-run": dry_run or None,
        "--seed": seed,
        "--allow-nonfinite": allow_nonfinite or None,
        "--sync": sync or None,
    }
    of_run = {"--out": out, "--limit": limit, "--set": override or None}
    with errors_as_messages():
        if target is None:
            _require_recipe(place, of_config)
            run_recipe(place, ("merge",), out=out, limit=limit, override=override)
            return
        _require_config(place, of_run)
        flags: dict[str, Any] = {} if seed is None else {"seed": seed}
        flags |= {"allow_nonfinite": True} if allow_nonfinite else {}
        limit_bytes = None if max_ram is None else parse_size(max_ram, flag="--max-ram")
        way = Way(threads=threads, max_ram=limit_bytes, dry_run=dry_run, sync=sync)
        merge_by_config(place, target, flags=flags, way=way)


@dataclasses.dataclass(frozen=True)
class Way:
    """How to merge: nothing here changes a byte of the result."""

    threads: int | None
    max_ram: int | None
    """Bytes."""
    dry_run: bool
    sync: bool


def merge_by_config(place: Path, out: Path, *, flags: dict[str, Any], way: Way) -> None:
    """Merge by a config file into a folder; raises what reading it or merging raises."""
    from cuvee.merge.config.read import read_config

    config = read_config(place, flags)

    from cuvee.merge.stream import describe
    from cuvee.merge.stream import merge as merge_models
    from cuvee.merge.threads import cores
    from cuvee.progress import say

    threads = way.threads or cores()
    if way.dry_run:
        for line in describe(config, out, threads=threads, max_ram=way.max_ram):
            typer.echo(line)
        return
    merge_models(config, out, threads=threads, max_ram=way.max_ram, sync=way.sync)
    say(f"merged model: {out} (what the merge did: {out / 'cuvee_merge.html'})")


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A checkpoint: a folder or a hub id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another of the same architecture.")],
    *,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a heat map as well.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: every tensor, all digits.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Show where two checkpoints differ: norms, cosines and shares of moved weights.

    Headers are compared first; tensors that only one has, or of other shapes, are named.
    """
    with errors_as_messages():
        import json

        from rich.console import Console

        from cuvee.merge.diagnostics.diff import diff_checkpoints, to_json
        from cuvee.merge.diagnostics.diff_table import show
        from cuvee.merge.diagnostics.heatmap import write_html
        from cuvee.merge.threads import cores

        difference = diff_checkpoints(local(a), local(b), threads=threads or cores())
        if html is not None:
            write_html(to_json(difference), html)
        if as_json:
            typer.echo(json.dumps(to_json(difference), indent=1))
        else:
            # Where nobody reads along, names of tensors stay on one line.
            Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(show(difference))


def local(model: str) -> Path:
    """Return a checkpoint's folder; what is no folder is looked up on the hub."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    from cuvee.models.checkpoint import resolve

    return resolve(model)


def parse_size(text: str, *, flag: str) -> int:
    """Return the bytes that a size like `4GB` (10^9) or `1.5GiB` (2^30) means.

    Raises RecipeError for anything else, for no unit and for less than one byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgt]i?b)", text.strip().lower())
    size = int(float(match[1]) * UNITS[match[2]]) if match else 0
    if size < 1:
        raise RecipeError(f"{flag} {text}: a size with its unit is allowed: 800MB, 4GB, 1.5GiB")
    return size


def _require_recipe(place: Path, of_config: dict[str, Any]) -> None:
    """Raise RecipeError for what belongs to `cuvee merge CONFIG OUT`."""
    if _has_keys(place, wanted={"merge_method", "models"}, absent={"domains"}):
        raise RecipeError(f"{place}: a merge config; name the folder to write: merge {place} OUT")
    if given := [flag for flag, value in of_config.items() if value is not None]:
        raise RecipeError(f"{', '.join(given)}: only with OUT, as in: cuvee merge CONFIG OUT")


def _require_config(place: Path, of_run: dict[str, Any]) -> None:
    """Raise RecipeError for what belongs to `cuvee merge RECIPE`."""
    if given := [flag for flag, value in of_run.items() if value is not None]:
        raise RecipeError(
            f"{', '.join(given)}: only without OUT, as in: cuvee merge RECIPE; a config says all "
            "by itself"
        )
    if place.is_dir() or _has_keys(place, wanted={"domains"}, absent={"merge_method"}):
        raise RecipeError(
            f"{place}: a recipe or a run, which takes no OUT; write cuvee merge {place}, or name "
            "a merge config"
        )


def _has_keys(file: Path, *, wanted: set[str], absent: set[str]) -> bool:
    """Say whether a YAML mapping has one of `wanted` and none of `absent`.

    A file that cannot be read has none: who reads it in earnest says what is wrong.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    keys = set(data) if isinstance(data, dict) else set()
    return bool(keys & wanted) and not keys & absent
