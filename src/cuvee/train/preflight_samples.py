"""Sample rows of a preflight: which rows to show, and their text split by loss mask.

In: the folder of a preflight (`preflight.json`, `tokens.parquet`), its tokenizer and, for rows
that were dropped, the examples. Out: `Sample`s, whose pieces together are the text a row was
tokenised from. Memory does not grow with the file. Not here: how they look
(`cuvee.train.preflight_page`).
"""

import dataclasses
import hashlib
import heapq
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from cuvee.models.tokens import IGNORED, Encoded, encode_example
from cuvee.records import iter_values
from cuvee.train.preflight import TOKENS, Findings, read_findings

MOST_PIECES = 100
"""Of one row; a mask that changes more often is no mask of ours, and is counted, not drawn."""
MOST_CONCERNED, MOST_DROPPED = 4, 2
"""Rows shown because a finding names them, and because they were dropped."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for bytes that are no text, or not yet one."""
LONGEST_CHARACTER = 4
"""Tokens one character can be spread over: the bytes of UTF-8's longest."""

Kind = Literal["text", "token", "split"]


@dataclasses.dataclass(frozen=True)
class Piece:
    """Text of neighbouring tokens that are alike to the loss."""

    text: str
    trained: bool
    """Inside the loss."""
    kind: Kind = "text"
    """`token`: one token of the vocabulary's added ones, such as the end of a turn. `split`: a
    character whose tokens stand on both sides of a border of the mask."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row as it is trained, or would have been."""

    id: str
    pieces: tuple[Piece, ...]
    why: str = "chosen by hash"
    """Why this row is shown: `longest`, `dropped`, the check of a finding, ..."""
    tokens: int = 0
    trained_tokens: int = 0
    undrawn: int = 0
    """Tokens at the end that are not in `pieces` (`MOST_PIECES`)."""


@dataclasses.dataclass(frozen=True)
class _Pick:
    """Why a row is shown, and where: lower ranks first."""

    rank: int
    why: str


def samples(
    out: Path, tokenizer: PreTrainedTokenizerBase, *, count: int, examples: Path | None = None
) -> list[Sample]:
    """Return at most `count` rows (at least 1) of a preflight's folder to look at.

    First those that findings name, then one chosen by hash, the longest, the shortest, one that
    is held out, dropped ones, and others by the hash of their id. Rows that are not in
    `tokens.parquet` are read from `examples` (a Parquet file of `Example` rows) where it is
    given. Raises DataError where a file cannot be read.
    """
    tokens = out / TOKENS
    concerned = _concerned(read_findings(out))
    chosen = _choose(tokens, concerned, count) if tokens.exists() else {}
    shown = list(_written(tokens, tokenizer, chosen))
    if examples is not None:
        seen = {sample.id for _, sample in shown}
        missing = {name: pick for name, pick in concerned.items() if name not in seen}
        shown += _encoded(examples, tokenizer, missing)
    return [sample for _, sample in sorted(shown, key=lambda found: found[0].rank)][:count]


def pieces(
    tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[int], labels: Sequence[int]
) -> tuple[tuple[Piece, ...], int]:
    """Return a row's text in pieces, and how many tokens at its end they leave out.

    Added tokens (special ones, tags) are pieces of their own; a character that is spread over a
    border of the mask is one piece of kind `split`. Bytes that are no UTF-8 are U+FFFD.
    """
    marked = _marked(tokenizer, set(input_ids))
    states = [_state(i, label, marked) for i, label in zip(input_ids, labels, strict=True)]
    alike = [a == b and a[1] == "text" for a, b in pairwise(states)]
    borders = [0, *(i + 1 for i, same in enumerate(alike) if not same), len(states)]
    drawn = borders[: MOST_PIECES + 1]
    cuts: set[int] = {0, drawn[-1]}
    for border in drawn[1:-1]:
        inside_before, inside_after = states[border - 1][0], states[border][0]
        same = inside_before == inside_after
        cuts.update({border} if same else _around(tokenizer, input_ids, border))
    texts = _texts(tokenizer, input_ids, sorted(cuts))
    spans = pairwise(sorted(cuts))
    found = [_piece(text, states[a:b]) for text, (a, b) in zip(texts, spans, strict=True)]
    return tuple(found), len(states) - max(cuts)


def _piece(text: str, states: Sequence[tuple[bool, Kind]]) -> Piece:
    trained = [inside for inside, _ in states]
    return Piece(text, any(trained), states[0][1] if len(set(trained)) == 1 else "split")


