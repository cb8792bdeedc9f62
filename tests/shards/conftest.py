"""A store over HTTP that is installed as fsspec's stores are, and shards to put there."""

import importlib.util
import io
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Row = Mapping[str, Any]
Put = Callable[[str, bytes], None]

COLUMNS = pa.schema([("id", "string"), ("gold", "string"), ("reply", "string")])
SOURCE = Path(__file__).parent / "shelf.py"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Have the store `shelf://` where this process, and those it starts, find it; its module."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(SOURCE, folder / "shelf.py")
    about = folder / "shelf-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[fsspec.specs]\nshelf = shelf:ShelfFileSystem\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        spec = importlib.util.find_spec("shelf")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        fsspec.register_implementation("shelf", module.ShelfFileSystem, clobber=True)
        yield module
    sys.modules.pop("shelf", None)


@pytest.fixture(scope="module")
def server(installed: Any) -> Iterator[Any]:
    """The shelf's server for the tests of a file."""
    server = installed.Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHELF_URL", server.url)
        yield server
    server.close()


@pytest.fixture
def shelf(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server with nothing on it, that answers at once."""
    monkeypatch.setattr("cuvee.shards.store.PAUSES", (0.0, 0.0))
    server.held.clear()
    server.asked.clear()
    server.deadly.clear()
    server.failed.clear()
    server.fails_first, server.down = 0, False
    return server


@pytest.fixture(params=["local", "memory", "shelf"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place to put shards: a folder, or one of a store."""
    if request.param == "shelf":
        request.getfixturevalue("shelf")
        yield "shelf://bucket"
    elif request.param == "memory":
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").store.clear()
    else:
        yield str(tmp_path)


def shard(rows: Sequence[Row], *, groups_of: int = 1000) -> bytes:
    """Return rows as the bytes of a Parquet file."""
    file = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=COLUMNS)
    pq.write_table(table, file, row_group_size=groups_of)
    return file.getvalue()


def answers(name: str, number: int) -> list[dict[str, str]]:
    """Return rows of which every third is wrong."""
    return [
        {"id": f"{name}-{i}", "gold": str(i), "reply": rf"so \boxed{{{i + (i % 3 == 0)}}}"}
        for i in range(number)
    ]


def put(url: str, content: bytes) -> None:
    """Put bytes at a place."""
    fs, path = fsspec.url_to_fs(url)
    if "://" not in url:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)
    elif url.startswith("shelf"):
        fs.pipe_file(path, content)
    else:
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(path, content)


def table(url: str) -> pa.Table:
    """Return a Parquet file of a place."""
    fs, path = fsspec.url_to_fs(url)
    return pq.read_table(io.BytesIO(fs.cat_file(path)))


def names(url: str) -> list[str]:
    """Return the paths of all files beneath a place."""
    fs, path = fsspec.url_to_fs(url)
    fs.invalidate_cache()
    try:
        found = fs.find(path)
    except FileNotFoundError:
        return []
    return sorted(file.removeprefix(path).lstrip("/") for file in found)
