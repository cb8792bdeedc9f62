"""Models whose answers can be looked up before they run: started only where one is missing.

A `Reachable` has its identity, so the ledger can be asked for it; `reach` starts it where the
ledger lacks an answer. The stages `teach`, `verify` (judges) and `evaluate` reach their
models through this. Not here: what is started (`cuvee.teach.endpoints`,
`cuvee.models.engines`) and asking (`cuvee.teach.client`).
"""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack

from cuvee.errors import EngineError
from cuvee.progress import warn
from cuvee.recipe import Sampling
from cuvee.teach.client import Endpoint, Requests, all_answered
from cuvee.teach.ledger import Ledger


@dataclasses.dataclass(frozen=True)
class Reachable:
    """A model by its identity, and what starts it."""

    endpoint: Endpoint
    """Its `url` is empty where it is not known before the start."""
    start: Callable[[ExitStack], Endpoint]
    """Starts it, to end with the stack, and returns it with its URL."""


Opener = Callable[[Reachable], Endpoint]


def one_at_a_time(resources: ExitStack) -> Opener:
    """Return what starts a model and ends the one before: two rarely fit into one machine.

    The last one ends with `resources`. To be called from one thread alone, which lives on.
    """
    slot = resources.enter_context(ExitStack())
    running: dict[str, Endpoint] = {}

    def opened(model: Reachable) -> Endpoint:
        name = model.endpoint.name
        if name not in running:
            running.clear()
            try:
                slot.close()
            except EngineError as error:  # who asked it knows; the next one can do without it
                warn(str(error))
            running[name] = model.start(slot)
        return running[name]

    return opened


def reach(
    model: Reachable, requests: Requests, *, sampling: Sampling, ledger: Ledger, opened: Opener
) -> Endpoint:
    """Return the endpoint to ask; it is started unless the ledger holds every answer.

    Raises what starting it raises, DataError and OSError of the ledger.
    """
    if model.endpoint.url or all_answered(
        model.endpoint, requests, sampling=sampling, ledger=ledger
    ):
        return model.endpoint
    return opened(model)
