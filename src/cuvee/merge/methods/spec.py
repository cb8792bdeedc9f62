"""What a merge method declares of itself: enough to check a config before weights are read."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from cuvee.merge.blocks import Rule

Number = float | int | bool


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a method."""

    name: str
    """As in the config; a name that Python reserves has an underscore behind it in the
    function (`lambda` -> `lambda_`)."""
    kind: type[float] | type[int] | type[bool]
    default: Number | None
    """None: the config must give it."""
    low: float = float("-inf")
    high: float = float("inf")
    """Closed range of allowed values; not looked at for booleans."""
    each_model: bool = False
    """True: one value a model (the function gets a sequence in the models' order);
    False: one value for the whole merge."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A merge method: its function, what it needs and where it is described."""

    name: str
    rule: Callable[..., Rule]
    """`rule(stack, **parameters)`; with `random`, also `seed=`."""
    base: Literal["required", "optional", "refused"]
    """Whether the stack has a base. `refused`: a base in the config is an error unless it is
    one of the models, where it is then a model as any other."""
    models: tuple[int, int | None]
    """Fewest and most models, without the base."""
    parameters: tuple[Parameter, ...] = ()
    random: bool = False
    paper: str = ""
    """Where the method is from: authors, year, arXiv number or repository."""
