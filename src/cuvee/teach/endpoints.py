"""Opening a teacher of the recipe as an endpoint: a URL as it is, anything else is started.

Not here: asking (`cuvee.teach.client`), what starts engines (`cuvee.models.engines`), and
when a teacher is closed again (`cuvee.teach.stage`).
"""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from cuvee import __version__
from cuvee.atomic import write_text
from cuvee.errors import RecipeError
from cuvee.models.engines import serve, spawn
from cuvee.recipe import Serve, Teacher
from cuvee.records import content_hash
from cuvee.runfolder import Run, hash_path
from cuvee.teach.client import Endpoint, api_key
from cuvee.teach.scripted import config

SCRIPTED_START_SECONDS = 60.0
SCRIPTED_CODE = ("scripted.py", "scripted_answers.py", "scripted_judge.py")
"""What decides a scripted teacher's answers, beside its settings and the problems."""


def check_teacher(teacher: Teacher) -> None:
    """Check what can be known before anything is started or sent.

    Raises RecipeError where the URL is none or holds a password, or the key is not set.
    """
    if teacher.url is not None:
        parts = urlsplit(teacher.url)
        if not parts.hostname:
            raise RecipeError(f"teacher {teacher.name}: url {teacher.url!r} has no host")
        if parts.username or parts.password or parts.query:
            raise RecipeError(
                f"teacher {teacher.name}: url must hold no user, password or query; "
                "keys come from the environment variable named in key_env"
            )
    api_key(_endpoint(teacher, url=teacher.url or "", model="", identity=""))


def open_teacher(teacher: Teacher, *, run: Run, resources: ExitStack) -> Endpoint:
    """Return a teacher as an endpoint, starting it where it must be started.

    What is started ends with `resources`. Raises RecipeError as `check_teacher` does,
    DataError where a model or a problem file cannot be read, EngineError where a process
    does not start.
    """
    check_teacher(teacher)
    if teacher.serve is not None:
        return _served(teacher, teacher.serve, run=run, resources=resources)
    if teacher.scripted is not None:
        return _scripted(teacher, run=run, resources=resources)
    url, model = teacher.url or "", teacher.model or ""
    # Of a remote model nothing is known but where it is and what it is called.
    identity = content_hash("url", url.rstrip("/"), model)
    return _endpoint(teacher, url=url, model=model, identity=identity)


def _served(teacher: Teacher, spec: Serve, *, run: Run, resources: ExitStack) -> Endpoint:
    model = spec.model or teacher.model or ""
    if spec.engine == "llama.cpp":
        model = str(_gguf_of(model, spec, file=run.engines() / f"{teacher.name}.gguf"))
    engine = resources.enter_context(serve(spec, model, name=teacher.name, folder=run.engines()))
    return _endpoint(teacher, url=engine.url, model=engine.model, identity=engine.identity)


def _gguf_of(model: str, spec: Serve, *, file: Path) -> Path:
    """Return the .gguf file that llama.cpp serves; a checkpoint is exported to `file`."""
    if model.endswith(".gguf"):
        return Path(model).expanduser()
    from cuvee.models.checkpoint import resolve  # torch: seconds no remote teacher need wait
    from cuvee.models.gguf_write import write_gguf

    write_gguf(resolve(model), file, quantization=spec.quantization)
    return file


def _scripted(teacher: Teacher, *, run: Run, resources: ExitStack) -> Endpoint:
    files = [run.problems(domain) for domain in teacher.domains or run.recipe.domains]
    config_file = run.engines() / f"{teacher.name}.scripted.json"
    write_text(config_file, json.dumps(config(teacher, files), indent=1))
    url = resources.enter_context(
        spawn(
            [sys.executable, "-m", "cuvee.teach.scripted", str(config_file)],
            name=teacher.name,
            folder=run.engines(),
            seconds=SCRIPTED_START_SECONDS,
        )
    )
    identity = _scripted_identity(teacher, files)
    return _endpoint(teacher, url=url, model=teacher.name, identity=identity)


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
    )
