"""The recipe as a whole: the sections, and the checks that span several of them."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.base import Section
from cuvee.recipe.domains import Domain, SandboxName
from cuvee.recipe.evaluation import Evaluate, Release
from cuvee.recipe.teachers import Teacher
from cuvee.recipe.training import Merge, Train

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
RESERVED = {"base", "merged", "export", "benchmarks", "dropped"}
"""Names of files and models in the run folder that a domain may not take."""


class Verify(Section):
    """Limits of checking one answer."""

    math_seconds: float = Field(default=5, gt=0)
    code_seconds: float = Field(default=6, gt=0)
    """Of wall time, one test case."""
    memory_mb: int = Field(default=1024, ge=64)
    processes: int | None = Field(default=None, ge=1)
    """Answers checked at once; None: one a core."""


class Recipe(Section):
    """One run: from problems to a released model."""

    name: str = Field(pattern=NAME.pattern)
    seed: int = Field(default=42, ge=0)
    base: str
    """Hub id, local folder, `.gguf` file, or `random:two-layer` (to try the pipeline)."""
    ledger: str = "~/.cache/cuvee/ledger.sqlite"
    workers: Literal["pool"] = "pool"
    """`ray` is not built yet."""
    sandbox: SandboxName = "bubblewrap"
    """What runs model-written code. `landlock` is weaker and needs no namespaces; `none` runs
    it with the user's own rights: never do."""
    limit: int | None = Field(default=None, ge=1)
    """Problems a domain and benchmark (a pilot); the flag `--limit` sets it."""
    domains: dict[str, Domain] = Field(min_length=1)
    teachers: list[Teacher] = Field(min_length=1)
    verify: Verify = Verify()
    train: Train = Train()
    merge: Merge = Merge()
    evaluate: Evaluate = Evaluate()
    release: Release = Release()

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in [*self.domains, *self.evaluate.benchmarks]:
            if not NAME.match(name):
                raise ValueError(f"name {name!r}: letters, digits, '.', '_' and '-' only")
        if taken := RESERVED & {*self.domains, *self.evaluate.benchmarks}:
            raise ValueError(f"reserved names cannot name a domain or benchmark: {sorted(taken)}")
        names = [t.name for t in self.teachers]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"teachers of the same name: {twice}")
        for teacher in self.teachers:
            if unknown := sorted(set(teacher.domains or []) - set(self.domains)):
                raise ValueError(f"teacher {teacher.name}: no domain {unknown}")
        return self

    @model_validator(mode="after")
    def _references(self) -> Self:
        order = self.merge.order
        if order is not None and sorted(order) != sorted(self.domains):
            domains = list(self.domains)
            raise ValueError(f"merge.order must name each domain once: {domains}, got {order}")
        for name, benchmark in self.evaluate.benchmarks.items():
            if not isinstance(benchmark, int) and benchmark.domain not in self.domains:
                raise ValueError(f"benchmark {name}: no domain {benchmark.domain!r}")
        for domain in self.domains:
            if not self.teachers_of(domain):
                raise ValueError(f"domain {domain}: no teacher answers it")
        if self.train.batch_size % self.train.micro_batch:
            raise ValueError("train.batch_size must be a multiple of train.micro_batch")
        return self

    @model_validator(mode="after")
    def _judges(self) -> Self:
        names = [teacher.name for teacher in self.teachers]
        for name, domain in self.domains.items():
            if domain.judge is not None and domain.judge not in names:
                raise ValueError(f"domains.{name}.judge: no teacher {domain.judge!r}, only {names}")
        for name, benchmark in self.evaluate.benchmarks.items():
            if isinstance(benchmark, int) or benchmark.domain not in self.domains:
                continue
            if (benchmark.verifier or self.domains[benchmark.domain].verifier) == "judge":
                raise ValueError(
                    f"evaluate.benchmarks.{name}: a judge cannot take a score yet; give it a "
                    "verifier of its own: math, code, choice or none"
                )
        return self

    def teachers_of(self, domain: str) -> list[Teacher]:
        """Return the teachers that answer a domain, in the recipe's order."""
        return [t for t in self.teachers if t.domains is None or domain in t.domains]

    def merge_order(self) -> list[str]:
        """Return the domains in the order their specialists are fused."""
        return list(self.merge.order or self.domains)
