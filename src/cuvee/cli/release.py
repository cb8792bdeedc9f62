"""`cuvee release`: a run's last stage and its push to the hub; GGUF files of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.cli.messages import errors_as_messages, refuse_flags
from cuvee.cli.run import LimitOption, SetOption, run_recipe
from cuvee.cli.verify import names_recipe
from cuvee.errors import RecipeError

if TYPE_CHECKING:
    from cuvee.recipe import Quantization
    from cuvee.release.parcel import Parcel

RELEASE_HELP = """Write report, cards and compared GGUF files of a run; push it to the hub.

RECIPE ends in .yaml or .yml, or is the folder of a run: its last stage. With
--push ORG/NAME the merged model, its GGUF files, cards, report, recipe and
manifest go to the Hugging Face hub afterwards, in one commit; never without it.
--dry-run writes and sends nothing: it lists every file that would be pushed
with its size, and what stays and why.

CHECKPOINT is a folder or a hub id: each --gguf TYPE is written into --out and
compared with the checkpoint (token ids, chat template, perplexity, KL)."""

RELEASE_EXAMPLES = (
    "Examples: cuvee release runs/demo "
    "| cuvee release runs/demo --push ORG/NAME --dry-run "
    "| cuvee release runs/demo --push ORG/NAME --private "
    "| cuvee release runs/demo/06_merged --gguf Q8_0,Q4_K_M --out gguf"
)

PlaceArgument = Annotated[
    str, typer.Argument(metavar="RECIPE|CHECKPOINT", help="What to release: see above.")
]
PushOption = Annotated[
    str | None,
    typer.Option("--push", metavar="ORG/NAME", help="Upload to this repository of the hub."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="With --push: list what would be uploaded, and stop.")
]
PrivateOption = Annotated[
    bool, typer.Option("--private", help="With --push: make the repository private.")
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gguf", metavar="TYPE", help="Q8_0, Q4_K_M, ...; several with a comma, or the flag again."
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Of a RECIPE its run folder; else where files go."),
]
NoParityOption = Annotated[
    bool, typer.Option("--no-parity", help="Do not compare the files with the checkpoint.")
]
TextOption = Annotated[
    Path | None,
    typer.Option("--text", metavar="FILE", help="The text to compare on. Default: cuvee's own."),
]
TokensOption = Annotated[
    int | None, typer.Option("--tokens", min=16, metavar="N", help="Of the text, so many tokens.")
]


def release(  # noqa: PLR0913 - one a flag
    place: PlaceArgument,
    *,
    push: PushOption = None,
    dry_run: DryRunOption = False,
    private: PrivateOption = False,
    gguf: TypeOption = None,
    out: OutOption = None,
    no_parity: NoParityOption = False,
    text: TextOption = None,
    tokens: TokensOption = None,
    limit: LimitOption = None,
    override: SetOption = None,
) -> None:
    """Release (the help is `RELEASE_HELP`)."""
    of_run = {"--push": push, "--dry-run": dry_run, "--private": private, "--limit": limit,
              "--set": override}  # fmt: skip
    of_checkpoint = {"--gguf": gguf, "--no-parity": no_parity, "--text": text, "--tokens": tokens}
    with errors_as_messages():
        if not names_recipe(place):
            refuse_flags(of_run, f"{place}: only with a RECIPE or the folder of a run")
            _release_checkpoint(place, of_checkpoint, out=out)
            return
        refuse_flags(
            of_checkpoint, f"{place}: only with a CHECKPOINT; a recipe says it as `release`"
        )
        if push is None:
            refuse_flags({"--dry-run": dry_run, "--private": private}, "only with --push ORG/NAME")
            run_recipe(Path(place), ("release",), out=out, limit=limit, override=override)
            return
        overrides = [*(override or []), *([f"limit={limit}"] if limit else [])]
        _push(Path(place), push, out=out, overrides=overrides, dry_run=dry_run, private=private)


def _push(
    place: Path,
    to: str,
    *,
    out: Path | None,
    overrides: list[str],
    dry_run: bool,
    private: bool,
) -> None:
    """Release a run, say what is pushed, and push it; a dry run only says it."""
    import os

    from cuvee.cli.run import run_recipe
    from cuvee.models.files import is_hub_id
    from cuvee.pipeline import open_recipe
    from cuvee.progress import say
    from cuvee.release.parcel import make_parcel
    from cuvee.release.push import push, require_token
    from cuvee.runfolder import Run

    if not is_hub_id(to):
        raise RecipeError(f"--push {to}: a repository of the hub is ORG/NAME")
    if not dry_run:
        require_token(to)  # before anything takes its time
        run_recipe(place, ("release",), out=out, limit=None, override=overrides)
    recipe, path = open_recipe(place, overrides=overrides, out=out)
    run = Run(path.absolute(), recipe)
    parcel = make_parcel(run, environment=os.environ, home=Path.home())
    _show(parcel, to)
    if dry_run:
        say("a dry run: nothing was sent")
    else:
        say(f"pushed: {push(parcel, to=to, private=private)}")


def _show(parcel: "Parcel", to: str) -> None:
    """Print every file with its size, what stays and why, and what is to be known."""
    from cuvee.release.wording import size

    typer.echo(f"{len(parcel.uploads)} files to https://huggingface.co/{to}:")
    for upload in parcel.uploads:
        changed = "  (paths made relative)" if upload.text is not None else ""
        typer.echo(f"  {upload.size:>15,}  {upload.path}{changed}")
    typer.echo(f"  {parcel.size:>15,}  bytes in all ({size(parcel.size)})")
    typer.echo("not uploaded:")
    for left in parcel.left_out:
        typer.echo(f"  {left.path}: {left.reason}")
    for note in parcel.notes:
        typer.echo(f"note: {note}")


def _types(given: list[str]) -> "list[Quantization]":
    """Return the types that the flags name, each once."""
    import typing

    from cuvee.recipe import Quantization

    known: dict[str, Quantization] = {name: name for name in typing.get_args(Quantization)}
    names = [name.strip() for text in given for name in text.split(",")]
    if wrong := [name for name in names if name not in known]:
        raise RecipeError(f"--gguf {', '.join(wrong)}: there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def _release_checkpoint(place: str, flags: Mapping[str, Any], *, out: Path | None) -> None:
    """Export a checkpoint by the flags, and say what came of it."""
    from cuvee.errors import DataError
    from cuvee.recipe import Parity

    if not flags["--gguf"]:
        raise RecipeError(f"{place}: --gguf is missing: a type, as Q8_0 or Q4_K_M")
    if out is None:
        raise RecipeError(f"{place}: --out is missing: the folder that the files go to")
    if flags["--no-parity"]:
        refuse_flags({k: flags[k] for k in ("--text", "--tokens")}, "not with --no-parity")
    types = _types(flags["--gguf"])
    given = {"text": flags["--text"] and str(flags["--text"]), "tokens": flags["--tokens"]}
    parity = None if flags["--no-parity"] else Parity(**{k: v for k, v in given.items() if v})
    from cuvee.release.alone import export, summary  # torch: not before the flags are checked

    released = export(place, out, types=types, parity=parity)
    for line in summary(released):
        typer.echo(line)
    if failures := [f"{r.file.name}: {r.failure}" for r in released if r.failure]:
        raise DataError(f"{'; '.join(failures)}. Do not hand these files out")
