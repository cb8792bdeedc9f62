"""The operations that generated Python functions are composed of, and how to run them.

A pipeline is a kind (`list`, `text` or `number`: what the function takes), steps that keep
the kind, and a final operation whose value is returned. Each operation knows its English,
its Python expression and a Python callable that does the same, so cases are made without
running generated source. Not here: choosing pipelines (`cuvee.problems.functions`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Constant = int | str | None
Step = tuple[str, Constant]
"""An operation's name with its constant (None where it takes none)."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation; `{k}` stands for its constant in the three texts."""

    english: str
    """Third person: "adds {k} to each number"; of a final one: "the sum"."""
    code: str
    """A Python expression in the kind's variable."""
    note: str
    """The heart of the code, for a line of reasoning."""
    run: Callable[[Any, Any], Any]
    """(value, constant) -> value; a final one may raise ValueError where it is undefined."""
    constants: Sequence[Constant] = (None,)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a function takes, and what can be done with it."""

    variable: str
    takes: str
    steps: Mapping[str, Operation]
    finals: Mapping[str, Operation]


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A function as data; JSON-able through `as_meta` and back through `from_meta`."""

    kind: str
    steps: tuple[Step, ...]
    final: Step


def _keep(english: str, test: str, run: Callable[[int, Any], bool], *ks: Constant) -> Operation:
    return Operation(
        f"keeps only the {english}",
        f"[x for x in xs if {test}]",
        f"keep if {test}",
        lambda xs, k: [x for x in xs if run(x, k)],
        ks or (None,),
    )


def _each(english: str, change: str, run: Callable[[int, Any], int], *ks: Constant) -> Operation:
    return Operation(
        english,
        f"[{change} for x in xs]",
        f"each {change}",
        lambda xs, k: [run(x, k) for x in xs],
        ks or (None,),
    )


def _whole(english: str, code: str, run: Callable[[Any, Any], Any], *ks: Constant) -> Operation:
    return Operation(english, code, code, run, ks or (None,))


