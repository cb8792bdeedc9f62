"""A real engine: two quantisations of a two-layer model, end to end; its own clock agrees."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app
from cuvee.models.engines import serve
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import write_random_model
from cuvee.recipe import Serve
from cuvee.serve.bench.asking import opened, read
from cuvee.serve.bench.figures import figures
from cuvee.serve.bench.machine import peak_bytes
from cuvee.serve.bench.prompts import FORCED, meet


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    write_random_model(folder / "m")
    for kind in ("F32", "Q8_0"):
        write_gguf(folder / "m", folder / f"m.{kind}.gguf", quantization=kind)
    return folder / "m.F32.gguf", folder / "m.Q8_0.gguf"


def test_two_files_side_by_side(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    flags = ["--context", "64,32", "--concurrency", "2,1", "--tokens", "12", "--repeats", "2"]
    names = [str(file) for file in files]
    done = CliRunner().invoke(app, ["bench", *names, *flags, "--threads", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert [(c["context"], c["concurrency"], c["model"]) for c in found["cells"]] == [
        (context, at_once, f"m.{kind}")
        for context in (32, 64)
        for at_once in (1, 2)
        for kind in ("F32", "Q8_0")
    ]
    for cell in found["cells"]:
        assert cell["failed"] is None
        assert cell["cell"]["answer_tokens"] == [12, 12]
        assert cell["cell"]["prompt_tokens"] == [cell["context"]] * 2
        assert cell["cell"]["cached_tokens"] == 0
        assert cell["cell"]["answers"] == 2 * cell["concurrency"]
    # In turns: who goes first moves on with the repeat.
    turns = [(turn["repeat"], turn["model"]) for turn in found["turns"]]
    assert turns == [(0, "m.F32"), (0, "m.Q8_0"), (1, "m.Q8_0"), (1, "m.F32")]
    assert all(
        turn["start_seconds"] > 0 and turn["peak_bytes"] > 1 << 24 for turn in found["turns"]
    )
    assert [load["file_bytes"] for load in found["loads"]] == [f.stat().st_size for f in files]
    assert "m.Q8_0" in done.output
    assert set(found["engines"].values()) == {f"llama.cpp {version('xllamacpp')}"}


def test_a_prompt_beyond_the_model_s_context_is_said_and_others_are_measured(
    files: tuple[Path, Path],
) -> None:
    flags = ["--context", "32,5000", "--concurrency", "1", "--tokens", "9", "--repeats", "1"]
    done = CliRunner().invoke(app, ["bench", str(files[1]), *flags, "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "prompt 5000, 1 at once: no numbers" in done.output


def test_a_file_that_does_not_load_is_said_and_the_other_is_measured(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(files[0].read_bytes()[:200_000])
    flags = ["--context", "32", "--concurrency", "1", "--tokens", "60", "--repeats", "2"]
    done = CliRunner().invoke(app, ["bench", str(cut), str(files[1]), *flags, "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "cut: engine bench: ended before it answered (exit code 1)" in done.output
    assert "not within the file bounds" in done.output  # the log's end, which says why
    assert "cut, prompt 32, 1 at once: no numbers: its engine failed" in done.output
    assert "m.Q8_0, prompt 32, 1 at once: no numbers" not in done.output


def test_the_engine_s_own_clock_agrees(files: tuple[Path, Path], tmp_path: Path) -> None:
    """llama.cpp says how long it read and generated (`timings`); HTTP comes on top of it."""
    lines: list[bytes] = []

    async def timed(url: str) -> tuple[float, float]:
        async with opened(url, "m", secret=None) as place:
            server = await meet(place, random.Random(1))
            body = {
                **server.prompt(1500, random.Random(2)),
                **FORCED[server.kind],
                "model": "m",
                "max_tokens": 200,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            loop = asyncio.get_running_loop()
            begin = loop.time()
            async with place.session.post(f"{place.url}/completions", json=body) as response:

                async def kept() -> AsyncIterator[bytes]:
                    async for line in response.content:
                        lines.append(line)
                        yield line

                found = figures([await read(kept(), sent=begin, clock=loop.time)])
            return found.first_seconds[0], found.each_per_second

    spec = Serve(slots=1, context=2048, threads=1, start_timeout=60)
    with serve(spec, str(files[0]), name="m", folder=tmp_path) as engine:
        first, speed = asyncio.run(timed(engine.url))
    said = [json.loads(line[5:]) for line in lines if b'"timings"' in line][-1]["timings"]
    assert said["prompt_n"] == 1500
    assert said["predicted_n"] == 200
    assert first >= 0.95 * said["prompt_ms"] / 1000
    assert first <= said["prompt_ms"] / 1000 + 2
    assert speed == pytest.approx(said["predicted_per_second"], rel=0.5)


def test_memory_of_replicas_is_that_of_all_engines_and_each_has_its_own_devices(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    spec = Serve(slots=1, context=64, threads=1, replicas=2, devices=[3, 1])
    with serve(spec, str(files[0]), name="m", folder=tmp_path) as engine:
        engines = [json.loads((tmp_path / f"m.{n}.pid").read_text())["pid"] for n in (1, 2)]
        each = [peak_bytes(pid) or 0 for pid in engines]
        balancer = int(re.findall(r"VmHWM:\s+(\d+)", status_of(engine.pid))[0]) * 1024
        assert min(each) > 10 << 20
        assert sum(each) + balancer <= (peak_bytes(engine.pid) or 0)
        for pid, device in zip(engines, (3, 1), strict=True):
            environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
            assert f"CUDA_VISIBLE_DEVICES={device}" in environment


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def test_a_bench_over_a_cluster_is_refused_by_name(files: tuple[Path, Path]) -> None:
    flags = ["--set", "serve.over=ray", "--threads", "1"]
    done = CliRunner().invoke(app, ["bench", str(files[0]), *flags])
    assert done.exit_code == 2
    assert "serve.over" in done.output
