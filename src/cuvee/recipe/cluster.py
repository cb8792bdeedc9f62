"""`workers:` and `address:`: what maps functions over rows, and where a cluster is reached.

Data only: no cluster is opened here. Which stages are mapped is `ON_RAY`; the others do not go
through rows in processes, and are the same with either.
"""

from typing import Literal

Workers = Literal["pool", "ray"]
"""`pool`: processes of this machine; `ray`: those of a Ray cluster."""

ON_RAY = ("problems", "verify", "select", "evaluate")
"""The stages that `workers: ray` maps over a cluster."""


def refused_address(workers: str, address: str | None) -> str:
    """Return why an address cannot stand beside these workers; nothing where it can."""
    if address is None:
        return ""
    if workers != "ray":
        return f"address {address!r}: only with workers: ray"
    if "://" in address:
        return (
            f"address {address!r}: write host:port or auto, and run cuvee on a node of the "
            "cluster; Ray's client (ray://) is not supported"
        )
    return ""
