"""The recipe as a whole: the sections, and the checks that span several of them."""

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cuvee.recipe.address import place_of
from cuvee.recipe.base import Section
from cuvee.recipe.cluster import Workers, refused_address
from cuvee.recipe.domains import Domain, SandboxName
from cuvee.recipe.evaluation import Benchmark, Evaluate
from cuvee.recipe.release import Release
from cuvee.recipe.rounds import Rounds, refused_rounds
from cuvee.recipe.serving import addressed
from cuvee.recipe.teachers import Teacher
from cuvee.recipe.training import Merge, Train

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
MIXTURE = "mixture"
"""The model of `baseline: mixture`, and its set of examples."""
RESERVED = {"base", "merged", "export", MIXTURE, "benchmarks", "dropped", "sources", "traces"}
"""Names of files and models in the run folder that a domain may not take."""
OTHER = "other"
"""The domain of a benchmark that measures none of the recipe's."""


class Verify(Section):
    """Limits of checking one answer."""

    math_seconds: float = Field(default=5, gt=0)
    code_seconds: float = Field(default=6, gt=0)
    """Of wall time, one test case."""
    memory_mb: int = Field(default=1024, ge=64)
    processes: int | None = Field(default=None, ge=1)
    """Answers checked at once; None: one a core."""


class Budget(Section):
    """Where asking teachers stops, what is in flight included; None is no limit.

    Counted for one run folder, all its teachers and judges together. What the ledger holds
    already costs nothing.
    """

    usd: float | None = Field(default=None, gt=0)
    """By the teachers' `usd_per_mtok`, which every teacher behind a `url` must then have."""
    tokens: int | None = Field(default=None, ge=1)
    """Of prompts and answers together."""
    requests: int | None = Field(default=None, ge=1)
    """Sendings: a try that may have been billed counts."""


