"""The stage `merge`: the specialists of a run -> the merged model.

One task. Reads the specialists' folders, writes `06_merged`: a checkpoint with
`cuvee_merge.json`. The work is done in `cuvee.merge.stream`.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from cuvee.merge.stream import merge_checkpoints
from cuvee.runfolder import Run, Task


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return the stage's one task, `merged`."""
    recipe = run.recipe
    specialists = tuple(run.specialist(domain) for domain in recipe.merge_order())

    def work() -> Mapping[str, Any]:
        merged = merge_checkpoints(
            specialists,
            anchor=recipe.merge.anchor,
            out=run.merged(),
            out_dtype=recipe.merge.out_dtype,
        )
        share = merged.share_adopted
        return {
            "specialists": len(specialists),
            "tensors": merged.tensors,
            "share_adopted": None if share is None else round(share, 4),
            "degenerate_tensors": len(merged.degenerate),
        }

    settings = {**recipe.merge.model_dump(mode="json"), "order": recipe.merge_order()}
    return [Task("merge", "merged", specialists, (run.merged(),), settings, work)]
