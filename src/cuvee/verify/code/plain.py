"""Values as they pass between a program, its tests and us: plain ones, as JSON.

A Python value in, what JSON can hold out, and back. Nothing that a program made survives the
way but plain data: no class, no method, no object of its own. Runs inside the sandbox too
(`cuvee.verify.code.harness`), so it imports nothing but the standard library. Not here: how
values are compared (`cuvee.verify.code.outputs`).
"""

from __future__ import annotations

import builtins
import functools
import importlib

TYPE_CHECKING = False  # as type checkers know it: `typing` itself is slow to load
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DIGITS_BOUND = 10**4000
"""Longer integers do not pass through decimal text: Python refuses above 4300 digits."""


class Opaque:
    """Stands, on the side of the tests, for a value that is none of the plain ones.

    It equals nothing but itself and is as true as the program said.
    """

    def __init__(self, name: str, truth: bool) -> None:  # noqa: FBT001
        self.name, self.truth = name, truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.name}>"


def pack(value: Any) -> Any:
    """Return a value as JSON can hold it; `unpack` makes an equal plain value of that.

    Exact for None, bool, int, float, complex, str, bytes, list, tuple, dict, set, range,
    deque, Decimal, Fraction, dictionary views and built-in types; a subclass becomes what it
    derives from; iterators are drained; of anything else only its truth passes. Raises
    RecursionError for a value that holds itself, and whatever the value's own methods raise.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -_DIGITS_BOUND < value < _DIGITS_BOUND else {"int": hex(value)}
    if kind is float:
        return value if value - value == 0 else {"float": repr(value)}
    for base, tag, contents in _CONTAINERS:
        if isinstance(value, base):
            packed = [pack(item) for item in contents(value)]
            return {tag: packed} if tag else packed
    for plain, convert in _SCALARS:
        if isinstance(value, plain):
            return pack(convert(value))
    return {"named": _named(value)}


def _named(value: Any) -> list[Any]:
    """Return name and content of the rarer plain values, and of those that are none."""
    if isinstance(value, complex):
        return ["complex", pack([value.real, value.imag])]
    if isinstance(value, bytes | bytearray):
        return ["bytes" if isinstance(value, bytes) else "bytearray", value.hex()]
    if isinstance(value, range):
        return ["range", pack([value.start, value.stop, value.step])]
    if isinstance(value, type) and value is _TYPES.get(value.__name__):
        return ["type", value.__name__]
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name in ("decimal.Decimal", "fractions.Fraction"):
        return [name, str(value)]
    if name == "collections.deque":
        return [name, pack(list(value))]
    if hasattr(type(value), "__next__"):
        return ["iterator", pack(list(value))]
    return ["opaque", [type(value).__name__, bool(value)]]


_TYPES = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and not name.startswith("_")
}
_CONTAINERS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (list, "", list.__iter__),
    (tuple, "tuple", tuple.__iter__),
    (dict, "dict", dict.items),
    (set, "set", set.__iter__),
    (frozenset, "frozenset", frozenset.__iter__),
    (type({}.keys()), "keys", iter),
    (type({}.values()), "values", iter),
    (type({}.items()), "items", iter),
)
_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
)


def opaque_names(packed: Any) -> list[str]:
    """Return the types of what was lost in packing; not of what had been lost before."""
    if isinstance(packed, list):
        return [name for item in packed for name in opaque_names(item)]
    if not isinstance(packed, dict):
        return []
    ((tag, content),) = packed.items()
    if tag == "named":
        name, content = content
        if name == "opaque":
            return [content[0]] if content[0] != Opaque.__name__ else []
    return opaque_names(content)


def unpack(value: Any) -> Any:
    """Return the plain value that `pack` made JSON of.

    What a program made up may be anything: raises ValueError, TypeError, LookupError,
    ArithmeticError or RecursionError where it is no such JSON.
    """
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "named":
        name, content = content
        return _NAMED[name](content)
    return _TAGGED[tag](content)


def _number(module: str, name: str, text: Any) -> Any:
    if not isinstance(text, str) or len(text) > 5000:
        raise ValueError("no number")
    if name == "Fraction" and not text.lstrip("-").replace("/", "", 1).isdigit():
        raise ValueError("no fraction")  # Fraction("1e999999999") would take all memory
    return getattr(importlib.import_module(module), name)(text)


def _deque(items: Any) -> Any:
    return importlib.import_module("collections").deque(unpack(items))


_TAGGED: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "tuple": lambda items: tuple(unpack(items)),
    "dict": lambda items: dict(unpack(items)),
    "set": lambda items: set(unpack(items)),
    "frozenset": lambda items: frozenset(unpack(items)),
    "keys": lambda items: dict.fromkeys(unpack(items)).keys(),
    "values": lambda items: dict(enumerate(unpack(items))).values(),
    "items": lambda items: dict(unpack(items)).items(),
}
_NAMED: dict[str, Callable[[Any], Any]] = {
    "complex": lambda pair: complex(*unpack(pair)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": lambda numbers: range(*unpack(numbers)),
    "type": lambda name: _TYPES[name],
    "decimal.Decimal": functools.partial(_number, "decimal", "Decimal"),
    "fractions.Fraction": functools.partial(_number, "fractions", "Fraction"),
    "collections.deque": _deque,
    "iterator": lambda items: iter(unpack(items)),
    "opaque": lambda pair: Opaque(str(pair[0]), bool(pair[1])),
}
