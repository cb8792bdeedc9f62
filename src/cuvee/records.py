"""The rows that stages hand to each other, and their Parquet files.

One frozen dataclass per noun: `Problem`, `Trace`, `Verdict`, `Example`, `Dropped`, `Score`,
`Comparison`. A file holds rows of one type; its columns are the fields, in order. Files are
written under a temporary name, synced and renamed, so a file that exists is complete.
Not here: what the columns of published data sets look like (`cuvee.problems.sources`).
"""

import dataclasses
import hashlib
import itertools
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

from cuvee.atomic import replacing
from cuvee.errors import DataError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Message = dict[str, str]
"""One chat message: ``{"role": "user", "content": "..."}``."""

GROUP_ROWS = 8192
GROUP_CHARACTERS = 1 << 26
"""Rows and characters of one row group of a file: what is held at once while writing."""
BATCH_ROWS = 4096
BATCH_BYTES = 1 << 26
"""Rows and bytes (uncompressed) that are held at once while reading."""

Record = Callable[[], dict[str, str]]
"""Makes what a file says of itself, in Parquet's metadata."""

VerdictName = Literal["correct", "wrong", "no_answer", "not_checked"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with what is needed to check an answer."""

    id: str
    """Hash of question, gold and tests (`problem_id`); the same content has the same id."""
    domain: str
    source: str
    """Where it came from: a hub id, a path or ``generator:NAME``."""
    question: str
    prompt: str
    """The user message a model gets: the domain's prompt with the question in it."""
    verifier: str
    gold: str | None
    """Gold answer; for code a reference program (or None where the source has none)."""
    tests: str | None
    """JSON tests of a code problem; the forms stand in `cuvee.verify.code.forms`."""
    meta: str
    """JSON object of whatever else the source says of this problem."""
    place: str = ""
    """The row of the source that it was read from, e.g. `train.parquet, row 18`."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """One answer of one model to one problem. A failed request is a row too."""

    id: str
    """Hash of the request (`request`) and the sample number: unique in a run."""
    problem_id: str
    domain: str
    model: str
    """The teacher's name; in an evaluation `base`, a domain, `mixture` or `merged`."""
    sample: int
    reasoning: str
    answer: str
    finish_reason: str
    """`stop`, `length` (truncated; kept as data), or `error` (see `error`)."""
    prompt_tokens: int | None
    """As the server counted; None where it did not say."""
    completion_tokens: int | None
    seconds: float
    request: str
    """Key of the request in the ledger; empty for a trace that was published."""
    fingerprint: str | None
    """The server's `system_fingerprint`; scripted teachers state their fault here."""
    error: str | None
    """Why there is no answer, where `finish_reason` is `error`."""
    usd: float | None = None
    """What it cost by the teacher's prices; None where the recipe has none or nobody counted."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the verifier says of one trace."""

    trace_id: str
    problem_id: str
    domain: str
    verdict: VerdictName
    reason: str
    """One word for counting: `equal`, `different`, `time_limit`, `truncated`, ..."""
    extracted: str | None
    """What was taken from the answer to be checked."""
    expected: str | None
    """What it was compared with; None for code (the tests stand in the problem)."""
    detail: str | None
    """For people: the failing test, the error's last line."""
    checker: str
    """What checked it: `math-verify`, `bubblewrap`, `none`, ..."""
    seconds: float


@dataclasses.dataclass(frozen=True)
class Example:
    """A trace that was chosen to train on."""

    id: str
    """The trace's id."""
    problem_id: str
    domain: str
    teacher: str
    prompt: str
    reasoning: str
    answer: str
    tokens: int
    """Tokens of reasoning + answer as they are trained, by the student's tokenizer."""


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A row that a stage left out, with its reason."""

    id: str
    """The problem's or trace's id."""
    domain: str
    kind: Literal["problem", "trace"]
    model: str | None
    reason: str
    """One word for counting: `near_duplicate`, `too_long`, `verdict_wrong`, ..."""
    detail: str | None


@dataclasses.dataclass(frozen=True)
class Score:
    """One model's result on one benchmark. Shares are of all samples and sum to 1."""

    model: str
    benchmark: str
    domain: str
    mean: float | None
    """Share of correct samples in [0, 1]; None where over 1 % was not checked."""
    low: float
    """Lower end of the 95 % interval, in [0, 1]."""
    high: float
    lower_bound: float
    """The mean if every `not_checked` were wrong; `upper_bound` if every one were right."""
    upper_bound: float
    n_problems: int
    n_samples: int
    correct: int
    wrong: int
    no_answer: int
    truncated: int
    """Of the `no_answer`: those whose reply was cut at `max_tokens`."""
    not_checked: int
    mean_tokens: float | None
    """Of the samples whose tokens are known; None where nobody counted them."""
    protocol: str
    """JSON: sampling, prompt, engine, quantisation: what the number was taken with."""
    pass_at: str = "{}"
    """JSON: k -> {mean, low, high} of pass@k, for k that every problem has samples for."""
    maj_at: str = "{}"
    """JSON: k -> {mean, low, high, tied} of maj@k; `tied`: the share of votes that were tied."""
    se_problems: float | None = None
    """Standard error of the mean that more problems would take away, in [0, 1]; None: of one."""
    se_samples: float | None = None
    """What more samples of the same problems would take away; None where no problem has two."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A paired difference of two models on the same problems of one benchmark."""

    model: str
    against: str
    benchmark: str
    difference: float
    """Mean of model minus mean of against, in [-1, 1]."""
    low: float
    high: float
    p_value: float
    n_problems: int
    samples_needed: int | None = None
    """Samples a problem, of each model, at which the interval would, as likely as not, leave out 0
    if the difference is as seen; None: it does already, no number of samples of these problems
    would, or one sample or no difference says nothing of it."""
    problems_needed: int | None = None
    """The same for problems, with as many samples each as now; None too for one problem."""
    protocols: str = "{}"
    """JSON: what differs between the protocols of the two scores -> [model's, against's]."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """An exported file against the checkpoint that it was made from.

    A number is None, and a count of what was compared 0, where its check could not be made.
    """

    file: str
    quantization: str
    bytes: int
    texts: int
    """Texts whose token ids were compared."""
    texts_unlike: int
    chats: int
    """Conversations whose rendered bytes and token ids were compared."""
    chats_unlike: int
    text: str
    """What the numbers below were taken on, in words."""
    positions: int
    """Tokens that were predicted."""
    left_out: int
    """Tokens of the text that were not compared, as it is longer than was asked for."""
    perplexity: float | None
    perplexity_checkpoint: float | None
    kl_mean: float | None
    """Kullback-Leibler divergence of the file's predictions from the checkpoint's, in nats."""
    kl_p99: float | None
    same_top: float | None
    """Share of positions where both find the same token most likely."""
    logit_difference: float | None
    """Largest difference of log-probabilities of any token at any position; None also where
    quantised on purpose."""
    engine_positions: int
    """Positions at which the engine that serves was asked for its whole distribution."""
    engine_kl: float | None
    """Largest divergence there of the engine's predictions from those of the file's weights in
    torch, in nats."""
    passed: bool
    detail: str
    """What failed, which check could not be made and why, and what was left out."""


Row = TypeVar("Row", bound="DataclassInstance")
"""Any of the above, or a frozen dataclass of a room whose fields are columns as theirs are."""


def content_hash(*parts: object) -> str:
    """Return 16 hex digits of the SHA-256 of `parts` as canonical JSON.

    Raises TypeError for what JSON cannot hold.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # surrogatepass: model text can hold lone surrogates; hashing must not be what fails.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def problem_id(question: str, gold: str | None, tests: str | None) -> str:
    """Return the id of a problem: the hash of its content, whatever its source."""
    return content_hash(question, gold, tests)


def _column(annotation: Any) -> tuple[str, bool]:
    """Return the Arrow type name and nullability of a field's annotation."""
    nullable = False
    if typing.get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        nullable, annotation = True, inner[0]
    if typing.get_origin(annotation) is Literal:
        annotation = str
    return {str: "string", int: "int64", float: "float64", bool: "bool"}[annotation], nullable


def schema(row_type: type[Row]) -> Any:
    """Return the pyarrow schema of a row type: one column a field, in order."""
    import pyarrow as pa  # 0.1 s, and not needed by `cuvee --help`

    hints: dict[str, Any] = typing.get_type_hints(row_type)
    fields = []
    for name, annotation in hints.items():
        arrow_type, nullable = _column(annotation)
        fields.append(pa.field(name, pa.type_for_alias(arrow_type), nullable=nullable))
    return pa.schema(fields)


def write_rows(
    path: Path, rows: Iterable[Row], row_type: type[Row], *, record: Record | None = None
) -> int:
    """Write rows to a Parquet file (zstd), atomically; return how many.

    Rows are written as they come, of any number; after the last, what `record` makes. The file
    appears complete or not at all. Raises OSError (disk full, no permission) with its path.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f.name for f in dataclasses.fields(row_type)]
    columns, rest, written = schema(row_type), iter(rows), 0
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        pq.ParquetWriter(file, columns, compression="zstd") as writer,
    ):
        while group := _next_group(rest, names):
            values = {n: [_clean(getattr(r, n)) for r in group] for n in names}
            writer.write_table(pa.table(values, schema=columns))
            written += len(group)
        if record is not None:
            writer.add_key_value_metadata(record())
    return written


def _next_group(rows: Iterator[Row], names: Sequence[str]) -> list[Row]:
    """Return the next rows, at most `GROUP_ROWS`, fewer where their texts are long."""
    group: list[Row] = []
    characters = 0
    for row in itertools.islice(rows, GROUP_ROWS):
        group.append(row)
        characters += sum(len(v) for n in names if isinstance(v := getattr(row, n), str))
        if characters >= GROUP_CHARACTERS:
            break
    return group


def _clean(value: Any) -> Any:
    """Replace lone surrogates, which UTF-8 (and so Parquet) cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """Read a file written by `write_rows`.

    Raises DataError naming the file, and the columns where they differ.
    """
    return list(iter_rows(path, row_type))


def iter_rows(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """Yield the rows of a file one by one, in batches of bounded memory.

    Raises DataError as `read_rows` does.
    """
    columns = [f.name for f in dataclasses.fields(row_type)]
    return (row_type(**values) for values in iter_values(path, columns))


def iter_values(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield some columns of a file's rows one by one; the others are not read.

    Raises DataError as `read_rows` does.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(columns) - set(file.schema_arrow.names))
            if missing:
                found = file.schema_arrow.names
                raise DataError(f"{path}: no column {missing}; it has {found}")
            size = _batch_rows(file.metadata, columns)
            for batch in file.iter_batches(batch_size=size, columns=columns):
                yield from batch.to_pylist()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def _batch_rows(metadata: Any, columns: Sequence[str]) -> int:
    """Return how many rows of a file may be read at once, by their mean size."""
    size = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        chunks = (row_group.column(number) for number in range(row_group.num_columns))
        size += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema in columns)
    a_row = size / max(1, metadata.num_rows)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(1.0, a_row))))


def count_rows(path: Path) -> int:
    """Return how many rows a file has. Raises DataError as `read_rows` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def dumps(value: Mapping[str, Any]) -> str:
    """Return canonical JSON (sorted keys, no spaces, Unicode kept) for a JSON column."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
