"""`domains.X.rubric`: a teacher that grades the traces of a domain, and by what."""

from typing import Annotated

from pydantic import Field, StringConstraints

from cuvee.recipe.base import Section

DEFAULT_POINTS = (
    "Reasoning: every step is true and follows from the question and the steps before it; a "
    "right final answer makes up for no wrong step.",
    "Clarity: the steps stand in a sensible order, and a reader can follow each of them.",
    "Language: the text is in one language from beginning to end.",
)


class Rubric(Section):
    """What a teacher grades each trace by that passed verification, or could not be checked."""

    teacher: str
    """The teacher that grades; one that is only to grade has `domains: []`."""
    points: tuple[
        Annotated[str, StringConstraints(pattern=r"^[^\r\n]*\S[^\r\n]*$", max_length=1000)], ...
    ] = Field(default=DEFAULT_POINTS, min_length=1, max_length=9)
    """What is graded, one line each: 1 (not at all) to 5 (entirely)."""
    samples: int = Field(default=1, ge=1)
    """Answers of the teacher to each trace; a point's grade is their mean."""
