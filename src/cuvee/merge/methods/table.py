"""All merge methods by name. A method is declared beside its function, in `METHODS_HERE`."""

from collections.abc import Iterable

from cuvee.merge.methods import (
    breadcrumbs,
    drops,
    fusion,
    linear,
    means,
    ram,
    sce,
    spherical,
    stock,
    task_vectors,
)
from cuvee.merge.methods.spec import Method


def by_name(methods: Iterable[Method]) -> dict[str, Method]:
    """Return {name: method}; raises ValueError for a name given twice."""
    table: dict[str, Method] = {}
    for method in methods:
        if method.name in table:
            raise ValueError(f"two merge methods are called {method.name}")
        table[method.name] = method
    return table


METHODS: dict[str, Method] = by_name(
    (
        *fusion.METHODS_HERE,
        *linear.METHODS_HERE,
        *spherical.METHODS_HERE,
        *means.METHODS_HERE,
        *stock.METHODS_HERE,
        *task_vectors.METHODS_HERE,
        *drops.METHODS_HERE,
        *breadcrumbs.METHODS_HERE,
        *sce.METHODS_HERE,
        *ram.METHODS_HERE,
    )
)
