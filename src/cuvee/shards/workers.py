"""What checks pieces: this process and its pool, or one process a CPU of a Ray cluster.

Pieces in, an outcome each out, in order. A piece that loses its worker again and again is read
here and goes through the cluster row by row, so that one row at fault is one row lost. Not
here: what is done to a piece (`cuvee.shards.check`).
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from cuvee.errors import CuveeError
from cuvee.progress import printable, say
from cuvee.shards import store
from cuvee.shards.check import Outcome, check_piece, check_pieces, join_shards
from cuvee.shards.pieces import Piece, Shard
from cuvee.shards.record import How
from cuvee.verify.clustered import check_rows_on_ray, find_faults
from cuvee.workers.chunks import map_chunks
from cuvee.workers.cluster import cluster
from cuvee.workers.nodes import check_nodes

Outcomes = Generator[Outcome, None, None]
Join = tuple[Shard, Sequence[Piece]]
"""A shard and all of its pieces."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """Two ways to work: check pieces; make shards of their pieces. One outcome each, in order."""

    check: Callable[[Sequence[Piece], How], Outcomes]
    join: Callable[[Sequence[Join]], Outcomes]


OpenWorkers = Callable[[Shard, str, How], contextlib.AbstractContextManager[Workers]]
"""Takes a shard that there is and the folder that is written to: what workers must reach."""


@contextlib.contextmanager
def on_this_machine(_shard: Shard, _out: str, _how: How) -> Iterator[Workers]:
    """Yield what works here: a piece after another, rows at once as `limits.processes` says."""
    yield Workers(
        lambda pieces, how: (check_piece(piece, how) for piece in pieces),
        lambda joins: (outcome for join in joins for outcome in join_shards([join])),
    )


@contextlib.contextmanager
def on_ray(shard: Shard, out: str, how: How, *, address: str | None) -> Iterator[Workers]:
    """Yield what works on a cluster, whose nodes are asked first whether they can.

    `limits.processes` is the most pieces that are worked on at once (None: one a CPU). Raises
    as `cluster` and `check_nodes` do.
    """
    # Rows say what they are as they come; programs may be among them.
    sandbox = how.sandbox if how.reading.verifier in ("code", None) else None
    with cluster(address):
        check_nodes(functools.partial(faults_of_node, sandbox, shard.source, out))
        yield Workers(_check_on_ray, _join_on_ray)


def faults_of_node(sandbox: str | None, source: str, out: str) -> list[str]:
    """On a node: return why it cannot check or reach the shards, in words."""
    faults = find_faults(sandbox)
    try:
        fs, path = store.filesystem(out)
        if store.is_local(fs) and not fs.isdir(path):
            faults.append(f"{out} is not there: a folder must be on a disk that all nodes share")
        store.list_files(source)
    except CuveeError as error:
        faults.append(str(error))
    return faults


def _check_on_ray(pieces: Sequence[Piece], how: How) -> Outcomes:
    limits = how.limits.model_copy(update={"processes": 1})
    outcomes = map_chunks(
        ([piece] for piece in pieces),
        functools.partial(check_pieces, how=dataclasses.replace(how, limits=limits)),
        given_up=_lost,
        tick=_uncounted,
        at_once=how.limits.processes,
    )
    for piece, outcome in zip(pieces, outcomes, strict=True):
        if not outcome.lost:
            yield outcome
            continue
        lost = f"{piece.name}: no worker came back from it ({outcome.why}); row by row now"
        say(printable(lost))
        yield check_piece(piece, how, check=check_rows_on_ray)


def _join_on_ray(joins: Sequence[Join]) -> Outcomes:
    yield from map_chunks(
        ([join] for join in joins), join_shards, given_up=_unjoined, tick=_uncounted
    )


def _lost(_: Piece, why: str) -> Outcome:
    return Outcome(None, why, lost=True)


def _unjoined(join: Join, why: str) -> Outcome:
    shard, _ = join
    told = printable(f"{shard.name}: its pieces could not be joined: {why}")
    return Outcome(None, told, lost=True)


def _uncounted(_: Any) -> None:
    """Tick nothing: pieces are counted where they come back."""
