"""What became of chosen traces before training: what was left out, by what, or why it stayed.

Traces as their teachers wrote them and the files of a shelf in; a `Refining` by trace out, for
those that are examples. What the rules left of a text that a teacher went on with is in no
file: it is made again, as the rules are functions of the text. Not here: the rules and what must
hold (`cuvee.select.refine`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from cuvee.errors import DataError
from cuvee.lineage.changes import differences
from cuvee.lineage.columns import rows_there
from cuvee.lineage.grading import answers_about
from cuvee.lineage.requests import Books
from cuvee.lineage.shelves import Shelf
from cuvee.lineage.way import Change, Pass, Refining
from cuvee.records import Example, Trace
from cuvee.select.refine.rows import Refined
from cuvee.select.refine.rules import drop_repeats


def refinings(shelf: Shelf, traces: Sequence[Trace], books: Books) -> Mapping[str, Refining]:
    """Return what came of refining those of some traces that are examples, by trace.

    Raises DataError for a file that breaks its contract.
    """
    if shelf.refined is None:
        return {}
    ids = [trace.id for trace in traces]
    by_id: dict[str, list[Refined]] = {}
    for row in rows_there(shelf.refined, Refined, column="id", wanted=ids):
        by_id.setdefault(row.id, []).append(row)
    answers = answers_about([shelf.refiner], [*by_id], books)
    found = rows_there(shelf.examples, Example, column="id", wanted=[*by_id])
    examples = {example.id: example for example in found}
    refined = {}
    for trace in traces:
        if trace.id in examples:
            example, rows = examples[trace.id], by_id[trace.id]
            own = {asked.trace.id: asked for asked in answers.get(trace.id, ())}
            refined[trace.id] = Refining(
                passes=tuple(
                    Pass(
                        row=row,
                        applied=_applied(shelf, row),
                        changes=tuple(_changes(row, rows, trace, example)),
                        asked=own.get(row.trace or ""),
                    )
                    for row in rows
                ),
                tokens_before=rows[0].tokens_before,
                tokens=example.tokens,
                reasoning=example.reasoning,
                answer=example.answer,
            )
    return refined


def _applied(shelf: Shelf, row: Refined) -> Mapping[str, int]:
    try:
        return {str(rule): int(count) for rule, count in json.loads(row.applied).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{shelf.refined}: applied {row.applied[:80]!r} of {row.id} is no JSON object of "
            "counts; `cuvee select` writes the file anew"
        ) from error


def _changes(
    row: Refined, rows: Sequence[Refined], trace: Trace, example: Example
) -> Iterator[Change]:
    """Yield what one pass changed of a trace on its way to its example."""
    if not row.accepted:
        return
    middle = _between(rows, trace, example)
    texts = (trace.reasoning, middle) if row.way == "rules" else (middle, example.reasoning)
    for gone, new in differences(*texts):
        yield Change("reasoning", gone, new)
    if row.way == "rules":  # a teacher leaves the answer as it is
        for gone, new in differences(trace.answer, example.answer):
            yield Change("answer", gone, new)


def _between(rows: Sequence[Refined], trace: Trace, example: Example) -> str:
    """Return the reasoning after the rules and before the teacher."""
    accepted = {row.way for row in rows if row.accepted}
    if accepted == {"rules", "teacher"}:
        return drop_repeats(trace.reasoning).text
    return example.reasoning if "rules" in accepted else trace.reasoning
