"""`refine:` of a domain: how the reasoning of chosen traces is tidied before training."""

from typing import Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section


class Refine(Section):
    """What is done to the chosen traces; whatever does not hold up leaves the original."""

    rules: bool = True
    """Leave out exact repeats in the reasoning, and closing courtesies after the answer."""
    teacher: str | None = None
    """The teacher that restructures the reasoning, after the rules; None asks nobody."""
    least_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the original's tokens that must be left, by the student's tokenizer: less is no
    reasoning any more."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.rules and self.teacher is None:
            raise ValueError(
                "refine with rules: false and no teacher does nothing; name a teacher, or leave "
                "refine out"
            )
        return self
