"""The stage `select`: traces and verdicts in, examples and dropped traces out, by domain.

Reads problems, traces and verdicts of a domain; writes `04_examples/DOMAIN.parquet` and
`04_examples/dropped/DOMAIN.parquet`. Tokens are counted as the student will be trained, so
with its tokenizer and template. Not here: how traces are judged (`cuvee.select.sift`).
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuvee.errors import DataError
from cuvee.models.checkpoint import load_tokenizer, resolve
from cuvee.models.files import TOKENIZER_FILES
from cuvee.models.tokens import count_target
from cuvee.progress import bar
from cuvee.recipe import Domain
from cuvee.records import Dropped, Example, Problem, Trace, Verdict, read_rows, write_rows
from cuvee.runfolder import Run, Task
from cuvee.select.sift import Student, settle, sift


def tasks(run: Run, resources: ExitStack) -> list[Task]:
    """Return one task a domain; nothing is opened."""
    return [_task(run, name, domain) for name, domain in run.recipe.domains.items()]


def _task(run: Run, name: str, domain: Domain) -> Task:
    files = [run.traces(name, teacher.name) for teacher in run.recipe.teachers_of(name)]

    def work() -> Mapping[str, Any]:
        traces = [trace for file in files for trace in read_rows(file, Trace)]
        problems = {row.id: row for row in read_rows(run.problems(name), Problem)}
        with bar(f"select {name}", total=len(traces), unit="traces") as tick:
            candidates, unfit = sift(
                traces,
                read_rows(run.verdicts(name), Verdict),
                problems,
                domain=domain,
                student=load_student(run.recipe.base),
                tick=tick,
            )
        examples, left = settle(candidates, problems, select=domain.select, seed=run.recipe.seed)
        dropped = unfit + left
        reasons = Counter(row.reason for row in dropped)
        # The reasons stay on disk even where nothing is left to go on with.
        write_rows(run.dropped("select", name), dropped, Dropped)
        if not examples:
            taken = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
            raise DataError(
                f"domain {name}: none of {len(traces)} traces became an example "
                f"({taken or 'there were none'}); see {run.dropped('select', name)}, and loosen "
                f"domains.{name}.select or ask more or better teachers"
            )
        write_rows(run.examples(name), examples, Example)
        return {"traces": len(traces), "examples": len(examples), **dict(reasons.most_common())}

    return Task(
        stage="select",
        name=name,
        inputs=(
            run.problems(name),
            *files,
            run.verdicts(name),
            *_student_files(run.recipe.base),
        ),
        outputs=(run.examples(name), run.dropped("select", name)),
        settings={
            "base": run.recipe.base,
            "seed": run.recipe.seed,
            "select": domain.select.model_dump(mode="json"),
            "verifier": domain.verifier,
        },
        work=work,
    )


def load_student(base: str) -> Student:
    """Return the student of a base model: its tokenizer alone, no weights.

    Raises RecipeError or DataError where the base cannot be resolved or has no usable
    tokenizer or chat template.
    """
    tokenizer = load_tokenizer(resolve(base, weights=False))

    def count(prompt: str, reasoning: str, answer: str) -> int:
        return count_target(tokenizer, prompt, reasoning, answer)

    return Student(tuple(tokenizer.all_special_tokens), count)


def _student_files(base: str) -> list[Path]:
    """Return the local files on which the student's tokens depend; none for a hub id."""
    place = Path(base).expanduser()
    if place.is_dir():
        return [place / name for name in TOKENIZER_FILES if (place / name).exists()]
    return [place] if place.is_file() else []
