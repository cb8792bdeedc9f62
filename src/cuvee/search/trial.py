"""One candidate as a model: merged into a scratch folder, exported, scored, removed.

In: a run with its specialists, a candidate and the problems held apart. Out: a folder
`search/scored/CONDITIONS/NAME` with a scored folder for each domain (`cuvee compare` reads
those) and `done.json`, which is written last. Merging is `cuvee.merge.stream`, asking and
checking `cuvee.evaluate.measure`: as in any run. What is left of a killed one is gone on with.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from cuvee.atomic import remove, write_text
from cuvee.errors import MergeError
from cuvee.evaluate.measure import Measurement, measure, served
from cuvee.evaluate.scored import Scored, write_scored
from cuvee.evaluate.table import score_row
from cuvee.merge.plan import Plan, make_plan
from cuvee.merge.shards import DTYPES
from cuvee.merge.stage import merge_config
from cuvee.merge.stream import merge
from cuvee.merge.threads import cores
from cuvee.models.gguf_write import write_gguf
from cuvee.recipe import Sampling
from cuvee.runfolder import Run
from cuvee.search.candidates import Candidate
from cuvee.search.held_apart import HeldApart
from cuvee.teach.client import Books
from cuvee.teach.ledger import Ledger
from cuvee.teach.reach import one_at_a_time

DONE = "done.json"
GGUF_BYTES = {"F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 34 / 32}
"""Bytes a weight of an export; others are made of a BF16 file, and are smaller than Q8_0."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all candidates are tried with."""

    run: Run
    base: Path
    """The base's folder."""
    problems: Sequence[HeldApart]
    protocols: Mapping[str, str]
    """Domain -> what its scores are taken with, as JSON."""
    sampling: Sampling
    samples: int
    conditions: str
    """Hash of all that decides scores, but for the candidate."""

    @property
    def folder(self) -> Path:
        """Return where the search keeps its files."""
        return search_folder(self.run)

    @property
    def scored(self) -> Path:
        """Return where candidates tried under these conditions are."""
        return self.folder / "scored" / self.conditions

    @property
    def scratch(self) -> Path:
        """Return where weights are until they are scored."""
        return self.folder / "scratch"

    def problems_file(self, domain: str) -> Path:
        """Return the file of the problems of a domain that are asked."""
        return self.folder / "problems" / f"{domain}.parquet"

    def is_done(self, candidate: Candidate) -> bool:
        """Return whether a candidate is scored under these conditions."""
        return (self.scored / candidate.name / DONE).exists()


def search_folder(run: Run) -> Path:
    """Return the folder of a run in which its search keeps everything."""
    return run.path / "search"


def score(candidate: Candidate, bench: Bench, *, keep: bool) -> None:
    """Merge a candidate, ask it all problems, check and write its scores; remove its weights.

    `keep`: checkpoint and export are moved to `search/models/NAME` instead. Raises what
    merging, exporting, serving and asking raise.
    """
    begin = time.monotonic()
    scratch = bench.scratch / candidate.name
    merged = scratch / "merged"
    run = dataclasses.replace(bench.run, recipe=candidate.recipe)
    if not merged.exists():
        merge(merge_config(run, base=bench.base), merged, threads=cores())
    merge_seconds = time.monotonic() - begin
    model = _exported(merged, bench)
    _ask(candidate, model, bench)
    if keep:
        kept = bench.folder / "models" / candidate.name
        remove(kept)
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(kept)
    else:
        remove(scratch)
    said = {
        "merge": candidate.section,
        "seconds": round(time.monotonic() - begin, 1),
        "merge_seconds": round(merge_seconds, 1),
    }
    write_text(bench.scored / candidate.name / DONE, json.dumps(said, indent=1) + "\n")


