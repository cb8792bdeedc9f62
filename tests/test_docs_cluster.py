"""What docs/cluster.md says is what the code does: stages, sizes, reasons."""

import re
from pathlib import Path

from cuvee.recipe.cluster import ON_RAY
from cuvee.verify.clustered import CHUNK_CHARACTERS, CHUNK_ROWS
from cuvee.workers.chunks import CHUNK_TRIES, HELD_AHEAD, HOPELESS, ROW_TRIES, SILENCE_SECONDS
from cuvee.workers.nodes import SAME

PAGE = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_the_stages_are_those_of_the_code() -> None:
    (names,) = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| on the cluster", PAGE, re.M)
    assert tuple(re.findall(r"`(\w+)`", names)) == ON_RAY


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"chunks of {CHUNK_ROWS}, or {CHUNK_CHARACTERS // 2**20} million characters" in PAGE
    assert (HELD_AHEAD, CHUNK_TRIES, ROW_TRIES, HOPELESS, SILENCE_SECONDS) == (4, 2, 3, 20, 60)
    for words in ("four chunks a CPU", "twice", "three times", "Twenty chunks", "a minute"):
        assert words in PAGE
    assert all(package in PAGE for package in SAME)
