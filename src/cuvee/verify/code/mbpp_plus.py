"""MBPP+ rows -> `reference` tests: their inputs, whose outputs are the reference program's.

The inputs are published as JSON, which knows no tuples, sets or complex numbers; the row's
`assertion` calls the function with what its first inputs really are, and all inputs take
their types from those. A result is compared as a set where the row's prompt does so. Nothing
is run here.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.errors import DataError
from cuvee.records import dumps
from cuvee.verify.code.plain import pack
from cuvee.verify.code.syntax import parsed


def from_row(row: Mapping[str, Any]) -> str:
    """Return our tests JSON. Raises DataError naming the column that is damaged."""
    for column, kind in _COLUMNS.items():
        if not isinstance(row.get(column), kind):
            raise DataError(f"column {column}: must be {kind.__name__}, as MBPP+ publishes it")
    inputs = [*row["base_input"], *(row["plus_input"] or ())]  # one row has `{}` for none
    if not inputs or not all(isinstance(args, list) for args in inputs):
        raise DataError("columns base_input, plus_input: must hold lists of arguments")
    examples = _calls(row["assertion"], row["entry_point"])
    cases = [
        [_like(a, [e[i] for e in examples if i < len(e)]) for i, a in enumerate(args)]
        for args in inputs
    ]
    tolerance = row.get("atol") or 0
    return dumps(
        {
            "kind": "reference",
            "fn_name": row["entry_point"],
            "program": row["canonical_solution"],
            "cases": [pack(args) for args in cases],
            **({"tolerance": tolerance} if tolerance else {}),
            **({"as_sets": True} if f"assert set({row['entry_point']}(" in row["prompt"] else {}),
        }
    )


_COLUMNS = {
    "base_input": list,
    "assertion": str,
    "entry_point": str,
    "canonical_solution": str,
    "prompt": str,
}


def _calls(assertion: str, entry: str) -> list[list[Any]]:
    """Return the arguments of each call of the function that has literal ones."""
    try:
        nodes = list(ast.walk(parsed(assertion)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"column assertion: {error}; must be Python") from error
    found = []
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry:
            try:
                found.append([ast.literal_eval(argument) for argument in node.args])
            except (ValueError, TypeError, SyntaxError):
                continue
    return found


def _like(value: Any, examples: Sequence[Any], outer: type = list) -> Any:
    """Return a JSON value in the Python types of the examples, where those agree.

    A list deeper than any example's is what the list around it is. A text where the
    examples are numbers is a number's: JSON has no complex ones.
    """
    kinds = {type(example) for example in examples}
    if isinstance(value, dict):
        inner = [item for e in examples if isinstance(e, dict) for item in e.values()]
        return {key: _like(item, inner) for key, item in value.items()}
    if isinstance(value, list):
        containers = kinds & {list, tuple, set} or {outer}
        kind = containers.pop() if len(containers) == 1 else list
        items = [_like(item, _inner(i, len(value), examples), kind) for i, item in enumerate(value)]
        return kind(items)
    if isinstance(value, str) and kinds and kinds <= {int, float, complex}:
        return _number(value)
    return value


def _number(text: str) -> Any:
    for kind in (int, float, complex):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _inner(index: int, length: int, examples: Sequence[Any]) -> list[Any]:
    """Return what the examples hold there: in a tuple of this length at this place, else all."""
    tuples = [e for e in examples if isinstance(e, tuple) and len(e) == length]
    if tuples and len(tuples) == len(examples):
        return [e[index] for e in tuples]
    return [item for e in examples if isinstance(e, list | tuple | set) for item in e]
