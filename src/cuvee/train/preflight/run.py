"""The preflight: tokenise the examples as they will be trained, and say what is learned.

In: a Parquet file of `Example` rows, read in batches. Out, in a folder: `tokens.parquet`, the
rows exactly as they will be trained, and `preflight.json`. TRL cuts longer rows without a
word, so whatever is too long is dropped here, by name. Memory: a batch, and some hundred
bytes an example. Not here: choosing examples (`cuvee.select`), training (`cuvee.train.sft`).
"""

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from cuvee.atomic import remove
from cuvee.errors import TrainError
from cuvee.models.template import adapt, end_of_turn
from cuvee.recipe import Train
from cuvee.records import Example, iter_rows, iter_values
from cuvee.train.preflight.agreement import agreement, read_config
from cuvee.train.preflight.batches import Check, Reader, check_here
from cuvee.train.preflight.checks import frame_of
from cuvee.train.preflight.encode import in_batches
from cuvee.train.preflight.files import ARROW, TOKENS, writing
from cuvee.train.preflight.findings import FINDINGS, Findings, refusal, write_findings
from cuvee.train.preflight.held_out import held_out_problems
from cuvee.train.preflight.totals import Totals
from cuvee.train.preflight.verdict import About, findings_of


def preflight(  # noqa: PLR0913 - where it is done comes on top
    examples_file: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    base: Path,
    train: Train,
    out: Path,
    processes: int = 1,
    check: Check = check_here,
) -> Findings:
    """Write the rows to train on and what was found into `out`; return what was found.

    `tokenizer` is the base's; a chat template that breaks is mended in it, in place. `base` is
    its folder, of which the configuration is read; `processes` is how many train together;
    `check` tokenises and checks the batches.
    Raises TrainError where a finding is an error, naming each and its rows (`preflight.json` is
    written all the same); DataError where file, tokenizer or configuration cannot be read.
    """
    for name in (TOKENS, ARROW, FINDINGS):
        remove(out / name)  # of an earlier call
    changes = adapt(tokenizer)
    end = end_of_turn(tokenizer)
    config = read_config(base)
    about = About(
        base=base,
        end_of_turn=end,
        template_changes=changes,
        findings=agreement(tokenizer, base, config=config, train=train, end=end),
    )
    reader = Reader(
        tokenizer=tokenizer,
        frame=frame_of(tokenizer, end=end, vocabulary=int(config.vocab_size)),
        end=end,
        max_tokens=train.max_tokens,
    )
    held_out = _held_out(examples_file, train)
    totals = _read(examples_file, reader, out, held_out=held_out, check=check)
    chosen = held_out_problems(totals.problems, train.held_out)
    if chosen != held_out & totals.problems:  # a side had only rows that were too long
        totals = _read(examples_file, reader, out, held_out=chosen, check=check)
    findings = findings_of(totals, about, train=train, processes=processes)
    write_findings(out, findings)
    if findings.errors:
        raise TrainError(refusal(findings.errors))
    return findings


def _held_out(examples_file: Path, train: Train) -> frozenset[str]:
    """Return the problems to hold out, were none of their rows too long."""
    if not train.held_out:
        return frozenset()
    rows = iter_values(examples_file, ["problem_id"])
    return held_out_problems((row["problem_id"] for row in rows), train.held_out)


def _read(
    examples_file: Path, reader: Reader, out: Path, *, held_out: frozenset[str], check: Check
) -> Totals:
    """Write the kept rows of a file to `tokens.parquet` and count what is found in them.

    `held_out` are problems.
    """
    totals = Totals()
    with writing(out) as write:
        for checked in check(in_batches(iter_rows(examples_file, Example)), reader):
            fits = checked.batch.lengths <= reader.max_tokens
            totals.count_lengths(checked.batch, fits)
            if not fits.any():
                continue
            kept = checked.batch.only(fits)
            apart = np.array([e.problem_id in held_out for e in kept.examples])
            totals.count_kept(kept, checked.broken, apart)
            write(kept, apart)
    return totals