def require_disk(todo: Sequence[Candidate], bench: Bench, *, keep: bool) -> tuple[int, int]:
    """Return bytes needed for the largest candidate, and for all at once if they are kept.

    Every candidate is checked as its merge would, before the first weight is read. Raises
    MergeError or RecipeError for one that cannot be merged (named), and where the disk is
    too full.
    """
    sizes = [_bytes(_plan(candidate, bench), bench) for candidate in todo]
    largest = max(sizes, default=0)
    needed = sum(sizes) if keep else largest
    bench.folder.mkdir(parents=True, exist_ok=True)
    left = sum(file.stat().st_size for file in bench.scratch.rglob("*") if file.is_file())
    free = shutil.disk_usage(bench.folder).free + left
    if needed > free:
        raise MergeError(
            f"{bench.folder}: {needed / 1e9:.1f} GB needed for {len(todo) if keep else 1} merged "
            f"model(s) and GGUF files, {free / 1e9:.1f} GB free"
        )
    return largest, needed


def clear(todo: Sequence[Candidate], bench: Bench) -> None:
    """Remove what a killed search left of candidates that are not to be tried now."""
    names = {candidate.name for candidate in todo}
    for path in bench.scratch.iterdir() if bench.scratch.exists() else ():
        if path.name not in names:
            remove(path)


def _plan(candidate: Candidate, bench: Bench) -> Plan:
    run = dataclasses.replace(bench.run, recipe=candidate.recipe)
    # A folder that is not there: one that a killed search left is not to be refused.
    nowhere = bench.scratch / ".planned"
    try:
        return make_plan(merge_config(run, base=bench.base), nowhere, threads=cores(), max_ram=None)
    except MergeError as error:
        raise MergeError(f"{candidate.label}: {error}") from error


def _bytes(plan: Plan, bench: Bench) -> int:
    """Return the bytes of a merged model and its export, at most."""
    serve = bench.run.recipe.evaluate.serve
    if serve.engine != "llama.cpp":
        return plan.bytes_out
    weights = plan.bytes_out // DTYPES[plan.out_dtype][1]
    return plan.bytes_out + int(weights * GGUF_BYTES.get(serve.quantization, 2 + 34 / 32))


def _exported(merged: Path, bench: Bench) -> Path:
    """Return what the engine serves: llama.cpp a GGUF file, which is written where need be."""
    serve = bench.run.recipe.evaluate.serve
    if serve.engine != "llama.cpp":
        return merged
    file = merged.with_name(f"{serve.quantization}.gguf")
    if not file.exists():
        write_gguf(merged, file, quantization=serve.quantization)
    return file


def _ask(candidate: Candidate, model: Path, bench: Bench) -> None:
    """Ask a candidate the problems of every domain; write a scored folder for each."""
    run, recipe = bench.run, bench.run.recipe
    evaluate = recipe.evaluate
    with ExitStack() as resources:
        reachable = served(
            candidate.name,
            str(model),
            evaluate.serve,
            concurrency=evaluate.concurrency,
            timeout=evaluate.timeout,
            engines=run.engines(),
        )
        books = Books(resources.enter_context(Ledger.open(recipe.ledger)))
        opened = one_at_a_time(resources)
        for held in bench.problems:
            wanted = Measurement(
                benchmark=benchmark_name(held.domain),
                problems=bench.problems_file(held.domain),
                samples=bench.samples,
                seed=recipe.seed,
                sampling=bench.sampling,
                limits=recipe.verify,
                sandbox=recipe.sandbox,
                engines=run.engines(),
            )
            found = measure(reachable, wanted, books=books, opened=opened, stop=run.stop)
            row = score_row(
                candidate.name,
                wanted.benchmark,
                found.traces,
                found.verdicts,
                protocol=bench.protocols[held.domain],
            )
            folder = bench.scored / candidate.name / held.domain
            problems = list(held.problems)
            write_scored(folder, Scored(problems, found.traces, found.verdicts, [row]))


def benchmark_name(domain: str) -> str:
    """Return what scores on a domain's problems held apart are called."""
    return f"held-apart-{domain}"
