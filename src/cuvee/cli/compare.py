"""`cuvee compare`: two models on the same problems, paired."""

import dataclasses
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.cli.messages import errors_as_messages

if TYPE_CHECKING:
    from cuvee.evaluate.sides import Compared

HELP = """Compare two models problem by problem: is A better than B, or is it noise?

A and B are each a scored folder (`cuvee score --out`, `cuvee evaluate --out`), a
model of a run (RUN:MODEL), a run (its models one by one against the other
run's), or a file of verdicts (`cuvee verify --out`).

Printed: A minus B in points, with the 95 % interval and the p-value of no
difference, both paired by problem; what differs in how they were measured; and
how many more samples or problems would settle it."""

EXAMPLES = (
    "Examples: cuvee compare scored/a scored/b | cuvee compare runs/demo:merged runs/demo:base "
    "| cuvee compare runs/one runs/two --json"
)

PlaceArgument = Annotated[str, typer.Argument(metavar="A", show_default=False)]
OtherArgument = Annotated[str, typer.Argument(metavar="B", show_default=False)]


def compare(
    one: PlaceArgument,
    two: OtherArgument,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare (the help is `HELP`)."""
    with errors_as_messages():
        from cuvee.evaluate.sides import compare as compare_sides
        from cuvee.evaluate.sides import open_side, pair_sides

        pairs = pair_sides(open_side(one), open_side(two))
        found = [compared for pair in pairs for compared in compare_sides(*pair)]
        if as_json:
            rows = [_as_json(compared) for compared in found]
            typer.echo(json.dumps(rows, indent=1, ensure_ascii=True))
            return
        from cuvee.progress import printable

        for number, compared in enumerate(found):
            if number:
                typer.echo("")
            for line in describe(compared):
                typer.echo(printable(line))


def _as_json(compared: "Compared") -> dict[str, Any]:
    row = dataclasses.asdict(compared)
    row.update(row.pop("row"))
    row["protocols"] = json.loads(row["protocols"])
    return row


def describe(compared: "Compared") -> Iterable[str]:
    """Yield the lines that say what a comparison found."""
    row = compared.row
    means = [f"{100 * mean:.1f} %" for mean in (compared.model_mean, compared.against_mean)]
    yield f"{row.benchmark}: {row.model} ({means[0]}) minus {row.against} ({means[1]})"
    yield (
        f"  {_points(row.difference)} points, 95 % interval {_points(row.low)} to "
        f"{_points(row.high)}, {_p_value(row.p_value)}; {row.n_problems} problems, paired"
    )
    yield (
        f"  {row.model} better on {compared.better}, {row.against} better on {compared.worse}, "
        f"alike on {compared.alike}"
    )
    for name, alone in (
        (row.model, compared.model_alone),
        (row.against, compared.against_alone),
    ):
        if alone:
            yield f"  not compared: {alone} problems that {name} alone has answers to"
    yield from (f"  {line}" for line in _protocols(json.loads(row.protocols)))
    yield f"  {_settled(compared)}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _p_value(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.4f}"


def _protocols(differing: dict[str, list[Any]]) -> Iterable[str]:
    if not differing:
        yield "measured alike, as far as their protocols say"
        return
    yield "MEASURED DIFFERENTLY: the difference may be the protocol's:"
    for key, (model, against) in differing.items():
        yield f"  {key}: {_short(model)} against {_short(against)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _settled(compared: "Compared") -> str:
    """Say whether the difference is settled, or what would settle it."""
    row = compared.row
    if row.low > 0 or row.high < 0:
        return "settled: the interval leaves out 0"
    ways = []
    if row.samples_needed is not None:
        ways.append(f"{row.samples_needed} samples a problem of each")
    if row.problems_needed is not None:
        ways.append(f"{row.problems_needed} problems with as many samples as now")
    if not ways:
        return "not settled, and no number of samples of these problems would settle it"
    return f"not settled: if the difference is as seen, {' or '.join(ways)} would settle it"
