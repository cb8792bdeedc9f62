"""`cuvee evaluate MODEL`: one model on one benchmark, without a recipe and without a run.

A .gguf file, checkpoint, hub id or URL and a declaration in; a scored folder out (problems,
traces, verdicts, scores as Parquet). Measured as in a run (`cuvee.evaluate.measure`), so the
same command goes on where it was stopped, and answers that a run has bought are not bought
again. Not here: comparing scored folders (`cuvee compare`), training data, several models.
"""

import dataclasses
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cuvee.atomic import hold
from cuvee.errors import RecipeError
from cuvee.evaluate.measure import Measurement, measure, served
from cuvee.evaluate.protocol import (
    Taken,
    checking_settings,
    engine_settings,
    protocol_of,
    teacher_settings,
)
from cuvee.evaluate.scored import Scored, check_out, write_scored
from cuvee.evaluate.table import score_row
from cuvee.models.engines import end_stale, engine_version
from cuvee.problems.benchmarks import load_benchmark
from cuvee.problems.benchmarks.resolve import sampling_of, source_of, source_of_file
from cuvee.progress import log_to, say
from cuvee.recipe import Declaration, Evaluate, Sampling, Serve, Teacher, Verify
from cuvee.records import Problem, Score, dumps, write_rows
from cuvee.teach.client import Books
from cuvee.teach.endpoints import find_remote
from cuvee.teach.ledger import Ledger
from cuvee.teach.reach import Reachable, one_at_a_time
from cuvee.teach.request import most_tokens

