"""Connections that are used again, and how one can bring another request's answer.

A server or proxy that answers a request twice leaves a reply on the line for which nobody
asked; HTTP/1.1 has nothing to tell whose it is, and aiohttp hands it to the next request.
So nothing is sent over a connection that holds something already (`FreshRequest`), and a
reply that repeats an earlier one of its connection counts as none (`Repeats`): that needs a
server which gives each completion an id of its own, as all in use do. Not here: what else a
reply means.
"""

import collections
import dataclasses
import weakref
from contextvars import ContextVar

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

CARRIER: ContextVar[ResponseHandler] = ContextVar("CARRIER")
"""The connection that this task's last request left by."""
REMEMBERED = 4096
"""Replies among which a repeat is found."""


class StaleConnectionError(Exception):
    """Nothing was sent: the connection held something before, and was closed."""


class FreshRequest(aiohttp.ClientRequest):
    """A request that leaves by no connection that holds a reply already.

    aiohttp's own way in (`request_class`) is a subclass; it raises StaleConnectionError.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send it, and remember by which connection."""
        protocol = conn.protocol
        if protocol is None or protocol.should_close:
            raise StaleConnectionError
        CARRIER.set(protocol)
        return await super().send(conn)


@dataclasses.dataclass
class Repeats:
    """The replies of one session, by the ids that the server gave them."""

    telling: bool = True
    """Whether an id stands for one reply; some servers give the same to many."""
    seen: collections.OrderedDict[str, tuple[weakref.ref[ResponseHandler], int]] = (
        dataclasses.field(default_factory=collections.OrderedDict)
    )
    """Connection and hash of the last replies, by id."""

    def has(self, reply_id: str, text: str) -> bool:
        """Return whether this task's reply came before on its connection, and remember it.

        The connection is closed then: what is still to come there is for someone else.
        """
        if not self.telling:
            return False
        connection, found = CARRIER.get(), hash(text)
        before = self.seen.get(reply_id)
        if before is None:
            self.seen[reply_id] = (weakref.ref(connection), found)
            if len(self.seen) > REMEMBERED:
                self.seen.popitem(last=False)
            return False
        if before[0]() is not connection or before[1] != found:
            self.telling = False  # a copy never changes, nor comes by another connection
            self.seen.clear()
            return False
        connection.close()
        return True
