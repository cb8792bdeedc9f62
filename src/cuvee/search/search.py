"""Tries ways to merge the specialists of a run on problems held apart from its training.

In: a run folder whose specialists are trained. Out: `search/` in it: `problems`, `scored`
(each candidate's answers and verdicts), `tried.parquet` and `tried.yaml` (every candidate
scored under the same conditions), `best.yaml`. Goes on where it was stopped: a candidate
that is scored is not tried again, and no answer is asked twice. The run itself is not
changed, and its benchmarks are never asked.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cuvee.atomic import hold, write_text
from cuvee.errors import DataError, RecipeError
from cuvee.evaluate.protocol import Taken, checking_settings, engine_settings, protocol_of
from cuvee.models.adapted import load_adapted
from cuvee.models.checkpoint import resolve
from cuvee.models.engines import end_stale, engine_version
from cuvee.models.template import render_prompt
from cuvee.models.tokens import text_ids
from cuvee.progress import log_to, say
from cuvee.recipe import Sampling, Source
from cuvee.records import Problem, content_hash, dumps, write_rows
from cuvee.runfolder import Run, hash_path
from cuvee.search.candidates import Candidate, candidate, candidates
from cuvee.search.held_apart import HeldApart, hold_apart
from cuvee.search.shown import best_yaml, conclusions
from cuvee.search.trial import Bench, benchmark_name, clear, require_disk, score
from cuvee.search.tried import Tried, read_tried, write_tried

TRIES = 16
"""Candidates beside the recipe's own, where nobody says."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is to be tried, and on how much."""

    file: Path | None = None
    """Candidates of a user; None: the usual ones."""
    tries: int = TRIES
    """Candidates at most beside the recipe's own, >= 1."""
    problems: int | None = None
    """Of each domain; see `hold_apart`."""
    samples: int = 1
    """Answers to each problem, >= 1."""
    keep: bool = False
    """Keep the weights of what is tried."""
    dry_run: bool = False
    """Check and say everything, and try nothing."""


@dataclasses.dataclass(frozen=True)
class Searched:
    """What came of it."""

    rows: list[Tried]
    """The best first; empty of a dry run."""
    said: list[str]
    """What the rows say and what they do not."""
    not_tried: int
    """Candidates over the cap."""


def search(run: Run, wanted: Wanted) -> Searched:
    """Try ways to merge on problems held apart; write what was tried and the best.

    Raises DataError where the run is not trained or a problem overlaps a benchmark,
    RecipeError for candidates that are not allowed and too few problems, MergeError where
    one cannot be merged or the disk is too full, and what serving and asking raise.
    """
    _require_specialists(run)
    sections, repeated = candidates(run.recipe, wanted.file)
    chosen = [
        candidate(run.recipe, section, where="merge-search")
        for section in sections[: wanted.tries + 1]
    ]
    not_tried = len(sections) - len(chosen)
    problems = hold_apart(run, wanted=wanted.problems)
    sampling = _sampling(run, problems)
    with hold(run.path), log_to(run.path / "log.txt"):
        end_stale(run.engines())
        bench = _bench(run, problems, samples=wanted.samples, sampling=sampling)
        todo = [one for one in chosen if not bench.is_done(one)]
        sizes = require_disk(todo, bench, keep=wanted.keep)
        _say_what(chosen, todo, bench, repeated=repeated, not_tried=not_tried)
        _say_disk(todo, sizes, keep=wanted.keep)
        if wanted.dry_run:
            return Searched([], [one.label for one in chosen], not_tried)
        clear(todo, bench)
        for held in problems:
            write_rows(bench.problems_file(held.domain), held.problems, Problem)
        rows, said = _try_all(chosen, todo, bench, keep=wanted.keep, not_tried=not_tried)
    return Searched(rows, said, not_tried)


def _try_all(
    chosen: Sequence[Candidate],
    todo: Sequence[Candidate],
    bench: Bench,
    *,
    keep: bool,
    not_tried: int,
) -> tuple[list[Tried], list[str]]:
    """Score what is to do, the recipe's own first; write the files after each."""
    rows, said = _written(chosen[0], bench, not_tried) if chosen[0] not in todo else ([], [])
    for number, one in enumerate(todo, 1):
        say(f"{number}/{len(todo)} {one.label}")
        score(one, bench, keep=keep)
        rows, said = _written(chosen[0], bench, not_tried)
    return rows, said


