"""Is an answer right? Math by symbolic comparison, code by running tests in a sandbox.

`check_rows` is the way in for other programs; it is loaded when it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuvee.verify.rows import check_rows

__all__ = ["check_rows"]


def __getattr__(name: str) -> Any:
    if name == "check_rows":
        from cuvee.verify import rows

        return rows.check_rows
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