class Recipe(Section):
    """One run: from problems to a released model."""

    name: str = Field(pattern=NAME.pattern)
    seed: int = Field(default=42, ge=0)
    base: str
    """Hub id, local folder, `.gguf` file, or `random:two-layer` (to try the pipeline)."""
    ledger: str = "~/.cache/cuvee/ledger.sqlite"
    """A file, or a database for runs on many machines: `postgresql://user@host/name`."""
    answers: list[str] = Field(default_factory=list)
    """Exports of other ledgers (`cuvee ledger export`): answers that need not be asked again.
    They are taken into the ledger before teaching."""
    workers: Workers = "pool"
    """`ray` maps the row stages named in `cuvee.recipe.cluster` over a cluster."""
    address: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of the Ray cluster, `host:port` or `auto`; None: RAY_ADDRESS, or a Ray of this machine."""
    sandbox: SandboxName = "bubblewrap"
    """What runs model-written code. `landlock` is weaker and needs no namespaces; `none` runs
    it with the user's own rights: never do."""
    limit: int | None = Field(default=None, ge=1)
    """Problems a domain and benchmark (a pilot); the flag `--limit` sets it."""
    domains: dict[str, Domain] = Field(min_length=1)
    teachers: list[Teacher] = Field(min_length=1)
    rounds: Rounds | None = Field(default=None, exclude_if=lambda value: value is None)
    """None: every problem is asked once, as often as its teachers' `samples` say."""
    budget: Budget = Budget()
    verify: Verify = Verify()
    train: Train = Train()
    baseline: Literal["mixture"] | None = None
    """`mixture`: one more model, trained on the examples of all domains together, as often and
    as long; it is scored in the same table, to tell what splitting and merging is worth."""
    merge: Merge = Merge()
    evaluate: Evaluate = Evaluate()
    release: Release = Release()

    @model_validator(mode="after")
    def _no_password(self) -> Self:
        # A check of the whole recipe: that of one key would show the value.
        place_of(self.ledger)
        return self

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in [*self.domains, *self.evaluate.benchmarks]:
            if not NAME.match(name):
                raise ValueError(f"name {name!r}: letters, digits, '.', '_' and '-' only")
        if OTHER in self.domains:
            raise ValueError(f"{OTHER!r} cannot name a domain: it stands for none of them")
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
            named = benchmark.domain if isinstance(benchmark, Benchmark) else None
            if named is not None and named not in self.domains:
                raise ValueError(f"benchmark {name}: no domain {named!r}")
        for domain in self.domains:
            if not self.teachers_of(domain):
                raise ValueError(f"domain {domain}: no teacher answers it")
        if self.train.batch_size % self.train.micro_batch:
            raise ValueError("train.batch_size must be a multiple of train.micro_batch")
        if self.baseline == MIXTURE and len(self.domains) == 1:
            raise ValueError(
                f"baseline: mixture needs two domains or more; of {[*self.domains]} alone it would "
                "be the specialist over again: remove the key"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _served_there(cls, data: Any) -> Any:
        return addressed(data)

    @model_validator(mode="after")
    def _cluster(self) -> Self:
        served = [self.evaluate.serve, *(t.serve for t in self.teachers if t.serve is not None)]
        on_ray = self.workers == "ray" or any(serve.over == "ray" for serve in served)
        if why := refused_address("ray" if on_ray else self.workers, self.address):
            raise ValueError(f"{why} or serve: {{over: ray}}" if not on_ray else why)
        return self

    @model_validator(mode="after")
    def _judges(self) -> Self:
        names = [teacher.name for teacher in self.teachers if not teacher.published]
        for name, domain in self.domains.items():
            if domain.judge is not None and domain.judge not in names:
                raise ValueError(
                    f"domains.{name}.judge: no teacher that can be asked is called "
                    f"{domain.judge!r}, only {names}"
                )
            grader = None if domain.rubric is None else domain.rubric.teacher
            if grader is not None and grader not in names:
                raise ValueError(
                    f"domains.{name}.rubric.teacher: no teacher that can be asked is called "
                    f"{grader!r}, only {names}"
                )
            refiner = None if domain.refine is None else domain.refine.teacher
            if refiner is not None and refiner not in names:
                raise ValueError(
                    f"domains.{name}.refine.teacher: no teacher that can be asked is called "
                    f"{refiner!r}, only {names}"
                )
        for name, benchmark in self.evaluate.benchmarks.items():
            if not isinstance(benchmark, Benchmark):
                continue
            declared_here = benchmark.problems is not None and benchmark.domain in self.domains
            inherited = self.domains[benchmark.domain or ""].verifier if declared_here else None
            if (benchmark.verifier or inherited) == "judge":
                raise ValueError(
                    f"evaluate.benchmarks.{name}: a judge cannot take a score yet; give it a "
                    "verifier of its own: math, code, choice or none"
                )
        return self

    @model_validator(mode="after")
    def _scored_teachers(self) -> Self:
        names, asked = self.evaluate.teachers, {t.name for t in self.teachers if not t.published}
        if unknown := sorted(set(names) - asked):
            raise ValueError(
                f"evaluate.teachers: no teacher that can be asked is called {unknown}, "
                f"only {sorted(asked)}"
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"evaluate.teachers: named twice: {twice}")
        if taken := sorted(set(names) & ({*self.domains} | RESERVED)):
            raise ValueError(
                f"evaluate.teachers: {taken}: in the score table this is the name of a model of "
                "the run; give the teacher another name"
            )
        if names and not self.evaluate.benchmarks:
            raise ValueError(f"evaluate.teachers: no evaluate.benchmarks to score {names} on")
        return self

    @model_validator(mode="after")
    def _published(self) -> Self:
        published = {teacher.name: teacher for teacher in self.teachers if teacher.published}
        having = {(d, s.traces) for d in self.domains for s in self.domains[d].problems if s.traces}
        for domain, name in sorted(having):
            teacher = published.get(name)
            if teacher is None or not teacher.may_answer(domain):
                raise ValueError(
                    f"domains.{domain}: traces of {name!r}, which is no teacher with "
                    "`published: true` that answers this domain"
                )
        for name, teacher in published.items():
            for domain in teacher.domains or []:
                if (domain, name) not in having:
                    raise ValueError(f"teacher {name}: no source of {domain!r} has its `traces`")
        if idle := sorted(set(published) - {name for _, name in having}):
            raise ValueError(f"published teachers {idle}: no source has their `traces`")
        return self

    @model_validator(mode="after")
    def _prices(self) -> Self:
        if self.budget.usd is None:
            return self
        unpriced = [t.name for t in self.teachers if t.url and t.usd_per_mtok is None]
        if unpriced:
            raise ValueError(
                f"budget.usd needs the price (usd_per_mtok: {{input, output}}) of {unpriced}"
            )
        return self

    @model_validator(mode="after")
    def _rounds(self) -> Self:
        if self.rounds is None:
            return self
        if why := refused_rounds(self.rounds, self.domains, self.teachers):
            raise ValueError(why)
        return self

    def teachers_of(self, domain: str) -> list[Teacher]:
        """Return the teachers that answer a domain, in the recipe's order.

        A published one answers where a source has its traces.
        """
        having = {source.traces for source in self.domains[domain].problems}
        return [
            teacher
            for teacher in self.teachers
            if teacher.may_answer(domain) and (not teacher.published or teacher.name in having)
        ]

    def trained(self) -> list[str]:
        """Return the models that are trained: a specialist a domain, then the mixture if any."""
        return [*self.domains, *([MIXTURE] if self.baseline == MIXTURE else [])]

    def merge_order(self) -> list[str]:
        """Return the domains in the order their specialists are fused."""
        return list(self.merge.order or self.domains)
