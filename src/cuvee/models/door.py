"""Where an engine listens, whom it lets in, and which GPUs it sees.

What of it is secret or the machine's own goes into the engine's environment: a command line
would show it to every user. Not here: starting an engine.
"""

import dataclasses
import socket
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Door:
    """Where an engine listens, and whom it lets in."""

    port: int = 0
    """0: any that is free."""
    token: str | None = dataclasses.field(default=None, repr=False)
    """What requests must bring as `Authorization: Bearer`; None: nothing."""
    host: str = LOOPBACK
    """An address of this machine."""

    def free_port(self) -> int:
        """Return the port, or one that is free now."""
        if self.port:
            return self.port
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            return int(probe.getsockname()[1])


def visible(devices: Sequence[int | str]) -> dict[str, str]:
    """Return the environment variables that choose the GPUs; none where all may be used."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(str(d) for d in devices)} if devices else {}


def shares(devices: Sequence[int], replicas: int) -> list[list[int]]:
    """Return the GPUs of each replica, the same number each; their count divides evenly."""
    each = len(devices) // replicas
    return [list(devices[n * each : (n + 1) * each]) for n in range(replicas)]
