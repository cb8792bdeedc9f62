"""Parsing text that may be anything: sound text is parsed, whatever was parsed before it."""

import ast
import threading

import pytest

from cuvee.verify.code.syntax import parsed

DEEP = "x = " + "-" * 60_000 + "1"


def test_a_tree_is_that_of_ast() -> None:
    assert ast.dump(parsed("def f(x):\n    return x + 1")) == ast.dump(
        ast.parse("def f(x):\n    return x + 1")
    )


def test_sound_text_is_parsed_after_and_beside_text_nested_too_deep() -> None:
    sound = "\n".join(f"assert f([{n}, ({n}, {{'a': {n}}})]) == {n}" for n in range(200))
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                with pytest.raises((SyntaxError, RecursionError, MemoryError)):
                    parsed(DEEP)
                assert len(parsed(sound).body) == 200
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_what_is_no_python_is_said() -> None:
    with pytest.raises(SyntaxError):
        parsed("def")
    with pytest.raises((SyntaxError, ValueError), match="null byte"):
        parsed("x = '\0'")