LIST_STEPS = {
    "even": _keep("even numbers", "x % 2 == 0", lambda x, k: x % 2 == 0),
    "odd": _keep("odd numbers", "x % 2 == 1", lambda x, k: x % 2 == 1),
    "multiples": _keep(
        "multiples of {k}", "x % {k} == 0", lambda x, k: bool(x % k == 0), *range(3, 6)
    ),
    "greater": _keep("numbers greater than {k}", "x > {k}", lambda x, k: bool(x > k), *range(10)),
    "less": _keep("numbers less than {k}", "x < {k}", lambda x, k: bool(x < k), *range(3, 13)),
    "not": _keep("numbers that are not {k}", "x != {k}", lambda x, k: bool(x != k), *range(1, 7)),
    "add": _each("adds {k} to each number", "x + {k}", lambda x, k: x + int(k), *range(1, 10)),
    "subtract": _each(
        "subtracts {k} from each number", "x - {k}", lambda x, k: x - int(k), *range(1, 10)
    ),
    "multiply": _each(
        "multiplies each number by {k}", "x * {k}", lambda x, k: x * int(k), *range(2, 10)
    ),
    "remainder": _each(
        "replaces each number by its remainder modulo {k}",
        "x % {k}",
        lambda x, k: x % int(k),
        *range(3, 8),
    ),
    "square": _each("squares each number", "x * x", lambda x, k: x * x),
    "negate": _each("negates each number", "-x", lambda x, k: -x),
    "absolute": _each("takes the absolute value of each number", "abs(x)", lambda x, k: abs(x)),
    "reverse": _whole("reverses the list", "xs[::-1]", lambda xs, k: xs[::-1]),
    "sort": _whole("sorts the list", "sorted(xs)", lambda xs, k: sorted(xs)),
    "sort_down": _whole(
        "sorts the list from largest to smallest",
        "sorted(xs, reverse=True)",
        lambda xs, k: sorted(xs, reverse=True),
    ),
    "distinct": _whole(
        "drops duplicates, keeping the first of each",
        "list(dict.fromkeys(xs))",
        lambda xs, k: list(dict.fromkeys(xs)),
    ),
    "first": _whole("takes the first {k} numbers", "xs[:{k}]", lambda xs, k: xs[:k], *range(2, 6)),
    "last": _whole("takes the last {k} numbers", "xs[-{k}:]", lambda xs, k: xs[-k:], *range(2, 6)),
    "skip": _whole("drops the first {k} numbers", "xs[{k}:]", lambda xs, k: xs[k:], 2, 3),
    "every_other": _whole(
        "takes every second number, starting with the first", "xs[::2]", lambda xs, k: xs[::2]
    ),
}
LIST_FINALS = {
    "list": _whole("the list", "xs", lambda xs, k: xs),
    "sum": _whole("the sum", "sum(xs)", lambda xs, k: sum(xs)),
    "largest": _whole("the largest number", "max(xs)", lambda xs, k: max(xs)),
    "smallest": _whole("the smallest number", "min(xs)", lambda xs, k: min(xs)),
    "count": _whole("how many numbers are left", "len(xs)", lambda xs, k: len(xs)),
    "spread": _whole(
        "the largest number minus the smallest",
        "max(xs) - min(xs)",
        lambda xs, k: max(xs) - min(xs),
    ),
    "join": _whole(
        "the numbers joined by '{k}'",
        "'{k}'.join(str(x) for x in xs)",
        lambda xs, k: str(k).join(str(x) for x in xs),
        "-",
        "+",
        "/",
    ),
}
TEXT_STEPS = {
    "reverse": _whole("reverses it", "s[::-1]", lambda s, k: s[::-1]),
    "upper": _whole("makes it upper case", "s.upper()", lambda s, k: s.upper()),
    "swap": _whole("swaps upper and lower case", "s.swapcase()", lambda s, k: s.swapcase()),
    "vowels": _whole(
        "keeps only the vowels",
        "''.join(c for c in s if c in 'aeiouAEIOU')",
        lambda s, k: "".join(c for c in s if c in "aeiouAEIOU"),
    ),
    "no_vowels": _whole(
        "removes the vowels",
        "''.join(c for c in s if c not in 'aeiouAEIOU')",
        lambda s, k: "".join(c for c in s if c not in "aeiouAEIOU"),
    ),
    "no_spaces": _whole(
        "removes the spaces", "s.replace(' ', '')", lambda s, k: s.replace(" ", "")
    ),
    "remove": _whole(
        "removes each '{k}'", "s.replace('{k}', '')", lambda s, k: s.replace(k, ""), *"aenorst"
    ),
    "star": _whole(
        "replaces each '{k}' by '*'",
        "s.replace('{k}', '*')",
        lambda s, k: s.replace(k, "*"),
        *"aenorst",
    ),
    "first": _whole("takes the first {k} characters", "s[:{k}]", lambda s, k: s[:k], *range(2, 9)),
    "last": _whole("takes the last {k} characters", "s[-{k}:]", lambda s, k: s[-k:], *range(2, 9)),
    "skip": _whole("drops the first {k} characters", "s[{k}:]", lambda s, k: s[k:], *range(1, 6)),
    "every_other": _whole(
        "takes every second character, starting with the first", "s[::2]", lambda s, k: s[::2]
    ),
    "double": _whole(
        "doubles each character",
        "''.join(c * 2 for c in s)",
        lambda s, k: "".join(c * 2 for c in s),
    ),
    "repeat": _whole("repeats it {k} times", "s * {k}", lambda s, k: s * k, 2, 3),
    "append": _whole("adds '{k}' at the end", "s + '{k}'", lambda s, k: s + k, *"!xyz"),
    "prepend": _whole("adds '{k}' at the start", "'{k}' + s", lambda s, k: k + s, *"!xyz"),
}
TEXT_FINALS = {
    "text": _whole("the string", "s", lambda s, k: s),
    "length": _whole("its length", "len(s)", lambda s, k: len(s)),
    "count": _whole(
        "how often '{k}' is in it", "s.count('{k}')", lambda s, k: s.count(k), *"aenos"
    ),
    "words": _whole("its number of words", "len(s.split())", lambda s, k: len(s.split())),
    "distinct": _whole(
        "its number of distinct characters", "len(set(s))", lambda s, k: len(set(s))
    ),
}
NUMBER_STEPS = {
    "add": _whole("adds {k}", "n + {k}", lambda n, k: n + k, *range(1, 16)),
    "subtract": _whole("subtracts {k}", "n - {k}", lambda n, k: n - k, *range(1, 16)),
    "multiply": _whole("multiplies it by {k}", "n * {k}", lambda n, k: n * k, *range(2, 10)),
    "divide": _whole(
        "divides it by {k}, rounding down", "n // {k}", lambda n, k: n // k, *range(2, 7)
    ),
    "remainder": _whole(
        "takes the remainder modulo {k}", "n % {k}", lambda n, k: n % k, *range(5, 14)
    ),
    "square": _whole("squares it", "n * n", lambda n, k: n * n),
    "negate": _whole("negates it", "-n", lambda n, k: -n),
    "absolute": _whole("takes the absolute value", "abs(n)", lambda n, k: abs(n)),
    "at_least": _whole(
        "raises it to at least {k}", "max(n, {k})", lambda n, k: max(n, k), 5, 10, 20
    ),
    "at_most": _whole("caps it at {k}", "min(n, {k})", lambda n, k: min(n, k), 10, 20, 50),
}
NUMBER_FINALS = {
    "number": _whole("the result", "n", lambda n, k: n),
    "digits": _whole("its number of digits", "len(str(abs(n)))", lambda n, k: len(str(abs(n)))),
    "digit_sum": _whole(
        "the sum of its digits",
        "sum(int(d) for d in str(abs(n)))",
        lambda n, k: sum(int(d) for d in str(abs(n))),
    ),
    "last_digit": _whole("its last digit", "abs(n) % 10", lambda n, k: abs(n) % 10),
    "text": _whole("it as a string", "str(n)", lambda n, k: str(n)),
}
KINDS = {
    "list": Kind("xs", "a list of integers", LIST_STEPS, LIST_FINALS),
    "text": Kind("s", "a string", TEXT_STEPS, TEXT_FINALS),
    "number": Kind("n", "an integer", NUMBER_STEPS, NUMBER_FINALS),
}


