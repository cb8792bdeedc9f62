"""What the data card says of a training set, counted from a run folder and its recipe.

A run that is selected in; `CardFacts` out. Only short columns are read, no texts. It words
nothing and judges nothing but what is unknown: a licence or terms that nobody stated. Not here:
the wording (`cuvee.lineage.data_card`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cuvee.lineage.columns import table
from cuvee.lineage.listing import Group, shelf_groups
from cuvee.lineage.shelves import Shelf, shelves
from cuvee.lineage.sources import SourceRecord, read_sources
from cuvee.recipe import Domain, Recipe, Teacher
from cuvee.rounds.record import Round, read_rounds, round_file
from cuvee.runfolder import Run
from cuvee.select.funnel import Funnel, funnel_file, read_funnel


@dataclasses.dataclass(frozen=True)
class DomainFacts:
    """One domain: where its problems came from and what became of them."""

    name: str
    domain: Domain
    sources: tuple[SourceRecord, ...]
    groups: tuple[Group, ...]
    """The funnel: problems, traces by teacher, verdicts, ends; without ids."""
    funnel: Funnel | None
    """What `select` counted by source and difficulty; None where it wrote nothing."""
    examples: int
    tokens: int
    """Of all examples, by the student's tokenizer; `shortest` and `longest` of one."""
    shortest: int
    longest: int
    bytes: int
    """Of the file of examples."""
    rounds: tuple[Round, ...]
    """Those that were begun; empty without `rounds`."""

    @property
    def traces(self) -> int:
        """Return how many traces the domain has."""
        return sum(group.count for group in self.groups if group.stage == "teach")

    def counted(self, stage: str, *, outcome: str | None = None, reason: str | None = None) -> int:
        """Return the rows of a stage's groups, of one outcome and reason where they are named."""
        return sum(
            group.count
            for group in self.groups
            if group.stage == stage
            and outcome in (None, group.outcome)
            and reason in (None, group.reason)
        )

    @property
    def unaccounted(self) -> int:
        """Return the traces that are neither chosen nor dropped; 0 in a sound run."""
        return self.traces - sum(group.count for group in self.groups if group.stage == "select")


@dataclasses.dataclass(frozen=True)
class TeacherFacts:
    """One teacher in all its domains."""

    name: str
    kind: str
    """`url`, `serve`, `scripted` or `published`."""
    model: str | None
    terms: str | None
    """None: unknown."""
    traces: int
    failed: int
    verdicts: Mapping[str, int]
    """Verdict -> traces."""
    examples: Mapping[str, int]
    """Domain -> examples."""
    completion_tokens: int
    tokens_unknown: int
    """Answers whose tokens nobody counted."""
    usd: float | None
    """What its answers cost; None where that is not known of all of them."""


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """All that a data card says."""

    recipe: Recipe
    domains: tuple[DomainFacts, ...]
    teachers: tuple[TeacherFacts, ...]
    """Those that answered; judges answer no problem and are not among them."""
    benchmarks: Mapping[str, tuple[SourceRecord, ...]]
    """Name -> sources of what was kept out."""

    @property
    def examples(self) -> int:
        """Return how many examples there are in all."""
        return sum(domain.examples for domain in self.domains)

    @property
    def unlicensed(self) -> list[str]:
        """Return the sources whose licence is unknown, each once."""
        found = [s.source for d in self.domains for s in d.sources if s.licence is None]
        return list(dict.fromkeys(found))

    @property
    def without_terms(self) -> list[str]:
        """Return the teachers whose terms are unknown."""
        return [teacher.name for teacher in self.teachers if teacher.terms is None]