LLAMA_SLOTS = 4
"""Requests that llama.cpp answers at once where nobody says: each slot needs memory for
`context` tokens."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A model, as it is named on the command line."""

    model: str
    """A .gguf file, a checkpoint folder, a hub id or a URL."""
    model_name: str | None = None
    """Its name on the server, of a URL."""
    key_env: str | None = None
    """Environment variable with the API key, of a URL."""

    @property
    def is_url(self) -> bool:
        """Return whether it is served elsewhere already."""
        return self.model.startswith(("http://", "https://"))

    @property
    def is_gguf(self) -> bool:
        """Return whether it is a file that llama.cpp serves as it is."""
        return not self.is_url and self.model.endswith(".gguf")

    @property
    def name(self) -> str:
        """Return what the score table calls it: letters, digits, `.`, `_` and `-`."""
        said = self.model_name if self.is_url else str(Path(self.model).expanduser().absolute())
        last = (said or urlsplit(self.model).netloc).rstrip("/").rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", last.removesuffix(".gguf")).lstrip("._-") or "model"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked, how, and with what it is checked."""

    benchmark: Declaration
    file: Path | None
    """Local file of the benchmark; None: where the declaration says."""
    limit: int | None
    seed: int
    evaluate: Evaluate
    """`serve`, `sampling` (over the declaration's), `concurrency` and `timeout` count."""
    verify: Verify
    sandbox: str

    @property
    def sampling(self) -> Sampling:
        """Return the sampling, key by key the user's, the declaration's or the default."""
        given = self.evaluate.sampling.model_dump(exclude_none=True)
        return sampling_of(self.benchmark).model_copy(update=given)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model that was found, and what a protocol says of who serves it."""

    model: Reachable
    serving: dict[str, Any]


def evaluate_alone(place: Place, asked: Asked, *, out: Path, ledger: str) -> Score:
    """Measure a model on a benchmark; write the scored folder `out`; return its score.

    `out` changes only when everything is answered and checked. Raises RecipeError for flags
    that do not fit the model and where `out` is another thing's folder, and what loading the
    benchmark, serving, asking and checking raise.
    """
    _check_place(place, asked.evaluate)
    check_out(out, place.name, asked.benchmark.name)
    with (
        hold(out),
        log_to(out / "log.txt"),
        tempfile.TemporaryDirectory() as scratch,
        ExitStack() as resources,
    ):
        engines = out / "engines"
        end_stale(engines)
        # A name of its own, and no domain of a recipe: what kind of answers it wants.
        loaded = load_benchmark(
            asked.benchmark, domain=asked.benchmark.verifier, file=asked.file, limit=asked.limit
        )
        subject = find(place, asked, loaded.problems, engines=engines)
        wanted = _measurement(asked, Path(scratch) / "problems.parquet", engines)
        write_rows(wanted.problems, loaded.problems, Problem)
        _say_what(place, wanted, len(loaded.problems))
        found = measure(
            subject.model,
            wanted,
            books=Books(resources.enter_context(Ledger.open(ledger))),
            opened=one_at_a_time(resources),
        )
        protocol = protocol_of(
            _taken(asked, loaded.revision),
            serve=subject.serving,
            checking=checking_settings(asked.verify, asked.sandbox),
        )
        score = score_row(
            place.name,
            asked.benchmark.name,
            found.traces,
            found.verdicts,
            protocol=dumps(protocol),
        )
        write_scored(out, Scored(loaded.problems, found.traces, found.verdicts, [score]))
    return score


def find(place: Place, asked: Asked, problems: list[Problem], *, engines: Path) -> Subject:
    """Return a model by its identity, and what serves it; a checkpoint is exported for llama.cpp.

    Raises RecipeError where it names nothing, or its context is too small, DataError where it
    cannot be read or exported, EngineError where vLLM does not run.
    """
    evaluate = asked.evaluate
    if place.is_url:
        teacher = Teacher(
            name=place.name,
            url=place.model,
            model=place.model_name,
            key_env=place.key_env,
            concurrency=evaluate.concurrency,
            timeout=evaluate.timeout,
        )
        return Subject(find_remote(teacher), teacher_settings(teacher))
    spec = _serve(evaluate, problems, asked.sampling)
    model = served(
        place.name,
        _path(place, spec, engines),
        spec,
        concurrency=evaluate.concurrency,
        timeout=evaluate.timeout,
        engines=engines,
    )
    settings = engine_settings(spec) | {"version": engine_version(spec)}
    if place.is_gguf:
        settings["quantization"] = None  # the file's own
    return Subject(model, settings)


def _check_place(place: Place, evaluate: Evaluate) -> None:
    """Raise RecipeError for flags that do not fit the kind of model, before anything is read."""
    if place.is_url:
        if place.model_name is None:
            raise RecipeError("--model-name is missing: the model's name on the server of the URL")
        if "serve" in evaluate.model_fields_set:
            raise RecipeError("--command and evaluate.serve: what a URL serves runs already")
        return
    if place.model_name is not None or place.key_env is not None:
        raise RecipeError(f"{place.model}: --model-name and --key-env are for a URL")
    if not place.is_gguf:
        return
    if evaluate.serve.engine != "llama.cpp":
        raise RecipeError(f"{place.model}: llama.cpp serves a .gguf file; leave --command out")
    if "quantization" in evaluate.serve.model_fields_set:
        raise RecipeError(f"{place.model}: evaluate.serve.quantization: a .gguf file has its own")
    if not Path(place.model).expanduser().is_file():
        raise RecipeError(f"{place.model}: no such file")


def _serve(evaluate: Evaluate, problems: list[Problem], sampling: Sampling) -> Serve:
    """Return `evaluate.serve` with the context and slots that it does not say.

    The context holds the longest prompt, by its bytes (no tokenizer makes more tokens of it),
    and the longest answer. Raises RecipeError where a context that was given may not.
    """
    spec = evaluate.serve
    prompts = ([{"role": "user", "content": problem.prompt}] for problem in problems)
    needed = max(map(most_tokens, prompts)) + sampling.max_tokens
    given = spec.model_fields_set
    if "context" in given and spec.context < needed:
        raise RecipeError(
            f"evaluate.serve.context: {spec.context} may be too small: the longest prompt and "
            f"max_tokens {sampling.max_tokens} need up to {needed}; leave it out, or ask for fewer "
            "--max-tokens"
        )
    more: dict[str, Any] = {} if "context" in given else {"context": needed}
    if "slots" not in given:
        asked = "concurrency" in evaluate.model_fields_set
        few = spec.engine == "llama.cpp" and not asked
        more["slots"] = LLAMA_SLOTS if few else evaluate.concurrency
    return spec.model_copy(update=more)


def _path(place: Place, spec: Serve, engines: Path) -> str:
    """Return what the engine serves; a checkpoint becomes a .gguf file for llama.cpp."""
    path = Path(place.model).expanduser()
    if place.is_gguf:
        return str(path)
    if spec.engine != "llama.cpp":
        return str(path) if path.exists() else place.model
    from cuvee.models.checkpoint import resolve  # torch: seconds that a URL need not wait
    from cuvee.models.gguf_kept import kept_gguf

    file = engines / f"{place.name}.{spec.quantization}.gguf"
    kept_gguf(resolve(place.model), file, quantization=spec.quantization)
    return str(file)


def _measurement(asked: Asked, problems: Path, engines: Path) -> Measurement:
    return Measurement(
        benchmark=asked.benchmark.name,
        problems=problems,
        samples=asked.benchmark.samples,
        seed=asked.seed,
        sampling=asked.sampling,
        limits=asked.verify,
        sandbox=asked.sandbox,
        engines=engines,
    )


def _taken(asked: Asked, revision: str | None) -> Taken:
    found, file = asked.benchmark, asked.file
    return Taken(
        benchmark=found.name,
        source=source_of(found) if file is None else source_of_file(found, str(file)),
        revision=revision,
        limit=asked.limit,
        prompt=found.prompt,
        verifier=found.verifier,
        samples=found.samples,
        seed=asked.seed,
        sampling=asked.sampling,
    )


def _say_what(place: Place, wanted: Measurement, problems: int) -> None:
    sampling = wanted.sampling
    say(
        f"{place.name} on {wanted.benchmark}: {problems} problems x {wanted.samples}, temperature "
        f"{sampling.temperature:g}, top_p {sampling.top_p:g}, at most {sampling.max_tokens} tokens"
    )
