"""What is benched: files and checkpoints that cuvee serves, or a server that runs.

Names of the command line in, `Started` or `Remote` out. Not here: starting and asking
(`turns`).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cuvee.errors import RecipeError
from cuvee.models.gguf_header import read_header
from cuvee.recipe import Serve
from cuvee.teach.request import Endpoint, api_key

HTTP = ("http://", "https://")


@dataclasses.dataclass(frozen=True)
class Started:
    """A model that cuvee starts an engine for."""

    name: str
    model: str
    """A .gguf file (llama.cpp), or a checkpoint folder or hub id (vLLM)."""
    spec: Serve

    @property
    def file(self) -> Path | None:
        """Return the .gguf file, if it is one."""
        return Path(self.model) if self.spec.engine == "llama.cpp" else None


@dataclasses.dataclass(frozen=True)
class Remote:
    """A model behind a URL: of its memory and start nothing is known."""

    name: str
    url: str
    model: str
    secret: str | None = dataclasses.field(default=None, repr=False)


Subject = Started | Remote


def started(models: Sequence[str], spec: Serve) -> list[Subject]:
    """Return files or checkpoints with how each is served.

    Raises RecipeError for a file that is not there, for a checkpoint without vLLM's command
    and for what is named twice, DataError for a file that is no GGUF.
    """
    if twice := sorted({model for model in models if models.count(model) > 1}):
        raise RecipeError(f"{twice[0]}: named twice")
    paths = [_checked(model, spec) for model in models]
    short = [Path(path).name.removesuffix(".gguf") for path in paths]
    names = [n if short.count(n) == 1 else path for n, path in zip(short, paths, strict=True)]
    return [Started(name, path, spec) for name, path in zip(names, paths, strict=True)]


def remote(url: str, *, model: str | None, key_env: str | None) -> Remote:
    """Return a server that runs; the key comes from the environment.

    Raises RecipeError for a URL that is none or holds a password, where `model` is missing,
    and where `key_env` names no key.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        raise RecipeError(f"{url!r}: a URL without a host")
    if parts.username or parts.password or parts.query:
        raise RecipeError(
            f"the URL of {parts.hostname} must hold no user, password or query; name the "
            "environment variable that holds the key with --key-env"
        )
    if model is None:
        raise RecipeError(f"{url}: --model-name is missing: the model's name on that server")
    endpoint = Endpoint(name=model, url=url, model=model, identity="", key_env=key_env)
    return Remote(model, url.rstrip("/"), model, api_key(endpoint))


def _checked(model: str, spec: Serve) -> str:
    path = Path(model).expanduser()
    if spec.engine == "vllm":
        if model.endswith(".gguf"):
            raise RecipeError(f"{model}: llama.cpp serves a .gguf file; leave --command out")
        return str(path) if path.exists() else model
    if not model.endswith(".gguf"):
        raise RecipeError(
            f"{model}: no .gguf file. Export a checkpoint first (cuvee release {model} --gguf "
            "Q8_0 --out DIR), or serve it with vLLM (--command /path/to/vllm)"
        )
    if not path.is_file():
        raise RecipeError(f"{model}: no such file")
    read_header(path)
    return str(path)
