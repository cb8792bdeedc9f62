"""All shards of a place verified: by this machine, or by a Ray cluster.

A place of shards and a folder in, a shard of verdicts for each out, with the counts of all of
them. Through this process pass names and counts; rows only of a piece whose workers were lost
again and again. Not here: what a worker does (`cuvee.shards.check`), who works
(`cuvee.shards.workers`), what is done already (`cuvee.shards.resume`).
"""

import contextlib
import dataclasses
from pathlib import Path

from cuvee.errors import DataError
from cuvee.progress import bar, printable, say, warn
from cuvee.shards import store
from cuvee.shards.pieces import Found, absolute_out, find_shards
from cuvee.shards.record import How, Record, add
from cuvee.shards.resume import Plan, make_plan
from cuvee.shards.workers import OpenWorkers, Workers
from cuvee.verify.summary import Summary
from cuvee.workers.nodes import versions

HOPELESS = 5
"""So many pieces that cannot be read, and none done, are no damaged shard: the work is ended."""


@dataclasses.dataclass(frozen=True)
class Verified:
    """What came of it."""

    summary: Summary
    """Of all shards that are done, now or before."""
    shards: int
    """That are done."""
    failed: tuple[str, ...]
    """Shards, or pieces of them, that could not be done, each with its reason."""


def verify_shards(source: str, out: str, how: How, *, open_workers: OpenWorkers) -> Verified:
    """Write the verdicts of each shard of `source` to a shard of the same name beneath `out`.

    What is done is left as it is. `open_workers` is `on_this_machine` or `on_ray`. Raises
    RecipeError for places that cannot be used and for outputs of other settings, DataError
    where there is no shard, a store does not answer, or nothing can be read; and what
    checking raises.
    """
    out = absolute_out(out)
    found = find_shards(source, out)
    plan = make_plan(found.shards, out, how)
    _say_plan(found, plan)
    _remove(plan.left_over)
    records = dict(plan.done)
    failed: list[str] = []
    if plan.cut:
        _make_folder(out)
        with open_workers(plan.cut[0][0], out, how) as workers:
            _work(plan, how, workers, records=records, failed=failed)
    summary = Summary()
    for name in sorted(records):
        add(summary, records[name], before=f"{name}: ")
    return Verified(summary, len(records), tuple(failed))


def _say_plan(found: Found, plan: Plan) -> None:
    """Say what is done and to do, and what stands there that is neither."""
    of_shards = f"{len(found.shards)} shards"
    pieces = len(plan.todo)
    say(f"{of_shards}: {len(plan.done)} done already, {len(plan.cut)} to do, in {pieces} pieces")
    told = {
        "files are no shards, and left": found.others,
        "files beneath --out are no input": found.beneath_out,
        "outputs are of another input than there is now: checked again": plan.changed,
        "outputs are not whole: checked again": plan.broken,
        "pieces in --out are of shards that are done: removed": len(plan.left_over),
        "shards in --out are of no shard of the input": plan.strangers,
    }
    for what, number in told.items():
        if number:
            say(f"  {number} {what}")
    now = versions()
    kept = [*plan.done.values(), *plan.kept.values()]
    if older := sum(record.versions != now for record in kept):
        warn(f"{older} outputs were checked with other versions than are installed now, and kept")


def _remove(pieces: list[str]) -> None:
    """Remove pieces that nobody needs. Where that is not allowed they do no harm."""
    try:
        store.remove(pieces)
    except OSError as error:
        warn(printable(f"pieces of shards that are done could not all be removed: {error}"))


def _make_folder(out: str) -> None:
    fs, path = store.filesystem(out)
    if store.is_local(fs):  # before any node looks for it
        Path(path).mkdir(parents=True, exist_ok=True)


def _work(
    plan: Plan, how: How, workers: Workers, *, records: dict[str, Record], failed: list[str]
) -> None:
    """Check the pieces, then join those of one shard; what came of shards goes to the two."""
    pieces = plan.todo
    bad: set[str] = set()
    done = 0
    with (
        bar("verify shards", total=len(pieces), unit="pieces") as tick,
        contextlib.closing(workers.check(pieces, how)) as outcomes,
    ):
        for piece, outcome in zip(pieces, outcomes, strict=True):
            tick(1)
            if outcome.record is None:
                failed.append(outcome.why)
                bad.add(piece.shard.name)
                warn(outcome.why)
            elif piece.groups is None:
                records[piece.shard.name] = outcome.record
            done += outcome.record is not None
            if not done and len(failed) >= HOPELESS:
                raise DataError(
                    f"the first {HOPELESS} pieces could not be done, so the others are left: "
                    + "; ".join(failed)
                )
    joins = [
        (shard, several)
        for shard, several in plan.cut
        if several[0].groups is not None and shard.name not in bad
    ]
    for (shard, _), outcome in zip(joins, workers.join(joins), strict=True):
        if outcome.record is None:
            failed.append(outcome.why)
        else:
            records[shard.name] = outcome.record