def card_files(run: Run) -> tuple[Path, ...]:
    """Return the files that `card_facts` reads; records and funnels where they are there."""
    found: list[Path] = []
    for shelf in shelves(run):
        found += [shelf.sources] if shelf.sources.exists() else []
        if shelf.kind == "domain":
            funnel = funnel_file(run, shelf.name)
            found += [funnel] if funnel.exists() else []
            found += [shelf.problems, shelf.problems_dropped]
            found += [*shelf.trace_files, *shelf.verdict_files]
            ends = (shelf.examples, shelf.traces_dropped, shelf.grades, shelf.refined)
            found += [path for path in ends if path is not None]
            if run.recipe.rounds is not None:
                found += [round_file(run, shelf.name, number) for number in run.rounds()]
    return tuple(found)


def card_facts(run: Run) -> CardFacts:
    """Return the facts of a run whose examples are chosen.

    Raises DataError naming the file where one is missing or breaks its contract.
    """
    found = shelves(run)
    domains = [shelf for shelf in found if shelf.kind == "domain"]
    answering = [t for t in run.recipe.teachers if any(t.name in s.traces for s in domains)]
    return CardFacts(
        recipe=run.recipe,
        domains=tuple(_domain(run, shelf) for shelf in domains),
        teachers=tuple(_teacher(teacher, domains) for teacher in answering),
        benchmarks={s.name: tuple(read_sources(s)) for s in found if s.kind == "benchmark"},
    )


def _domain(run: Run, shelf: Shelf) -> DomainFacts:
    path, funnel = run.examples(shelf.name), funnel_file(run, shelf.name)
    tokens: list[int] = table(path, ["tokens"]).column("tokens").to_pylist()
    return DomainFacts(
        name=shelf.name,
        domain=run.recipe.domains[shelf.name],
        sources=tuple(read_sources(shelf)),
        groups=tuple(shelf_groups(shelf, first=0)),
        funnel=read_funnel(funnel) if funnel.exists() else None,
        examples=len(tokens),
        tokens=sum(tokens),
        shortest=min(tokens, default=0),
        longest=max(tokens, default=0),
        bytes=path.stat().st_size,
        rounds=tuple(read_rounds(run, shelf.name)),
    )


def _teacher(teacher: Teacher, domains: Sequence[Shelf]) -> TeacherFacts:
    shelved = [shelf for shelf in domains if teacher.name in shelf.traces]
    groups = [group for s in shelved for group in shelf_groups(s, teacher.name, first=0)]
    verdicts: dict[str, int] = {}
    for group in groups:
        if group.stage == "verify":
            verdicts[group.outcome] = verdicts.get(group.outcome, 0) + group.count
    kinds = ("url", "serve", "scripted", "published")
    cost = _costs([path for shelf in shelved for path in shelf.traces[teacher.name]])
    return TeacherFacts(
        name=teacher.name,
        kind=next(kind for kind in kinds if getattr(teacher, kind)),
        model=teacher.model or (teacher.serve.model if teacher.serve is not None else None),
        terms=teacher.terms,
        traces=sum(group.count for group in groups if group.stage == "teach"),
        failed=sum(g.count for g in groups if g.stage == "teach" and g.reason == "error"),
        verdicts=verdicts,
        examples={g.domain: g.count for g in groups if g.outcome == "chosen"},
        completion_tokens=cost.tokens,
        tokens_unknown=cost.unknown,
        usd=cost.usd,
    )


@dataclasses.dataclass(frozen=True)
class _Costs:
    tokens: int
    unknown: int
    usd: float | None


def _costs(paths: Sequence[Path]) -> _Costs:
    """Return tokens and cost of all answers in some files of traces; failed ones have neither."""
    import pyarrow.compute as pc

    tokens = unknown = unpriced = answers = 0
    usd = 0.0
    for path in paths:
        found = table(path, ["finish_reason", "completion_tokens", "usd"])
        found = found.filter(pc.not_equal(found.column("finish_reason"), "error"))
        counted, priced = found.column("completion_tokens"), found.column("usd")
        answers += len(found)
        tokens += pc.sum(counted).as_py() or 0
        unknown += counted.null_count
        usd += pc.sum(priced).as_py() or 0.0
        unpriced += priced.null_count
    return _Costs(tokens, unknown, usd if answers and not unpriced else None)
