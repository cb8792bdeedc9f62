"""The stage `merge`: the specialists of a run -> the merged model.

One task. Reads the specialists' folders and the base, writes `06_merged`: a checkpoint with
`cuvee_merge.json` and a page that draws it. The work is done in `cuvee.merge.stream`.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.errors import RecipeError
from cuvee.merge.config.read import MergeConfig, parse_config
from cuvee.merge.methods.table import METHODS
from cuvee.merge.stream import merge
from cuvee.merge.threads import cores
from cuvee.recipe import Recipe
from cuvee.runfolder import Run, Task


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return the stage's one task, `merged`."""
    recipe = run.recipe
    specialists = tuple(run.specialist(domain) for domain in recipe.merge_order())

    def work() -> Mapping[str, Any]:
        from cuvee.models.checkpoint import resolve

        config = merge_config(run, base=resolve(recipe.base))
        merged = merge(config, run.merged(), threads=cores(), sync=True)
        share = merged.share_adopted
        return {
            "specialists": len(specialists),
            "tensors": merged.tensors,
            "share_adopted": None if share is None else round(share, 4),
            "degenerate_tensors": len(merged.degenerate),
        }

    settings = {
        **recipe.merge.model_dump(mode="json"),
        "order": recipe.merge_order(),
        "seed": recipe.seed,
        "base": recipe.base,
    }
    return [Task("merge", "merged", specialists, (run.merged(),), settings, work)]


def merge_config(run: Run, *, base: Path) -> MergeConfig:
    """Return the config that a run's recipe means, with `base` as the base's folder.

    Looks at no file. Raises RecipeError for a method, or parameters of it, that there are not.
    """
    recipe = run.recipe
    section = recipe.merge
    fused = section.method == "arcee_fusion"
    method = METHODS.get(section.method)
    own_base = method is not None and method.base != "refused"
    data: dict[str, Any] = {
        "merge_method": section.method,
        "models": [_model(run, domain, recipe) for domain in recipe.merge_order()],
        "base_model": str(base) if own_base else None,
        # Where the base's own tokenizer or template breaks, they were trained with a mended one.
        "tokenizer_source": str(run.specialist(recipe.merge_order()[0])) if own_base else None,
        "parameters": section.parameters or None,
        "out_dtype": section.out_dtype,
        "seed": recipe.seed,
        "reference": None if own_base else str(base),
        "anchor": section.anchor if fused or section.anchor != "later" else None,
        "mode": section.mode if fused or section.mode != "exact" else None,
    }
    if unknown := sorted(set(section.specialists) - set(recipe.domains)):
        raise RecipeError(f"merge.specialists: no such domain: {', '.join(unknown)}")
    return parse_config(data, where="merge")


def _model(run: Run, domain: str, recipe: Recipe) -> dict[str, Any]:
    parameters = recipe.merge.specialists.get(domain)
    named = {"model": str(run.specialist(domain))}
    return named | ({"parameters": parameters} if parameters else {})
