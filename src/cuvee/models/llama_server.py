"""llama.cpp's server in a process of its own: `python -m cuvee.models.llama_server CONFIG`.

CONFIG is a JSON file with `model` (a .gguf file), `name`, `slots`, `context` (tokens a slot),
`threads` (or null), `host` (127.0.0.1 where it is not said) and `port` (0: any that is free).
Where the environment has a token (`TOKEN_ENV`), requests must bring it. When it answers, one
JSON line `{"url": ...}` goes to stdout. Its own process keeps the library's stderr, where alone
its errors appear, and survives its crashes.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import xllamacpp

from cuvee.models.door import LOOPBACK
from cuvee.models.health import is_healthy

TOKEN_ENV = "CUVEE_ENGINE_TOKEN"
"""Environment variable with the token: a command line would show it to every user."""
_ERRORS = 1
"""llama.cpp's verbosity; warnings would be a line a request."""


def parameters(config: dict[str, Any]) -> Any:
    """Return llama.cpp's parameters: the model's own template, and its text left untouched."""
    p = xllamacpp.CommonParams()
    p.model.path = config["model"]
    p.model_alias = {config["name"]}
    p.n_parallel = config["slots"]
    p.n_ctx = config["slots"] * config["context"]
    p.fit_params = False  # it would shrink the context to what memory is free
    p.use_jinja = True
    p.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    p.force_pure_content_parser = True  # no reading of tool calls out of the text either
    p.cache_prompt = False  # a reused prefix gives other rounding: answers must not depend on it
    p.cache_ram_mib = 0
    p.warmup = False
    p.ui = False
    p.verbosity = _ERRORS
    p.hostnames = [config.get("host", LOOPBACK)]
    p.port = config.get("port", 0)
    if token := os.environ.get(TOKEN_ENV):
        p.api_keys = [token]
    if config["threads"] is not None:
        p.cpuparams.n_threads = config["threads"]
        p.cpuparams_batch.n_threads = config["threads"]
    return p


def main(arguments: list[str]) -> int:
    """Serve until killed; return 1 where the model does not load."""
    config = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        server = xllamacpp.Server(parameters(config))
    except RuntimeError as error:
        print(f"llama.cpp cannot serve {config['model']}: {error}", file=sys.stderr)
        return 1
    while not is_healthy(f"{server.listening_address}/health"):
        time.sleep(0.02)
    print(json.dumps({"url": f"{server.listening_address}/v1"}), flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
