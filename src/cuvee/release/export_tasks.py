"""The tasks of `release` around GGUF files: exported, compared with the merged model, described.

The merged model in; in `08_release` one file a type, its Modelfile, and the table of parity.
`gguf/TYPE` and `parity/TYPE` form a lane of their own, so that a file that failed leaves the
others and the report, which says so. Not here: the report and the cards (`cuvee.release.stage`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cuvee.atomic import write_text
from cuvee.errors import DataError
from cuvee.fit.serving import serving_memory
from cuvee.models.files import is_hub_id
from cuvee.models.shape import shape_of
from cuvee.progress import warn
from cuvee.records import Parity, Score, Trace, iter_rows, read_rows, write_rows
from cuvee.release.exports import (
    Export,
    export_file,
    gguf_file,
    modelfile_file,
    parity_file,
    parity_table,
    unlike,
    write_export,
    write_parity,
)
from cuvee.release.parity import Text, read_text, shipped_text
from cuvee.release.recommended import recommended
from cuvee.runfolder import Run, Task
from cuvee.serve.facts import serving_facts
from cuvee.serve.modelfile import modelfile

CONTEXT = 8192
"""Tokens of context that the memory of a file is told for, where the model was made for so many."""
CHARACTERS_A_TOKEN = 16
"""More than any tokenizer makes of a text: so much of the answers is read for a comparison."""


def export_tasks(run: Run) -> list[Task]:
    """Return the tasks of the recipe's types; none where it names none."""
    release = run.recipe.release
    found = []
    for quantization in release.gguf:
        found.append(_gguf(run, quantization))
        if release.parity is not None:
            found.append(_parity(run, quantization))
    if release.gguf:
        found.append(_modelfiles(run))
    if release.gguf and release.parity is not None:
        found.append(_table(run))
    return found


def export_files(run: Run) -> tuple[Path, ...]:
    """Return every file that `cuvee.release.exports.read_exports` reads, and what it is of."""
    release = run.recipe.release
    paths = [export_file(run, quantization) for quantization in release.gguf]
    if release.parity is not None:
        paths += [parity_file(run, quantization) for quantization in release.gguf]
    return tuple(paths)


def _gguf(run: Run, quantization: str) -> Task:
    out, record = gguf_file(run, quantization), export_file(run, quantization)

    def work() -> Mapping[str, Any]:
        from cuvee.models.gguf_write import About, write_gguf  # loads torch

        out.parent.mkdir(parents=True, exist_ok=True)
        bases = (run.recipe.base,) if is_hub_id(run.recipe.base) else ()
        about = About(name=run.recipe.name, base_models=bases)
        exported = write_gguf(run.merged(), out, quantization=quantization, about=about)
        shape = shape_of(run.merged())
        context = serving_context(run.merged())
        needed = serving_memory(shape, quantization, context=context, slots=1)
        export = Export(
            file=out.name,
            quantization=quantization,
            bytes=exported.bytes,
            detail=exported.detail,
            context=context,
            memory=needed.total,
        )
        write_export(record, export)
        return {"bytes": exported.bytes, "tensors": exported.tensors}

    settings = {part: getattr(run.recipe, part) for part in ("name", "base")}
    settings["quantization"] = quantization
    outputs = (out, record)
    lane = f"release/{quantization}"
    return Task("release", f"gguf/{quantization}", (run.merged(),), outputs, settings, work, lane)


def serving_context(checkpoint: Path) -> int:
    """Return the context that memory is told for: `CONTEXT`, or the model's own where smaller."""
    return min(CONTEXT, serving_facts(checkpoint).context)


def _parity(run: Run, quantization: str) -> Task:
    parity = run.recipe.release.parity
    assert parity is not None
    file, out = gguf_file(run, quantization), parity_file(run, quantization)

    def work() -> Mapping[str, Any]:
        from cuvee.release.parity.check import check_parity  # loads torch

        row = check_parity(
            run.merged(),
            file,
            quantization=quantization,
            text=_text(run),
            tokens=parity.tokens,
            folder=run.engines(),
        )
        write_rows(out, [row], Parity)  # before it fails: people want to see how
        _judge(row, out)
        return {"passed": row.passed, "positions": row.positions}

    inputs = (run.merged(), file, *_text_files(run))
    settings = {"quantization": quantization, "parity": parity.model_dump(mode="json")}
    lane = f"release/{quantization}"
    return Task("release", f"parity/{quantization}", inputs, (out,), settings, work, lane)


def _judge(row: Parity, where: Path) -> None:
    """Warn of a file that did not pass; raise DataError where it is another model to talk to."""
    if differs := unlike(row):
        raise DataError(
            f"{row.file} is not the merged model: {differs}; {row.detail}; all of it: {where}. "
            "Do not hand this file out"
        )
    if not row.passed:
        warn(f"{row.file} did not pass its comparison with the merged model: {row.detail}")


def _text(run: Run) -> Text:
    """Return what predictions are compared on: a file, the run's own answers, or cuvee's text."""
    parity = run.recipe.release.parity
    assert parity is not None
    if parity.text is not None:
        return read_text(Path(parity.text).expanduser())
    wanted = CHARACTERS_A_TOKEN * parity.tokens
    characters, taken = 0, []
    for answer in _answers(run):
        if characters >= wanted:
            break
        characters += len(answer)
        taken.append(answer)
    if characters < parity.tokens:  # too short, whatever the tokenizer
        return shipped_text()
    names = ", ".join(run.recipe.evaluate.benchmarks)
    return Text(
        f"the first {len(taken)} answers of the merged model to {names}", "\n\n".join(taken)
    )


def _answers(run: Run) -> Iterator[str]:
    """Yield the merged model's answers to the benchmarks, reasoning first."""
    for benchmark in run.recipe.evaluate.benchmarks:
        for trace in iter_rows(run.score_traces("merged", benchmark), Trace):
            yield "\n".join(part for part in (trace.reasoning, trace.answer) if part)


def _text_files(run: Run) -> tuple[Path, ...]:
    """Return the files that `_text` reads."""
    parity = run.recipe.release.parity
    if parity is not None and parity.text is not None:
        return (Path(parity.text).expanduser().absolute(),)
    return tuple(run.score_traces("merged", name) for name in run.recipe.evaluate.benchmarks)


def _modelfiles(run: Run) -> Task:
    types = run.recipe.release.gguf
    outputs = tuple(modelfile_file(run, quantization) for quantization in types)
    evaluated = bool(run.recipe.evaluate.benchmarks)

    def work() -> Mapping[str, Any]:
        scores = read_rows(run.scores(), Score) if evaluated else []
        facts = serving_facts(run.merged(), sampling=recommended(scores))
        for quantization, out in zip(types, outputs, strict=True):
            made = modelfile(gguf_file(run, quantization).name, facts=facts)
            write_text(out, made.text)
        for warning in made.warnings:
            warn(f"Modelfile: {warning}")
        return {"files": len(outputs), "warnings": len(made.warnings)}

    inputs = (run.merged(), *((run.scores(),) if evaluated else ()))
    settings = {"name": run.recipe.name, "types": list(types)}
    return Task("release", "modelfile", inputs, outputs, settings, work)


def _table(run: Run) -> Task:
    table = parity_table(run)
    parts = tuple(parity_file(run, quantization) for quantization in run.recipe.release.gguf)

    def work() -> Mapping[str, Any]:
        rows = [row for part in parts for row in read_rows(part, Parity)]
        write_parity(table, rows)
        return {"files": len(rows), "passed": sum(row.passed for row in rows)}

    return Task("release", "parity", parts, (table, table.with_suffix(".json")), {}, work)
