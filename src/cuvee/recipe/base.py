"""What every section of a recipe shares: frozen, and unknown keys are refused.

Data only: a section says what is allowed and in what range; it opens no file.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the recipe: immutable, no unknown keys, no silent type conversion of floats."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
