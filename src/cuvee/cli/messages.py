"""Expected errors as one message on the terminal and an exit code; bugs as tracebacks."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from cuvee.errors import CuveeError


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turn expected errors into one message and an exit code; let bugs through."""
    try:
        yield
    except CuveeError as error:
        _stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        _stop("stopped; what is finished is kept: the same command goes on from there", 130)
    except OSError as error:
        _stop(_describe(error), 1)


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
