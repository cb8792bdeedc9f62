"""Expected errors as one message on the terminal and an exit code; bugs as tracebacks.

Also what says that flags do not belong together.
"""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import typer

from cuvee.errors import CuveeError, RecipeError

STOPPED = "stopped; what is finished is kept: the same command goes on from there"


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turn expected errors into one message and an exit code; let bugs through."""
    try:
        yield
    except CuveeError as error:
        _stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        _stop(STOPPED, 130)
    except SystemError as error:
        # So comes a Ctrl-C that meets C code which does not look for one (numba's first call).
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        _stop(STOPPED, 130)
    except OSError as error:
        _stop(_describe(error), 1)


def refuse_flags(flags: Mapping[str, object], why: str) -> None:
    """Raise RecipeError naming those of some flags (`--gpus` -> its value) that were given.

    Given is what is neither None nor False nor an empty list.
    """
    given = {flag: v for flag, v in flags.items() if v is not None and v is not False}
    if named := [flag for flag, value in given.items() if value != []]:
        raise RecipeError(f"{', '.join(named)}: {why}")


def _describe(error: OSError) -> str:
    place = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"disk full while writing{place}: free some space and run the same command again; "
            "what is finished is kept"
        )
    if error.filename:
        return f"cannot read or write{place}: {error.strerror}"
    return f"the operating system refused: {error}"


def _stop(message: str, code: int) -> NoReturn:
    from cuvee.progress import console, log

    log.error("%s", message)
    console.print(f"error: {message}", style="red", markup=False)
    raise typer.Exit(code)