def _marked(tokenizer: PreTrainedTokenizerBase, ids: Collection[int]) -> set[int]:
    """Return the ids to show as tokens: added ones that are more than space, and unknown ones."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    return {i for i in ids if i in added or not _is_known(tokenizer, i)}


def _is_known(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    return tokenizer.convert_ids_to_tokens(token) is not None


def _state(token: int, label: int, marked: Container[int]) -> tuple[bool, Kind]:
    return label != IGNORED, "token" if token in marked else "text"


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def _texts(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], cuts: Sequence[int]
) -> Iterator[str]:
    """Yield the text between each cut and the next.

    It is what the tokens add to the text of all before them: alone they would be decoded
    otherwise (a first token loses its space).
    """
    before = ""
    for start, end in pairwise(cuts):
        whole = _decode(tokenizer, ids[:end])
        if not _is_known(tokenizer, ids[start]):  # decoders leave it out without a word
            yield f"[{ids[start]}: no token of the tokenizer]"
        elif whole.startswith(before):
            yield whole[len(before) :]
        else:  # bytes that are no text
            yield _decode(tokenizer, ids[start:end])
        before = whole


def _around(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], border: int) -> set[int]:
    """Return where to cut at a border: there, or before and after the character it splits."""
    if _is_clean(tokenizer, ids, border):
        return {border}
    near = range(1, LONGEST_CHARACTER)
    before = next((border - n for n in near if _is_clean(tokenizer, ids, border - n)), None)
    after = next((border + n for n in near if _is_clean(tokenizer, ids, border + n)), None)
    return {border} if before is None or after is None else {before, after}


def _is_clean(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], border: int) -> bool:
    """Say whether no character has tokens on both sides of a border."""
    before = _decode(tokenizer, ids[: max(0, border)])
    if not before.endswith(REPLACEMENT):
        return True
    longer = (_decode(tokenizer, ids[: border + n]) for n in range(1, LONGEST_CHARACTER))
    return all(text.startswith(before) for text in longer)


def _concerned(findings: Findings) -> dict[str, _Pick]:
    """Return id -> pick of one row a finding, errors first, and of the first dropped ones."""
    named: dict[str, _Pick] = {}
    for finding in findings.findings:
        if finding.ids and len(named) < MOST_CONCERNED:
            named.setdefault(
                finding.ids[0], _Pick(len(named) - MOST_CONCERNED, finding.check.replace("_", " "))
            )
    dropped = findings.dropped_too_long[:MOST_DROPPED]
    return named | dict.fromkeys(dropped, _Pick(3, "dropped: longer than max_tokens"))


def _choose(tokens: Path, concerned: Mapping[str, _Pick], count: int) -> dict[int, _Pick]:
    """Return row number -> pick of the rows of `tokens.parquet` to show."""
    picks: dict[int, list[_Pick]] = {}
    extremes: dict[str, tuple[int, int]] = {}
    hashed: list[tuple[int, int]] = []  # a heap of (-hash, row): the `count` smallest hashes
    left = dict(concerned)
    for row, name, length, held_out in _rows(tokens):
        if name in left:
            picks[row] = [left.pop(name)]
        wanted = {"longest": -length, "shortest": length} | ({"held out": 0} if held_out else {})
        for why, rank in wanted.items():
            extremes[why] = min(extremes.get(why, (rank, row)), (rank, row))
        digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
        heapq.heappush(hashed, (-int.from_bytes(digest), row))
        if len(hashed) > count:
            heapq.heappop(hashed)
    for why, (_, row) in extremes.items():
        picks.setdefault(row, []).append(_Pick(2, why))
    for place, (_, row) in enumerate(sorted(hashed, reverse=True)):
        picks.setdefault(row, [_Pick(4 if place else 1, "chosen by hash")])
    merged = {
        row: _Pick(min(pick.rank for pick in found), ", ".join(pick.why for pick in found))
        for row, found in picks.items()
    }
    best = sorted(merged, key=lambda row: merged[row].rank)[:count]
    return {row: merged[row] for row in best}


def _rows(tokens: Path) -> Iterator[tuple[int, str, int, bool]]:
    """Yield (row number, id, tokens, held out) of all rows."""
    row = 0
    with pq.ParquetFile(tokens) as file:
        for batch in file.iter_batches(256, columns=["id", "input_ids", "held_out"]):
            lengths = pc.list_value_length(batch["input_ids"]).to_pylist()
            held = batch["held_out"].to_pylist()
            for name, length, out in zip(batch["id"].to_pylist(), lengths, held, strict=True):
                yield row, name, length, out
                row += 1


def _written(
    tokens: Path, tokenizer: PreTrainedTokenizerBase, chosen: Mapping[int, _Pick]
) -> Iterator[tuple[_Pick, Sample]]:
    """Yield the chosen rows of `tokens.parquet`."""
    for row, values in _fetch(tokens, sorted(chosen)):
        encoded = Encoded(values["input_ids"], values["labels"])
        yield chosen[row], _sample(tokenizer, values["id"], encoded, chosen[row].why)


def _fetch(tokens: Path, rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield some rows of a file by number, ascending; other row groups are not read."""
    if not rows:
        return
    columns = ["id", "input_ids", "labels"]
    with pq.ParquetFile(tokens) as file:
        begin = 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            wanted = [row - begin for row in rows if begin <= row < end]
            if wanted:
                table = file.read_row_group(group, columns=columns).take(wanted)
                yield from zip((begin + n for n in wanted), table.to_pylist(), strict=True)
            begin = end


def _encoded(
    examples: Path, tokenizer: PreTrainedTokenizerBase, wanted: Mapping[str, _Pick]
) -> Iterator[tuple[_Pick, Sample]]:
    """Yield the rows of `examples` with these ids, as they would have been trained."""
    left = dict(wanted)
    rows = iter_values(examples, ["id", "prompt", "reasoning", "answer"]) if left else iter(())
    for values in rows:
        pick = left.pop(values["id"], None)
        if pick is not None:
            texts = (values[name] for name in ("prompt", "reasoning", "answer"))
            encoded = encode_example(tokenizer, *texts)
            yield pick, _sample(tokenizer, values["id"], encoded, pick.why)
        if not left:
            return


def _sample(tokenizer: PreTrainedTokenizerBase, name: str, row: Encoded, why: str) -> Sample:
    drawn, undrawn = pieces(tokenizer, row.input_ids, row.labels)
    trained = sum(label != IGNORED for label in row.labels)
    return Sample(name, drawn, why, len(row.input_ids), trained, undrawn)