def _written(own: Candidate, bench: Bench, not_tried: int) -> tuple[list[Tried], list[str]]:
    """Write `tried.parquet`, `tried.yaml` and `best.yaml` of all that is scored by now."""
    domains = [held.domain for held in bench.problems]
    rows = read_tried(bench.scored, own=own.name, domains=domains)
    said = conclusions(rows, bench.problems)
    about = {
        "problems": [held.told for held in bench.problems],
        "samples": bench.samples,
        "seed": bench.run.recipe.seed,
        "not_tried": not_tried,
        "says": said,
    }
    write_tried(bench.folder, rows, said=about)
    write_text(bench.folder / "best.yaml", best_yaml(rows[0], said))
    return rows, said


def _require_specialists(run: Run) -> None:
    """Raise DataError where a specialist is not there."""
    for domain in run.recipe.domains:
        if not (run.specialist(domain) / "config.json").exists():
            raise DataError(
                f"{run.specialist(domain)}: no specialist; `cuvee train` makes it (merge-search "
                "merges the specialists of a run)"
            )


def _sampling(run: Run, problems: Sequence[HeldApart]) -> Sampling:
    """Return the recipe's sampling. Raises RecipeError where the context is too small for it."""
    given = run.recipe.evaluate.sampling.model_dump(exclude_none=True)
    sampling = Sampling().model_copy(update=given)
    tokenizer = load_adapted(run.specialist(next(iter(run.recipe.domains))))
    prompts = (render_prompt(tokenizer, p.prompt) for held in problems for p in held.problems)
    longest = max(len(text_ids(tokenizer, prompt)) for prompt in prompts)
    needed, context = longest + 1 + sampling.max_tokens, run.recipe.evaluate.serve.context
    if needed > context:
        raise RecipeError(
            f"evaluate.serve.context: {context} is too small: the longest prompt ({longest} "
            f"tokens) and evaluate.sampling.max_tokens ({sampling.max_tokens}) need {needed}"
        )
    return sampling


def _bench(run: Run, problems: Sequence[HeldApart], *, samples: int, sampling: Sampling) -> Bench:
    """Return what all candidates are tried with; specialists and base are read for their hash."""
    recipe, base = run.recipe, resolve(run.recipe.base)
    serving = engine_settings(recipe.evaluate.serve)
    serving["version"] = engine_version(recipe.evaluate.serve)
    checking = checking_settings(recipe.verify, recipe.sandbox)
    protocols = {
        held.domain: dumps(
            protocol_of(
                _taken(run, held, samples=samples, sampling=sampling),
                serve=serving,
                checking=checking,
            )
        )
        for held in problems
    }
    say("reading the specialists and the base")
    weights = [hash_path(path) for path in (*map(run.specialist, recipe.domains), base)]
    return Bench(
        run=run,
        base=base,
        problems=problems,
        protocols=protocols,
        sampling=sampling,
        samples=samples,
        conditions=content_hash(protocols, list(recipe.domains), weights)[:8],
    )


def _taken(run: Run, held: HeldApart, *, samples: int, sampling: Sampling) -> Taken:
    domain = run.recipe.domains[held.domain]
    asked = content_hash([[problem.id, problem.prompt] for problem in held.problems])
    return Taken(
        benchmark=benchmark_name(held.domain),
        source=Source(source=f"01_problems/{held.domain}.parquet", count=len(held.problems)),
        revision=f"problems:{asked}",
        limit=None,
        prompt=domain.prompt,
        verifier=domain.verifier,
        samples=samples,
        seed=run.recipe.seed,
        sampling=sampling,
    )


def _say_what(
    chosen: Sequence[Candidate],
    todo: Sequence[Candidate],
    bench: Bench,
    *,
    repeated: int,
    not_tried: int,
) -> None:
    for held in bench.problems:
        say(held.told)
    if left_out := sorted(set(bench.run.recipe.domains) - {h.domain for h in bench.problems}):
        say(f"not scored, as their verifier gives no score: {', '.join(left_out)}")
    parts = [f"{len(chosen)} candidates, the recipe's own among them"]
    if repeated:
        parts.append(f"{repeated} that repeat another are left out")
    if not_tried:
        parts.append(f"{not_tried} more are not tried (--tries)")
    if done := len(chosen) - len(todo):
        parts.append(f"{done} of them scored before")
    say("; ".join(parts))
    others = [path for path in bench.scored.parent.glob("*") if path != bench.scored]
    if others:
        count = sum(1 for path in others for _ in path.iterdir())
        say(
            f"{count} in {bench.scored.parent} are of other problems, specialists or settings: "
            "not shown"
        )


def _say_disk(todo: Sequence[Candidate], sizes: tuple[int, int], *, keep: bool) -> None:
    if not todo:
        return
    largest, needed = sizes
    after = (
        f"{needed / 1e9:.2f} GB for all, which are kept"
        if keep
        else "removed when it is scored; --keep keeps it"
    )
    say(f"disk: at most {largest / 1e9:.2f} GB for a candidate ({after})")
