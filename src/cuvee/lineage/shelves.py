"""Shelves: where the rows of one domain, or of one benchmark, stand in a run folder.

A run in; paths out, none of which need exist: stages that come later have not written theirs.
Not here: what the files hold.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cuvee.errors import RecipeError
from cuvee.recipe import Benchmark, Source, Teacher, load_recipe
from cuvee.runfolder import Run


@dataclasses.dataclass(frozen=True)
class Shelf:
    """The files of one domain or benchmark."""

    kind: Literal["domain", "benchmark"]
    name: str
    run: Path
    """The folder that all the others stand in."""
    sources: Path
    """The record of what its sources gave, JSON."""
    asked: tuple[Source, ...]
    """Its sources as the recipe has them; empty for a benchmark that cuvee declares itself."""
    problems: Path
    problems_dropped: Path
    traces: Mapping[str, tuple[Path, ...]]
    """Teacher (of a benchmark: model) -> its traces, a file a round."""
    verdicts: Mapping[str, tuple[Path, ...]]
    """The same -> the files with the verdicts on them: of a domain, those of all its teachers."""
    rounds: int = 1
    """How many there may be; a file's place in `traces` tells which it is of."""
    judge: tuple[Path, ...] = ()
    """A judge's own traces, a file a round; their `problem_id` is the trace that was judged."""
    grades: Path | None = None
    """Grades by a rubric; None where there is none."""
    grader: Path | None = None
    """The own traces of who graded; their `problem_id` is the trace that was graded."""
    points: tuple[str, ...] = ()
    """Of the rubric."""
    examples: Path | None = None
    """None for a benchmark, on which nothing is trained; so are the next ones."""
    chosen: Path | None = None
    """The examples as their teachers wrote them; None where they are not refined."""
    refined: Path | None = None
    """What came of refining each; None where they are not refined."""
    refiner: Path | None = None
    """A refiner's own traces; their `problem_id` is the example. None where no teacher refines."""
    traces_dropped: Path | None = None
    votes: Path | None = None
    """How the traces of problems without gold voted, JSONL."""
    preflight: Path | None = None
    """What was found in the examples before training."""

    @property
    def trace_files(self) -> list[Path]:
        """Return the files of all traces: teacher by teacher, and of each round by round."""
        return [path for paths in self.traces.values() for path in paths]

    @property
    def verdict_files(self) -> list[Path]:
        """Return the files of all verdicts, each once."""
        return list(dict.fromkeys(path for paths in self.verdicts.values() for path in paths))

    @property
    def choice(self) -> Path | None:
        """Return the file that tells what was chosen: the examples, or those not refined yet."""
        if self.chosen is None or (self.examples is not None and self.examples.exists()):
            return self.examples
        return self.chosen

    def round_of(self, path: Path) -> int | None:
        """Return the round that a file of traces is of; None where there is one round alone."""
        if self.rounds == 1:
            return None
        return next(paths.index(path) + 1 for paths in self.traces.values() if path in paths)


def open_run(path: Path) -> Run:
    """Return the run of a folder, for reading. Raises RecipeError where it is no run's."""
    if not (path / "recipe.yaml").is_file():
        raise RecipeError(f"{path}: not the folder of a run (no recipe.yaml in it)")
    return Run(path.absolute(), load_recipe(path / "recipe.yaml"))


def shelves(run: Run) -> list[Shelf]:
    """Return the shelves of a run: its domains, then its benchmarks, in the recipe's order."""
    return [
        *(domain_shelf(run, name) for name in run.recipe.domains),
        *(_benchmark_shelf(run, name) for name in run.recipe.evaluate.benchmarks),
    ]


def domain_shelf(run: Run, name: str) -> Shelf:
    """Return the shelf of a domain of the recipe."""
    domain = run.recipe.domains[name]
    refine, verify, select = domain.refine, run.folder("verify"), run.folder("select")
    teachers = run.recipe.teachers_of(name)
    return Shelf(
        kind="domain",
        name=name,
        run=run.path,
        sources=run.sources(name),
        asked=tuple(domain.problems),
        problems=run.problems(name),
        problems_dropped=run.dropped("problems", name),
        traces={teacher.name: _traces(run, name, teacher) for teacher in teachers},
        verdicts=dict.fromkeys([t.name for t in teachers], tuple(run.verdict_files(name))),
        rounds=len(run.rounds()),
        judge=_judge(run, name) if domain.judge else (),
        grades=verify / "rubric" / f"{name}.parquet" if domain.rubric else None,
        grader=verify / "rubric" / "traces" / f"{name}.parquet" if domain.rubric else None,
        points=tuple(domain.rubric.points) if domain.rubric else (),
        examples=run.examples(name),
        chosen=select / "chosen" / f"{name}.parquet" if refine else None,
        refined=select / "refined" / f"{name}.parquet" if refine else None,
        refiner=(
            select / "refined" / "traces" / f"{name}.parquet" if refine and refine.teacher else None
        ),
        traces_dropped=run.dropped("select", name),
        votes=select / "votes" / f"{name}.jsonl" if domain.select.agreement else None,
        preflight=run.specialist(name) / "preflight.json",
    )


def _traces(run: Run, name: str, teacher: Teacher) -> tuple[Path, ...]:
    """Return the files of a teacher's traces, round by round; what is published is of the first."""
    rounds = run.rounds()[:1] if teacher.published else run.rounds()
    return tuple(run.traces(name, teacher.name, in_round=number) for number in rounds)


def _judge(run: Run, name: str) -> tuple[Path, ...]:
    return tuple(path.parent / "judge" / path.name for path in run.verdict_files(name))


def _benchmark_shelf(run: Run, name: str) -> Shelf:
    declared = run.recipe.evaluate.benchmarks[name]
    models = ["base", *run.recipe.trained(), "merged", *run.recipe.evaluate.teachers]
    own = declared.problems if isinstance(declared, Benchmark) else None
    return Shelf(
        kind="benchmark",
        name=name,
        run=run.path,
        sources=run.sources(f"benchmarks/{name}"),
        asked=() if own is None else (own,),
        problems=run.benchmark(name),
        problems_dropped=run.dropped("problems", f"benchmarks/{name}"),
        traces={model: (run.score_traces(model, name),) for model in models},
        verdicts={model: (run.score_verdicts(model, name),) for model in models},
    )
