"""Fixtures: random two-layer checkpoints of each architecture, and an engine for one."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cuvee.models.engines import Engine, serve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import Architecture, write_random_model
from cuvee.recipe import Serve

torch.set_num_threads(2)

SMALL = Serve(slots=2, context=512, threads=2, start_timeout=60)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Path]:
    """Return the folder of a random model of an architecture, made once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(architecture: Architecture) -> Path:
        path = root / architecture
        if not path.is_dir():
            write_random_model(path, architecture=architecture)
        return path

    return folder


@pytest.fixture(scope="session")
def engine(
    checkpoint: Callable[[Architecture], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Serve the random llama in float32."""
    folder = tmp_path_factory.mktemp("engine")
    file = folder / "llama.gguf"
    write_gguf(checkpoint("llama"), file, quantization="F32")
    with serve(SMALL, str(file), name="llama", folder=folder) as running:
        yield running


@pytest.fixture
def small() -> Serve:
    """Say how the tests serve."""
    return SMALL


@pytest.fixture
def post() -> Callable[[Engine, str, dict[str, Any]], Any]:
    """POST to the engine's root; return its JSON."""
    return _post


def _post(engine: Engine, path: str, body: dict[str, Any]) -> Any:
    url = engine.url.removesuffix("/v1") + path
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
