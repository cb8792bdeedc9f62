"""`rounds:`: problems that are not solved yet, or not full, are asked again.

Data, and what it refuses beside the other sections (`refused_rounds`). Which problems are
asked again, and whether another round pays, is decided in `cuvee.rounds`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section
from cuvee.recipe.domains import Domain
from cuvee.recipe.teachers import Teacher


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
    """The most that one more example may be expected to cost: a problem of which more is
    expected is not asked again. Needs the teachers' prices. None: no limit."""
    min_examples: float = Field(default=1, gt=0)
    """A round that is expected to bring fewer new examples to a domain is not begun."""

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.samples is not None and min(self.samples) < 1:
            raise ValueError(f"rounds.samples: each at least 1, got {self.samples}")
        if self.temperature is not None and min(self.temperature) <= 0:
            raise ValueError(
                "rounds.temperature: each above 0, for at 0 a teacher says the same however often "
                f"it is asked; got {self.temperature}"
            )
        for key, given in (("samples", self.samples), ("temperature", self.temperature)):
            if given is not None and len(given) > self.most - 1:
                raise ValueError(
                    f"rounds.{key}: {len(given)} values, but after the first there are at most "
                    f"{self.most - 1} rounds (rounds.most: {self.most})"
                )
        return self

    def samples_in(self, number: int, own: int) -> int:
        """Return the requests a problem in a round (>= 1) of a teacher with `own` samples."""
        if number == 1 or self.samples is None:
            return own
        return self.samples[min(number - 2, len(self.samples) - 1)]

    def first_sample(self, number: int, own: int) -> int:
        """Return the number of the first sample of a round (>= 1): those before count on."""
        return sum(self.samples_in(before, own) for before in range(1, number))

    def temperature_in(self, number: int, own: float) -> float:
        """Return the temperature in a round (>= 1) of a teacher with its `own`."""
        if number == 1 or self.temperature is None:
            return own
        return self.temperature[min(number - 2, len(self.temperature) - 1)]


def refused_rounds(
    rounds: Rounds, domains: Mapping[str, Domain], teachers: Sequence[Teacher]
) -> str:
    """Return why rounds cannot stand beside these domains and teachers; nothing where they can."""
    asked = [teacher for teacher in teachers if not teacher.published]
    if not asked:
        return "rounds: all teachers are published, so nobody can be asked again; remove the key"
    cold = [teacher.name for teacher in asked if teacher.sampling.temperature == 0]
    if cold and rounds.temperature is None:
        return (
            f"rounds: {cold} would say the same again (sampling.temperature: 0); set "
            "rounds.temperature, or a temperature of their own"
        )
    return _refused_prices(rounds, asked) or _refused_domains(domains)


def _refused_prices(rounds: Rounds, asked: Sequence[Teacher]) -> str:
    if rounds.usd_per_example is None:
        return ""
    unpriced = [t.name for t in asked if t.url and t.usd_per_mtok is None]
    if unpriced:
        return (
            "rounds.usd_per_example needs the price (usd_per_mtok: {input, output}) of "
            f"{unpriced}"
        )
    if all(teacher.usd_per_mtok is None for teacher in asked):
        return "rounds.usd_per_example: no teacher has a price (usd_per_mtok); remove the key"
    return ""


def _refused_domains(domains: Mapping[str, Domain]) -> str:
    for name, domain in domains.items():
        select, key = domain.select, f"rounds cannot go with domains.{name}.select"
        if select.agreement is not None:
            return (
                f"{key}.agreement: a vote that is asked on until it agrees agrees by chance; "
                "raise the teachers' samples instead"
            )
        if select.rubric_min is not None:
            return f"{key}.rubric_min: grades are given when the rounds are over"
        if select.pass_rate != (0, 1):
            return (
                f"{key}.pass_rate: problems are asked on because few of their traces are right, so "
                "the share would say when the asking stopped"
            )
        if name == "asked":
            return "rounds: no domain may be called 'asked', it names a folder of theirs"
    return ""
