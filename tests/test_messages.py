"""What ends a command: a message and an exit code, or a traceback where it is our bug."""

import operator
import signal

import pytest
import typer

from cuvee.cli.messages import errors_as_messages, refuse_flags
from cuvee.errors import RecipeError


def test_ctrl_c_within_c_code_ends_as_any_other() -> None:
    """C code that returns a result all the same has its KeyboardInterrupt wrapped by Python."""

    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise SystemError("returned a result with an exception set") from error

    with pytest.raises(typer.Exit) as ended, errors_as_messages():
        interrupted()
    assert ended.value.exit_code == 128 + signal.SIGINT


def test_a_bug_is_let_through() -> None:
    with pytest.raises(SystemError), errors_as_messages():
        raise SystemError("of its own")
    with pytest.raises(ZeroDivisionError), errors_as_messages():
        operator.truediv(1, 0)


@pytest.mark.parametrize("absent", [None, False, []])
def test_flags_that_were_not_given_are_not_refused(absent: object) -> None:
    refuse_flags({"--gpus": absent}, "only with --gpu")


@pytest.mark.parametrize("given", [0, "", True, ["a=1"]])
def test_flags_that_were_given_are_named(given: object) -> None:
    with pytest.raises(RecipeError, match=r"^--gpus: only with --gpu$"):
        refuse_flags({"--gpus": given, "--seed": None}, "only with --gpu")
