r"""The forms in which published data sets hold the tests of code problems -> ours.

In: the value of a `tests` column, or a whole row of MBPP or HumanEval. Out: the JSON of
`Problem.tests`::

    {"kind": "function", "fn_name": "f", "cases": [{"args": [...], "expected": ...}]}
    {"kind": "stdin", "cases": [{"input": "...", "output": "..."}]}
    {"kind": "assert", "code": "assert f(1) == 2\n..."}

A value in none of the known forms gives None, and the caller drops the row. Nothing is run
here.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.records import dumps


def from_value(value: Any) -> str | None:
    """Return our tests JSON for one value, or None where its form is not known.

    Known: our own forms; OpenThoughts, TACO and APPS `{"inputs", "outputs", "fn_name"}`;
    a list of assert statements; each as an object or as its JSON text.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if isinstance(value, Mapping) and value.get("kind") in ("function", "stdin", "assert"):
        return dumps(value)
    if isinstance(value, Mapping) and "inputs" in value and "outputs" in value:
        return _from_inputs(value["inputs"], value["outputs"], value.get("fn_name"))
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return dumps({"kind": "assert", "code": "\n".join(value)})
    return None


def from_row(row: Mapping[str, Any]) -> str | None:
    """Return our tests JSON for a row of MBPP or HumanEval, None for any other.

    MBPP: `test_setup_code`, `test_list` (and `challenge_test_list`, which is left out, as
    its own evaluation does). HumanEval: `test` defines `check`, called with `entry_point`.
    """
    if isinstance(row.get("test_list"), list):
        lines = [row.get("test_setup_code") or "", *map(str, row["test_list"])]
        return dumps({"kind": "assert", "code": "\n".join(line for line in lines if line)})
    if isinstance(row.get("test"), str) and isinstance(row.get("entry_point"), str):
        code = f"{row['test']}\n\ncheck({row['entry_point']})\n"
        return dumps({"kind": "assert", "code": code})
    return None


def _from_inputs(inputs: Any, outputs: Any, fn_name: Any) -> str | None:
    lists = isinstance(inputs, list) and isinstance(outputs, list)
    if not lists or not inputs or len(inputs) != len(outputs):
        return None
    pairs = list(zip(inputs, outputs, strict=True))
    if fn_name:
        return _function(str(fn_name), pairs)
    cases = [{"input": _text(i), "output": _text(o)} for i, o in pairs]
    return dumps({"kind": "stdin", "cases": cases})


def _function(fn_name: str, pairs: Sequence[tuple[Any, Any]]) -> str | None:
    """Return call tests; an input is the list of arguments, an output the result.

    The sets write a result either bare or in a list of one. It is unwrapped only where
    every output of the problem is a list of one, since a result may be such a list itself.
    """
    if not all(isinstance(arguments, list) for arguments, _ in pairs):
        return None
    wrapped = all(isinstance(o, list) and len(o) == 1 for _, o in pairs)
    cases = [{"args": i, "expected": o[0] if wrapped else o} for i, o in pairs]
    return dumps({"kind": "function", "fn_name": fn_name, "cases": cases})


def _text(value: Any) -> str:
    """Return standard input or output as text; some rows hold a list of lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
