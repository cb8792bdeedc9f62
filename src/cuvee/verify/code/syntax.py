"""`ast.parse` of text that may be anything, from any thread; nothing is run.

CPython 3.11 counts the depth of a tree once for all threads, so that two that parse at the
same time may both fail with "SystemError: AST constructor recursion depth mismatch" on sound
text (https://github.com/python/cpython/issues/106905). Here one parses after another, which
costs nothing: the parser holds the interpreter's lock in any case.
"""

import ast
import threading

_ONE = threading.Lock()


def parsed(source: str) -> ast.Module:
    """Return the syntax tree of Python text.

    Raises SyntaxError, ValueError (a null byte, in some versions), RecursionError and
    MemoryError (nested too deep).
    """
    with _ONE:
        return ast.parse(source)
