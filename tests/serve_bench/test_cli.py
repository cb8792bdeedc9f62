"""`cuvee bench` refuses by name what it cannot do, before anything is started."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cuvee.cli import app


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.gguf"], "none.gguf: no such file"),
        (["folder"], "cuvee release folder --gguf Q8_0 --out DIR"),
        (["folder", "--command", "no-such-program"], "'no-such-program' is no program"),
        (["m.gguf", "--command", "vllm"], "leave --command out"),
        (["m.gguf"], "not a whole GGUF file"),
        (["m.gguf", "m.gguf"], "named twice"),
        (["m.gguf", "--model-name", "m"], "--model-name: only for a URL"),
        (["m.gguf", "--concurrency", "1,x"], "--concurrency '1,x': write whole numbers"),
        (["m.gguf", "--context", "0"], "--context '0': write whole numbers"),
        (["m.gguf", "--set", "serve.slots=3"], "--set serve.slots: not here; --concurrency"),
        (["m.gguf", "--set", "teach.x=3"], "--set teach.x=3: here there is only serve.KEY"),
        (["m.gguf", "--set", "serve.thread=3"], "thread"),
        (["http://h/v1"], "--model-name is missing"),
        (["http://h/v1", "--model-name", "m", "--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["http://u:secret@h/v1", "--model-name", "m"], "must hold no user, password or query"),
        (["http://h/v1", "--model-name", "m", "--threads", "2"], "--threads: only for models"),
        (["http://h/v1", "m.gguf", "--model-name", "m"], "a URL is measured alone"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"GGUF and no more")
    (tmp_path / "folder").mkdir()
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert said in " ".join(done.output.split()), done.output
    assert "secret@" not in done.output
    assert done.exit_code in (1, 2)
