"""`rounds:`: problems that are not solved yet, or not full, are asked again.

Data only: which problems those are, and whether another round pays, is decided in
`cuvee.rounds`.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section


class Rounds(Section):
    """Further rounds of asking, after the first one: rejection sampling (DeepSeek-R1, 2.3.3)."""

    most: int = Field(default=3, ge=2, le=20)
    """Rounds in all, the first included. They may end earlier, where another would not pay."""
    until: Literal["solved", "full"] = "full"
    """`solved`: a problem is asked until one of its traces is fit to be chosen; `full`: until
    `select.per_problem` are."""
    samples: list[int] | None = Field(default=None, min_length=1)
    """Requests a problem and teacher in the second, third, ... round; the last stands for all
    that follow. None: the teacher's own."""
    temperature: list[float] | None = Field(default=None, min_length=1)
    """Likewise; None: the teacher's own."""
    usd_per_example: float | None = Field(default=None, gt=0)
    """The most that one more example may be expected to cost; needs the teachers' prices.
    None: no limit."""
    min_examples: float = Field(default=1, gt=0)
    """A round that is expected to bring fewer new examples to a domain is not begun."""

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.samples is not None and min(self.samples) < 1:
            raise ValueError(f"rounds.samples: each at least 1, got {self.samples}")
        if self.temperature is not None and min(self.temperature) < 0:
            raise ValueError(f"rounds.temperature: none below 0, got {self.temperature}")
        return self