def run(pipeline: Pipeline, value: Any) -> Any:
    """Return what the function gives for a value.

    Raises ValueError where it is undefined (the largest number of an empty list).
    """
    kind = KINDS[pipeline.kind]
    for name, constant in pipeline.steps:
        value = kind.steps[name].run(value, constant)
    name, constant = pipeline.final
    return kind.finals[name].run(value, constant)


def english(operation: Operation, constant: Constant) -> str:
    """Return what an operation does, in words."""
    return operation.english.format(k=constant)


def note(operation: Operation, constant: Constant) -> str:
    """Return the heart of an operation's code."""
    return operation.note.format(k=constant)


def source(pipeline: Pipeline) -> str:
    """Return the function as Python: one line a step, then `return`."""
    kind = KINDS[pipeline.kind]
    lines = [f"def solve({kind.variable}):"]
    for name, constant in pipeline.steps:
        lines.append(f"    {kind.variable} = {kind.steps[name].code.format(k=constant)}")
    name, constant = pipeline.final
    lines.append(f"    return {kind.finals[name].code.format(k=constant)}")
    return "\n".join(lines)


def without(pipeline: Pipeline, position: int) -> Pipeline:
    """Return the pipeline with one step left out."""
    steps = pipeline.steps[:position] + pipeline.steps[position + 1 :]
    return dataclasses.replace(pipeline, steps=steps)


def as_meta(pipeline: Pipeline) -> dict[str, Any]:
    """Return the pipeline as JSON values."""
    steps = [list(step) for step in pipeline.steps]
    return {"kind": pipeline.kind, "steps": steps, "final": list(pipeline.final)}


def from_meta(meta: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline that `as_meta` wrote. Raises KeyError for anything else."""
    steps = tuple((name, constant) for name, constant in meta["steps"])
    name, constant = meta["final"]
    return Pipeline(meta["kind"], steps, (name, constant))
