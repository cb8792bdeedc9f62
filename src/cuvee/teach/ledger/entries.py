"""What goes into the ledger and comes out of it, as plain data.

Tokens are counts, money is US dollars. Not here: how it is stored (`file`, `accounts`).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

NANO = 10**9
"""Money is counted in whole billionths of a dollar: sums stay exact in any order."""
MOST_TOKENS = 2**31
"""No one request has this many; a server that says so is not believed."""
MOST_USD = 1e6

Limit = Literal["usd", "tokens", "requests"]
"""What a budget can limit; the keys of `budget:` in a recipe."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a request costs, at most (a reservation) or in fact (an answer); or a sum of those."""

    prompt_tokens: int
    completion_tokens: int
    usd: float
    """Kept to a billionth of a dollar; 0 where the teacher has no prices."""

    def __post_init__(self) -> None:
        if min(self.prompt_tokens, self.completion_tokens) < 0:
            raise ValueError(f"tokens must be 0 or more: {self}")
        if not 0 <= self.usd < math.inf:
            raise ValueError(f"usd must be 0 or more: {self}")

    @property
    def tokens(self) -> int:
        """Return tokens of prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def nanodollars(self) -> int:
        """Return the money in whole billionths of a dollar."""
        return round(self.usd * NANO)


@dataclasses.dataclass(frozen=True)
class Payer:
    """Who pays for a request."""

    account: str
    """The run; may be empty."""
    teacher: str
    """Its name in the recipe."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server sent back to one request."""

    request: str
    """Canonical JSON of what the key is the hash of."""
    response: str
    """The body as it came, JSON."""
    status: int
    seconds: float
    """From sending to the last byte."""
    created: str
    """UTC, `2026-01-31T12:00:00Z`."""
    account: str = ""
    """Who bought it; empty where that is not known (a ledger of schema 1)."""
    teacher: str = ""
    prompt_tokens: int | None = None
    """None, as `completion_tokens` and `usd`, where nobody counted."""
    completion_tokens: int | None = None
    usd: float | None = None


@dataclasses.dataclass(frozen=True)
class Sent:
    """Whether a request may leave. Where `over` or `answer` is set nothing was written."""

    again: bool
    """An earlier sending has an unknown fate: this one may be billed a second time."""
    over: Limit | None
    """The limit of the budget that it would pass: do not send."""
    answer: Answer | None = None
    """Another process has bought it meanwhile: do not send."""


@dataclasses.dataclass(frozen=True)
class Spending:
    """What was spent on one teacher, or on all."""

    answers: int
    """Bought, also where another process's answer to the same request came first."""
    bought: Cost
    """What they cost: as the server counted, or the reservation where it did not count."""
    in_doubt: int
    """Sendings whose fate is unknown, those in flight included."""
    reserved: Cost
    """What those cost at most."""

    @property
    def requests(self) -> int:
        """Return sendings that were or may have been billed: what `requests` limits."""
        return self.answers + self.in_doubt

    @property
    def tokens(self) -> int:
        """Return tokens, those in doubt included: what `tokens` limits."""
        return self.bought.tokens + self.reserved.tokens

    @property
    def usd(self) -> float:
        """Return dollars, those in doubt included: what `usd` limits."""
        return (self.bought.nanodollars + self.reserved.nanodollars) / NANO


@dataclasses.dataclass(frozen=True)
class Spent:
    """What an account has spent."""

    total: Spending
    teachers: Mapping[str, Spending]
    """By the teacher's name; those alone for which it paid."""
