"""What docs/shards.md says is what the code does: numbers, and the table that is computed."""

import math
import re
from pathlib import Path

from cuvee.cli.verify import VERIFY_EXAMPLES
from cuvee.shards.check import BATCH_ROWS
from cuvee.shards.pieces import PARTS, PIECE_BYTES
from cuvee.shards.record import KEY
from cuvee.shards.store import PAUSES
from cuvee.shards.verify import HOPELESS
from cuvee.workers.chunks import HELD_AHEAD, ROW_TRIES, SILENCE_SECONDS

PAGE = (Path(__file__).parent.parent / "docs" / "shards.md").read_text(encoding="utf-8")
ROW_SECONDS, PROGRAM_SECONDS, SHARD_SECONDS = 0.29e-3, 50e-3, 6.3e-3
SHARD_ROWS = 100_000


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"more than {PIECE_BYTES // 2**20} MB" in PAGE
    assert f"{BATCH_ROWS} rows at once" in PAGE
    assert f"`--out/{PARTS}/`" in PAGE
    assert f"(`{KEY}`)" in PAGE
    assert (HOPELESS, len(PAUSES) + 1, ROW_TRIES, HELD_AHEAD, SILENCE_SECONDS) == (5, 3, 3, 4, 60)
    for words in ("the first five", "three times", "three workers", "four\npieces a CPU"):
        assert words in PAGE


def test_the_second_example_is_that_of_the_help() -> None:
    assert "'s3://bucket/traces/*.parquet' --out s3://bucket/verdicts/" in VERIFY_EXAMPLES


def shown(seconds: float) -> str:
    """Return a time as the page writes it: two digits, or three below ten."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= (2 if unit == "days" else 1) * size or unit == "s":
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
    raise AssertionError


def table_row(million: int) -> str:
    rows = million * 10**6
    shards = rows // SHARD_ROWS
    times = [shards * SHARD_SECONDS]
    for a_row, all_cpus in ((ROW_SECONDS, (1, 64)), (PROGRAM_SECONDS, (1, 64, 1024))):
        times += [math.ceil(shards / cpus) * SHARD_ROWS * a_row for cpus in all_cpus]
    return f"| {million} million | {shards:,} | " + " | ".join(map(shown, times)) + " |"


def test_the_table_follows_from_the_costs_that_stand_above_it() -> None:
    for cost in ("0.29 ms", "6.3 ms", "50 ms"):
        assert cost in PAGE
    listed = re.findall(r"^\| \d+ million \|.*$", PAGE, re.MULTILINE)
    assert listed == [table_row(million) for million in (1, 10, 100)]
