"""Teachers of the recipe as models that can be asked: a URL as it is, anything else is started.

Not here: asking (`cuvee.teach.client`), what starts engines (`cuvee.models.engines`), and
when a teacher is started and ended (`cuvee.teach.reach`).
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from cuvee import __version__
from cuvee.atomic import write_text
from cuvee.errors import RecipeError
from cuvee.models.engines import engine_identity, serve, spawn
from cuvee.recipe import Serve, Teacher
from cuvee.records import content_hash
from cuvee.runfolder import Run, hash_path
from cuvee.teach.client import Endpoint
from cuvee.teach.reach import Reachable
from cuvee.teach.scripted import config

SCRIPTED_START_SECONDS = 60.0
SCRIPTED_CODE = (
    "scripted.py",
    "scripted_answers.py",
    "scripted_judge.py",
    "scripted_refiner.py",
    "scripted_rubric.py",
)
"""What decides a scripted teacher's answers, beside its settings and the problems."""


def check_url(teacher: Teacher) -> None:
    """Raise RecipeError where a teacher's URL is none, or holds a password."""
    if teacher.url is None:
        return
    parts = urlsplit(teacher.url)
    if not parts.hostname:
        raise RecipeError(f"teacher {teacher.name}: url {teacher.url!r} has no host")
    if parts.username or parts.password or parts.query:
        raise RecipeError(
            f"teacher {teacher.name}: url must hold no user, password or query; "
            "keys come from the environment variable named in key_env"
        )


def find_teacher(
    teacher: Teacher, *, run: Run, problems: Sequence[Path] | None = None
) -> Reachable:
    """Return a teacher by its identity, and what starts it; a checkpoint is exported for that.

    `problems` are the files that a scripted one can answer; None: those of its domains. Raises
    RecipeError as `check_url` and where `serve` does not fit the model, DataError where a model
    or a problem file cannot be read, EngineError where vLLM does not run. Its `start` raises
    EngineError where a process does not start.
    """
    if teacher.serve is not None:
        return _served(teacher, teacher.serve, run=run)
    if teacher.scripted is not None:
        domains = teacher.domains or run.recipe.domains
        return _scripted(teacher, problems or [run.problems(d) for d in domains], run=run)
    return find_remote(teacher)


def find_remote(teacher: Teacher) -> Reachable:
    """Return a teacher with a `url`; nothing is started. Raises RecipeError as `check_url`."""
    check_url(teacher)
    url, model = teacher.url or "", teacher.model or ""
    # Of a remote model nothing is known but where it is and what it is called.
    identity = content_hash("url", url.rstrip("/"), model)
    endpoint = _endpoint(teacher, url=url, model=model, identity=identity)
    return Reachable(endpoint, lambda resources: endpoint)


def _served(teacher: Teacher, spec: Serve, *, run: Run) -> Reachable:
    model = spec.model or teacher.model or ""
    if spec.engine == "llama.cpp":
        model = str(_gguf_of(model, spec, file=run.engines() / f"{teacher.name}.gguf"))
    known = _endpoint(teacher, url="", model=model, identity=engine_identity(spec, model))

    def start(resources: ExitStack) -> Endpoint:
        serving = serve(spec, model, name=teacher.name, folder=run.engines())
        engine = resources.enter_context(serving)
        return dataclasses.replace(known, url=engine.url, model=engine.model)

    return Reachable(known, start)


def _gguf_of(model: str, spec: Serve, *, file: Path) -> Path:
    """Return the .gguf file that llama.cpp serves; a checkpoint is exported to `file`."""
    if model.endswith(".gguf"):
        return Path(model).expanduser()
    from cuvee.models.checkpoint import resolve  # torch: seconds no remote teacher need wait
    from cuvee.models.gguf_kept import kept_gguf

    kept_gguf(resolve(model), file, quantization=spec.quantization)
    return file


def _scripted(teacher: Teacher, files: Sequence[Path], *, run: Run) -> Reachable:
    identity = _scripted_identity(teacher, files)
    known = _endpoint(teacher, url="", model=teacher.name, identity=identity)

    def start(resources: ExitStack) -> Endpoint:
        config_file = run.engines() / f"{teacher.name}.scripted.json"
        write_text(config_file, json.dumps(config(teacher, files), indent=1))
        command = [sys.executable, "-m", "cuvee.teach.scripted", str(config_file)]
        running = spawn(
            command, name=teacher.name, folder=run.engines(), seconds=SCRIPTED_START_SECONDS
        )
        return dataclasses.replace(known, url=resources.enter_context(running))

    return Reachable(known, start)


def _scripted_identity(teacher: Teacher, files: Sequence[Path]) -> str:
    """Return a hash of all that decides its answers: settings, problems, and its own code."""
    settings = teacher.scripted.model_dump(mode="json") if teacher.scripted else None
    code = [hash_path(Path(__file__).with_name(name)) for name in SCRIPTED_CODE]
    problems = [hash_path(file) for file in files]
    return content_hash("scripted", teacher.name, settings, problems, __version__, code)


def _endpoint(teacher: Teacher, *, url: str, model: str, identity: str) -> Endpoint:
    return Endpoint(
        name=teacher.name,
        url=url,
        model=model,
        identity=identity,
        key_env=teacher.key_env,
        concurrency=teacher.concurrency,
        timeout=teacher.timeout,
        retries=teacher.retries,
        system=teacher.system,
        prices=teacher.usd_per_mtok,
        stream=teacher.stream,
        deadline=teacher.deadline,
    )
