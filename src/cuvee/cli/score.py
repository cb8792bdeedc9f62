"""`cuvee score`: anyone's outputs graded against a benchmark, or against golds of their own."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.cli.merge import PIPED_WIDTH
from cuvee.cli.messages import errors_as_messages
from cuvee.cli.verify import FILES, SandboxOption, read_columns
from cuvee.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cuvee.evaluate.outputs import LeftOut
    from cuvee.evaluate.scoring import Graded

HELP = """Score outputs of any model, of any program: a file of replies.

With --benchmark each row is matched to a problem by its question, its id or its
index; without, it is checked against the gold (or tests) in the row itself.
Several rows of a problem, or a list of replies in one row, are its samples.
Problems without a reply are missing, never zeros: they are counted and said.

With --out the answers, verdicts and the score are kept: a folder that
`cuvee compare` reads."""

EXAMPLES = (
    "Examples: cuvee score outputs.jsonl --benchmark gsm8k --file test.jsonl "
    "| cuvee score samples.jsonl --benchmark humaneval --columns reply=completion "
    "--form completion --out scored/mine | cuvee score answers.jsonl --verifier math"
)

_SHOWN_MISSING = 5


OutputsArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help=f"Replies: {', '.join(FILES)}.")
]
BenchmarkOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A known benchmark, or a .yaml that declares one."),
]
FileOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The benchmark's problems, instead of from the hub."),
]
OutputColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="OURS=NAME,...",
        help="Names of columns: reply, question, id, index, model, finish_reason, tokens, gold, "
        "tests; a field of an object with a dot: reply=model_a.solution.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Whose replies: of rows with a column `model` only these; else just a name.",
    ),
]
FormOption = Annotated[
    str,
    typer.Option(
        metavar="FORM",
        help="Of code: reply (fenced, as a chat model writes), program (no fences) or "
        "completion (goes on from the question).",
    ),
]
MarkOption = Annotated[
    str | None,
    typer.Option(
        metavar="MARK", help="The answer stands behind the last MARK of a reply, e.g. 'A:'."
    ),
]


def score(  # noqa: PLR0913 - one a flag
    outputs: OutputsArgument,
    *,
    benchmark: BenchmarkOption = None,
    file: FileOption = None,
    columns: OutputColumnsOption = None,
    model: ModelOption = None,
    form: FormOption = "reply",
    answer_after: MarkOption = None,
    verifier: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Without --benchmark: math, code, choice or none."),
    ] = None,
    sandbox: SandboxOption = None,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rows at once. Default: one a core.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the scored folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score (the help is `HELP`)."""
    with errors_as_messages():
        from cuvee.evaluate.grading import FORMS, How
        from cuvee.evaluate.scored import check_out, write_scored
        from cuvee.evaluate.scoring import Asked, score_file
        from cuvee.progress import say
        from cuvee.recipe import Verify

        if not outputs.name.lower().endswith(FILES):
            raise RecipeError(f"{outputs}: outputs end in {', '.join(FILES)}")
        if form not in FORMS:
            raise RecipeError(f"--form {form}: allowed are {', '.join(FORMS)}")
        how = How(form, answer_after, Verify(processes=processes), sandbox or "bubblewrap")
        named = read_columns(columns) if columns else {}
        found = score_file(Asked(outputs, benchmark, file, verifier, named, model), how)
        (row,) = found.scored.scores
        if out is not None:
            check_out(out, row.model, row.benchmark)
        _show(found, as_json=as_json)
        if out is not None:
            write_scored(out, found.scored)
            say(f"{len(found.scored.traces)} answers, their verdicts and the score: {out}")


def _show(found: "Graded", *, as_json: bool) -> None:
    """Print score, pass@k and maj@k, and what does not stand in them."""
    from cuvee.evaluate.scored import at_k_table, score_table
    from cuvee.progress import printable

    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=1, ensure_ascii=True))
        return
    (score,) = found.scored.scores
    _print(score_table([score]))
    at_k = at_k_table([score])
    if at_k is not None:
        typer.echo("")
        _print(at_k)
    typer.echo("")
    for line in _notes(found):
        typer.echo(printable(line))


def _as_json(found: "Graded") -> dict[str, Any]:
    (score,) = found.scored.scores
    row = dataclasses.asdict(score)
    for name in ("protocol", "pass_at", "maj_at"):
        row[name] = json.loads(row[name])
    return {
        "score": row,
        "matched_by": found.matched.way,
        "left_out": [dataclasses.asdict(one) for one in found.left_out],
        "unanswered": [{"id": p.id, "place": p.place} for p in found.unanswered],
        "other_golds": found.matched.other_golds,
        "reasons": found.reasons(),
    }


def _notes(found: "Graded") -> Iterable[str]:
    """Yield what a reader must know of the score, a line each."""
    (score,) = found.scored.scores
    ways = {"own": "problems: the rows' own"}
    yield ways.get(found.matched.way, f"rows matched to problems by {found.matched.way}")
    reasons = found.reasons()
    if score.mean is None:
        why = ", ".join(f"{n} {r}" for r, n in reasons.items() if r.startswith("not_checked"))
        yield (
            f"no score: {score.not_checked} of {score.n_samples} answers could not be checked "
            f"({why}); in its place are the bounds if all of them were wrong, or right"
        )
    elif score.not_checked:
        yield f"{score.not_checked} answers could not be checked and are in no mean"
    yield "verdicts: " + ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    forgeable = sum("forgeable" in verdict.checker for verdict in found.scored.verdicts)
    if forgeable:
        yield f"{forgeable} of the verdicts are forgeable: their tests ran beside the program"
    silent = reasons.get("no_answer: no_final_answer", 0)
    if 2 * silent > score.n_samples:
        yield (
            f"{silent} of {score.n_samples} replies state no final answer that we know: where they "
            "state it behind a mark of their own, name it with --answer-after"
        )
    if len(found.samples) > 1:
        yield (
            f"samples a problem: {found.samples[0]} to {found.samples[-1]}; problems count alike, "
            "and pass@k and maj@k only to the fewest"
        )
    yield from _missing(found)


def _missing(found: "Graded") -> Iterable[str]:
    """Yield what of the benchmark and of the file is not in the score."""
    if found.unanswered:
        shown = ", ".join(p.place or p.id for p in found.unanswered[:_SHOWN_MISSING])
        more = " ..." if len(found.unanswered) > _SHOWN_MISSING else ""
        yield (
            f"{len(found.unanswered)} problems of the benchmark have no reply in the file and are "
            f"not in the score (they are no zeros): {shown}{more}"
        )
    yield from _left_out(found.left_out)
    if found.matched.other_golds:
        yield (
            f"{found.matched.other_golds} rows write another gold than the benchmark, whose gold "
            "was used: see that they are the same problems"
        )
    if not found.states_finish:
        yield "the file does not say why replies ended: truncated ones are not known"


def _left_out(left_out: "Sequence[LeftOut]") -> Iterable[str]:
    for reason in dict.fromkeys(one.reason for one in left_out):
        those = [one for one in left_out if one.reason == reason]
        yield f"left out: {len(those)} {reason}, the first: {those[0].place}: {those[0].detail}"


def _print(shown: "RenderableType") -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(width=width, highlight=False).print(shown)
