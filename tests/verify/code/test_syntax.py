"""Parsing text that may be anything: many threads at once, and what is no Python."""

import ast
import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from cuvee.verify.code.syntax import parsed

SOUND = "\n".join(f"assert f([{n}, ({n}, {{'a': {n}}})]) == {n}" for n in range(100))


@pytest.fixture
def restless() -> Iterator[None]:
    """Let the interpreter change threads and collect garbage as often as it can."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5, 2, 2)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


def test_a_tree_is_that_of_ast() -> None:
    assert ast.dump(parsed(SOUND)) == ast.dump(ast.parse(SOUND))


@pytest.mark.usefixtures("restless")
def test_threads_that_parse_at_once_all_get_their_trees() -> None:
    # ast.parse itself failed 8 times of 48 here.
    trees: list[ast.Module] = []

    def work() -> None:
        trees.extend(parsed(SOUND) for _ in range(12))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trees) == 48


@pytest.mark.parametrize(
    "source", ["def", "x = '\0'", "x = " + "-" * 60_000 + "1", "a" + "()" * 20_000]
)
def test_what_is_no_python_or_nested_too_deep_is_said(source: str) -> None:
    with pytest.raises((SyntaxError, ValueError, RecursionError, MemoryError)):
        parsed(source)
