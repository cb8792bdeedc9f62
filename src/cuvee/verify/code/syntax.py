"""`ast.parse` of text that may be anything, without CPython's spurious SystemError.

CPython up to 3.12 now and then raises "AST constructor recursion depth mismatch" for sound
text, after another text ran into the recursion limit or while other threads parse
(https://github.com/python/cpython/issues/106905). Parsing again succeeds. Not here: running it.
"""

import ast

TRIES = 3


def parsed(source: str) -> ast.Module:
    """Return the syntax tree of Python text; nothing is run.

    Raises SyntaxError, ValueError (a null byte, or where CPython fails each time),
    RecursionError and MemoryError (nested too deep).
    """
    for _ in range(TRIES):
        try:
            return ast.parse(source)
        except SystemError as error:
            last = error
    raise ValueError(f"CPython's parser failed {TRIES} times: {last}") from last
