"""The part of Go's text/template that `cuvee.serve.go_template` writes, applied.

A template's text and its data in, the text that Go makes of them out: fields, `$`, `if`,
`else if`, `else`, `range $i, $m :=`, `eq ne and or not len slice`, string literals and trim
markers. It is how a Modelfile's template is checked where no Ollama is. Anything else of the
language is refused.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_ACTION = re.compile(r"\{\{(?P<left>- )?(?P<code>.*?)(?P<right> -)?\}\}", re.DOTALL)
_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[()]|\$\w*(?:\.\w+)*|\.\w*(?:\.\w+)*|\w+)')
_RANGE = re.compile(r"range\s+(\$\w+)\s*,\s*(\$\w+)\s*:=\s*(.+)", re.DOTALL)


class GoTemplateError(Exception):
    """The template is none, or not of the part that is known here; the message says where."""


@dataclasses.dataclass(frozen=True)
class _Action:
    """What stands between braces: a value to write, or the head or end of a block."""

    code: str


@dataclasses.dataclass(frozen=True)
class _Block:
    """`if` or `range` with what stands in it, and after its `else`."""

    code: str
    body: "tuple[_Node, ...]"
    other: "tuple[_Node, ...]"


_Node = str | _Action | _Block
_Names = Mapping[str, Any]
"""What `.` and the variables (`$`, `$i`) mean."""


def render_go(template: str, data: Mapping[str, Any]) -> str:
    """Return what Go's text/template makes of `data`: texts, lists and mappings.

    Raises GoTemplateError for what is no template or not known here.
    """
    pieces = tuple(_pieces(template))
    nodes, end = _nodes(pieces, 0)
    if end < len(pieces):
        raise GoTemplateError(f"{pieces[end]} without its beginning")
    return _run(nodes, {".": data, "$": data})


def _pieces(template: str) -> Iterator[str | _Action]:
    """Yield texts and actions; the blanks beside a trim marker are gone."""
    start, trimmed = 0, False
    for found in _ACTION.finditer(template):
        text = template[start : found.start()]
        text = text.lstrip() if trimmed else text
        yield text.rstrip() if found["left"] else text
        yield _Action(found["code"].strip())
        start, trimmed = found.end(), bool(found["right"])
    yield template[start:].lstrip() if trimmed else template[start:]


def _nodes(pieces: Sequence[str | _Action], start: int) -> tuple[tuple[_Node, ...], int]:
    """Return the nodes from `start` to an `else` or `end` that is not theirs, and where it is."""
    nodes: list[_Node] = []
    while start < len(pieces):
        piece = pieces[start]
        word = "" if isinstance(piece, str) else piece.code.partition(" ")[0]
        if word in ("else", "end"):
            break
        if isinstance(piece, str) or word not in ("if", "range"):
            nodes.append(piece)
            start += 1
        else:
            block, start = _block(piece.code, pieces, start + 1)
            nodes.append(block)
    return tuple(nodes), start


def _block(code: str, pieces: Sequence[str | _Action], start: int) -> tuple[_Block, int]:
    """Return a block whose head is `code`, and where what follows its `end` begins."""
    body, end = _nodes(pieces, start)
    if end == len(pieces):
        raise GoTemplateError(f"{{{{ {code} }}}} without its end")
    piece = pieces[end]
    word = piece.code if isinstance(piece, _Action) else ""
    if word == "end":
        return _Block(code, body, ()), end + 1
    if word.startswith("else if "):  # a block in the `else`, which ends with it
        inner, after = _block(word.removeprefix("else "), pieces, end + 1)
        return _Block(code, body, (inner,)), after
    other, end = _nodes(pieces, end + 1)
    if end == len(pieces) or pieces[end] != _Action("end"):
        raise GoTemplateError(f"{{{{ {code} }}}} without its end")
    return _Block(code, body, other), end + 1


def _run(nodes: Sequence[_Node], names: _Names) -> str:
    written = []
    for node in nodes:
        if isinstance(node, str):
            written.append(node)
        elif isinstance(node, _Action):
            written.append(str(_value(node.code, names)))
        elif node.code.startswith("if "):
            chosen = node.body if _value(node.code.removeprefix("if "), names) else node.other
            written.append(_run(chosen, names))
        else:
            written.append(_range(node, names))
    return "".join(written)


def _range(node: _Block, names: _Names) -> str:
    found = _RANGE.fullmatch(node.code)
    if found is None:
        raise GoTemplateError(f"{{{{ {node.code} }}}}: only `range $i, $m := LIST` is known")
    number, item, code = found.groups()
    listed = list(_value(code, names))
    rounds = ({**names, number: n, item: value, ".": value} for n, value in enumerate(listed))
    return "".join(_run(node.body, inner) for inner in rounds) or _run(node.other, names)


def _value(code: str, names: _Names) -> Any:
    """Return the value of an expression: one term, or a function and its terms."""
    words, end = [], 0
    while end < len(code.rstrip()):
        found = _WORD.match(code, end)
        if found is None:
            raise GoTemplateError(f"{{{{ {code} }}}}: not known at {code[end:][:20]!r}")
        words.append(found[1])
        end = found.end()
    value, rest = _expression(words, names)
    if rest:
        raise GoTemplateError(f"{{{{ {code} }}}}: {' '.join(rest)} is too much")
    return value


def _expression(words: Sequence[str], names: _Names) -> tuple[Any, list[str]]:
    """Return the value of words up to a closing bracket, and those after it."""
    left = list(words)
    head = left.pop(0) if left else ")"
    if not head.isalpha():
        value, left = _term([head, *left], names)
        return value, left
    terms = []
    while left and left[0] != ")":
        term, left = _term(left, names)
        terms.append(term)
    return _call(head, terms), left


def _term(words: Sequence[str], names: _Names) -> tuple[Any, list[str]]:
    head, left = words[0], list(words[1:])
    if head == "(":
        value, left = _expression(left, names)
        if left[:1] != [")"]:
            raise GoTemplateError("an opening bracket without its end")
        return value, left[1:]
    if head.startswith('"'):
        return json.loads(head), left
    if head.isdecimal():
        return int(head), left
    if head.startswith((".", "$")):
        return _field(head, names), left
    raise GoTemplateError(f"{head!r} is not known here")


def _field(path: str, names: _Names) -> Any:
    """Return `.`, `.A`, `$`, `$m` or `$.A`; what is missing is empty, as Ollama asks of Go."""
    first, *fields = path.split(".")
    value = names["." if path.startswith(".") else first]
    for field in fields:
        value = value.get(field, "") if field else value
    return value


def _call(name: str, terms: Sequence[Any]) -> Any:
    if name in ("eq", "ne"):
        return (terms[0] == terms[1]) == (name == "eq")
    if name == "and":
        return next((term for term in terms if not term), terms[-1])
    if name == "or":
        return next((term for term in terms if term), terms[-1])
    if name == "not":
        return not terms[0]
    if name == "len":
        return len(terms[0])
    if name == "slice":
        return terms[0][terms[1] :]
    raise GoTemplateError(f"function {name!r} is not known here")
