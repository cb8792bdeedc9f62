"""The recipe: one YAML file that says all of a run, checked key by key.

One file a section, data only; `load_recipe` reads and checks. pydantic is used here and
nowhere else.
"""

from cuvee.recipe.domains import Domain, Select, Source, Window
from cuvee.recipe.evaluation import (
    Benchmark,
    Declaration,
    Evaluate,
    OwnSampling,
    Reference,
)
from cuvee.recipe.load import (
    dump_recipe,
    load_declaration,
    load_evaluate,
    load_recipe,
    load_train,
    parse_recipe,
    recipe_schema,
)
from cuvee.recipe.refine import Refine
from cuvee.recipe.release import Parity, Release
from cuvee.recipe.root import MIXTURE, Budget, Recipe, Verify
from cuvee.recipe.rounds import Rounds
from cuvee.recipe.rubric import Rubric
from cuvee.recipe.serving import Quantization, Sampling, Serve
from cuvee.recipe.teachers import Prices, Scripted, Teacher
from cuvee.recipe.training import Lora, Merge, Train

__all__ = [
    "MIXTURE",
    "Benchmark",
    "Budget",
    "Declaration",
    "Domain",
    "Evaluate",
    "Lora",
    "Merge",
    "OwnSampling",
    "Parity",
    "Prices",
    "Quantization",
    "Recipe",
    "Reference",
    "Refine",
    "Release",
    "Rounds",
    "Rubric",
    "Sampling",
    "Scripted",
    "Select",
    "Serve",
    "Source",
    "Teacher",
    "Train",
    "Verify",
    "Window",
    "dump_recipe",
    "load_declaration",
    "load_evaluate",
    "load_recipe",
    "load_train",
    "parse_recipe",
    "recipe_schema",
]
