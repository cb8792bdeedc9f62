"""The mixture: the examples of all domains as one training set, in one fixed order.

`Example` rows of each domain in, all of them out as `04_examples/mixture.parquet`: what the
baseline of the recipe's `baseline: mixture` is trained on. Nothing is chosen, dropped or
changed: an example two domains have stands there twice. Not here: training.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.recipe import MIXTURE
from cuvee.records import Example, count_rows, iter_rows, write_rows
from cuvee.runfolder import Run, Task


def mixture_task(run: Run) -> Task:
    """Return the task that writes the mixture's examples; it reads those of every domain."""
    files = [run.examples(domain) for domain in run.recipe.domains]
    out = run.examples(MIXTURE)

    def work() -> Mapping[str, Any]:
        return {"examples": write_rows(out, interleaved(files, run.recipe.seed), Example)}

    # The order of the domains is that of the recipe, so it counts among the settings.
    settings = {"seed": run.recipe.seed, "domains": list(run.recipe.domains)}
    return Task("select", MIXTURE, tuple(files), (out,), settings, work)


def interleaved(files: Sequence[Path], seed: int) -> Iterator[Example]:
    """Yield the rows of all files: each file's in their order, the files mixed at random.

    Every way to mix them is as likely as any other, and `seed` (>= 0) decides which it is.
    Memory: one number a row, and a batch of rows a file. Raises DataError as `iter_rows` does.
    """
    turns = [number for number, file in enumerate(files) for _ in range(count_rows(file))]
    random.Random(seed).shuffle(turns)
    rows = [iter_rows(file, Example) for file in files]
    for number in turns:
        yield next(rows[number])
