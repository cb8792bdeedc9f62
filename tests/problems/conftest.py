"""Files in published schemas, and the skip where the real ones are absent."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

WriteLines = Callable[[str, Iterable[Mapping[str, Any]]], Path]


@pytest.fixture
def data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real problems and outputs")
    return SHARED


@pytest.fixture
def lines(tmp_path: Path) -> WriteLines:
    def write(name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
