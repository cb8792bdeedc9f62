"""What must agree before checkpoints can be merged, checked on headers and small files alone.

Everything that is wrong is found and raised together; what may differ but should be known comes
back as warnings. Reads no weights, writes nothing. A merge never cuts and never adds rows:
rows of the embedding beyond the tokenizer's tokens (padding) are merged as any other.
"""

from collections import Counter
from collections.abc import Sequence

from cuvee.errors import MergeError
from cuvee.merge.inputs.config_agreement import compare_configs, compare_generation
from cuvee.merge.inputs.headers import Checkpoint
from cuvee.merge.inputs.tokenizer_agreement import compare_tokenizers, vocabulary_size
from cuvee.merge.inputs.wording import labels, listed_names

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The dtypes that are merged, with their bytes an element."""

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
HEADS = ("lm_head.weight", "embed_out.weight")
"""How the names of the input and the output embedding end: [vocabulary, width]."""

Pair = tuple[Checkpoint, Checkpoint]
Labels = tuple[str, str]


def check_agreement(
    checkpoints: Sequence[Checkpoint], *, tokenizer_decided: bool = False
) -> list[str]:
    """Return warnings (sentences) about checkpoints that can be merged.

    Raises one MergeError that lists everything in which they do not fit together. Each is
    compared with the first: tensor names, shapes, dtypes that cannot be merged, tied
    embeddings, the configs (`cuvee.merge.inputs.config_agreement` has the rules), vocabularies,
    tokenizers and chat templates. `tokenizer_decided`: the merge names the tokenizer and the
    template of the result, so that differences there are warnings, of the vocabulary not.
    """
    if not checkpoints:
        raise MergeError("a merge needs at least one checkpoint")
    names = labels([checkpoint.path for checkpoint in checkpoints])
    errors = [
        text
        for name, checkpoint in zip(names, checkpoints, strict=True)
        for text in _dtype_errors(name, checkpoint)
    ]
    warnings = _dtype_warnings(names, checkpoints)
    for name, other in zip(names[1:], checkpoints[1:], strict=True):
        wrong, odd = _compare((checkpoints[0], other), (names[0], name), decided=tokenizer_decided)
        errors += wrong
        warnings += odd
    if errors:
        listed = "\n  ".join(dict.fromkeys(errors))
        raise MergeError(f"these checkpoints cannot be merged:\n  {listed}")
    return list(dict.fromkeys(warnings))


def is_tied(checkpoint: Checkpoint) -> bool:
    """Say whether one matrix serves as input and output embedding.

    `tie_word_embeddings` of the config; families differ in its default, so where it is absent
    a checkpoint without an output embedding is taken to be tied.
    """
    stated = checkpoint.config.get("tie_word_embeddings")
    if stated is None:
        stated = not any(name.endswith(HEADS) for name in checkpoint.tensors)
    return bool(stated)


def tied_aliases(checkpoint: Checkpoint) -> dict[str, str]:
    """Return stored output embedding -> the input embedding that the config ties it to.

    Empty for most tied checkpoints (they store one of the two) and all untied ones. Whether
    the stored copy equals the embedding cannot be seen in headers.
    """
    embeddings = [name for name in checkpoint.tensors if name.endswith(EMBEDDINGS)]
    if not embeddings or not is_tied(checkpoint):
        return {}
    return {name: embeddings[0] for name in checkpoint.tensors if name.endswith(HEADS)}


def _compare(pair: Pair, names: Labels, *, decided: bool) -> tuple[list[str], list[str]]:
    """Return (errors, warnings) of two checkpoints; `names` are their labels."""
    one, two = pair
    (here, path), (there, other) = sides = (names[0], one.path), (names[1], two.path)
    config = compare_configs((here, one.config), (there, two.config))
    tokenizer = compare_tokenizers(*sides, decided=decided)
    errors = [
        *_tied_errors(pair, names),
        *_name_errors(pair, names),
        *_shape_errors(pair, names),
        *config[0],
        *tokenizer[0],
    ]
    warnings = [
        *_tied_warnings(pair, names),
        *config[1],
        *compare_generation((here, path), (there, other)),
        *tokenizer[1],
    ]
    return errors, warnings


def _dtype_errors(name: str, checkpoint: Checkpoint) -> list[str]:
    strange = sorted(
        f"{t.name} ({t.dtype})" for t in checkpoint.tensors.values() if t.dtype not in FLOATS
    )
    allowed = ", ".join(FLOATS)
    if not strange:
        return []
    return [f"{name} has dtypes other than {allowed}: {listed_names(strange)}"]


def _dtype_warnings(names: Sequence[str], checkpoints: Sequence[Checkpoint]) -> list[str]:
    counts = [Counter(t.dtype for t in checkpoint.tensors.values()) for checkpoint in checkpoints]
    said = {
        name: ", ".join(f"{count} {dtype}" for dtype, count in sorted(found.items()))
        for name, found in zip(names, counts, strict=True)
    }
    warnings = []
    if len({frozenset(found) for found in counts}) > 1:
        listed = "; ".join(f"{name}: {text}" for name, text in said.items())
        warnings.append(f"the tensors' dtypes differ, each is widened to float32 ({listed})")
    for name, found in zip(names, counts, strict=True):
        if float16 := found["F16"]:
            warnings.append(
                f"{name} holds {float16} float16 tensors: what was below 6e-8 when they were "
                "written is 0 in them"
            )
        if float64 := found["F64"]:
            warnings.append(
                f"{name} holds {float64} float64 tensors: they are rounded to float32 on reading"
            )
    return warnings


def _tied_errors(pair: Pair, names: Labels) -> list[str]:
    """Return an error where one is tied and one is not, or only one stores a tied copy."""
    tied = [is_tied(checkpoint) for checkpoint in pair]
    if tied[0] != tied[1]:
        yes, no = names if tied[0] else (names[1], names[0])
        return [
            f"embeddings are tied in {yes} (one matrix for input and output) and untied in {no}: "
            f"untie {yes} first (load it with tie_word_embeddings=False, copy the input "
            "embedding to the output embedding, save it)"
        ]
    aliases = [tied_aliases(checkpoint) for checkpoint in pair]
    if bool(aliases[0]) == bool(aliases[1]):
        return []
    yes, no = names if aliases[0] else (names[1], names[0])
    [(head, embedding)] = list((aliases[0] or aliases[1]).items())[:1]
    return [
        f"{yes} stores {head} although its config ties it to {embedding}, {no} does not: headers "
        f"do not tell whether the copy is equal; load {yes} with transformers and save it again "
        f"(that leaves a tied copy out), or remove {head} from its files"
    ]


def _tied_warnings(pair: Pair, names: Labels) -> list[str]:
    aliases = [tied_aliases(checkpoint) for checkpoint in pair]
    if not aliases[0] or not aliases[1]:
        return []
    listed = ", ".join(aliases[0])
    return [
        f"{names[0]} and {names[1]} store {listed} although their configs tie it to the input "
        "embedding: it is merged as a tensor of its own"
    ]


def _name_errors(pair: Pair, names: Labels) -> list[str]:
    heads_explained = bool(_tied_errors(pair, names))
    errors = []
    for (one, two), name in ((pair, names[0]), (pair[::-1], names[1])):
        only = sorted(one.tensors.keys() - two.tensors.keys())
        if heads_explained:
            only = [tensor for tensor in only if not tensor.endswith(HEADS)]
        if only:
            errors.append(f"tensors only in {name}: {listed_names(only)}")
    return errors


def _shape_errors(pair: Pair, names: Labels) -> list[str]:
    one, two = pair
    differing = [
        name
        for name, header in sorted(one.tensors.items())
        if name in two.tensors and header.shape != two.tensors[name].shape
    ]
    rows = [
        name
        for name in differing
        if name.endswith(EMBEDDINGS + HEADS)
        and one.tensors[name].shape[1:] == two.tensors[name].shape[1:]
    ]
    others = [
        f"{name} {one.tensors[name].shape} against {two.tensors[name].shape}"
        for name in differing
        if name not in rows
    ]
    errors = _row_errors(pair, names, rows) if rows else []
    if others:
        errors.append(f"shapes differ in {names[0]} and {names[1]}: {listed_names(others)}")
    return errors


def _row_errors(pair: Pair, names: Labels, tensors: Sequence[str]) -> list[str]:
    """Explain embeddings that differ in their number of rows alone: in their padding, often."""
    one, two = pair
    counts = [
        f"{t} has {one.tensors[t].shape[0]} rows in {names[0]}, {two.tensors[t].shape[0]} in "
        f"{names[1]}"
        for t in tensors
    ]
    sizes = [
        f"that of {name} has {vocabulary_size(checkpoint.path) or 'an unknown number of'} tokens"
        for name, checkpoint in zip(names, pair, strict=True)
    ]
    most = max(checkpoint.tensors[t].shape[0] for checkpoint in pair for t in tensors)
    return [
        f"the vocabulary's padding differs: {'; '.join(counts)} (tokenizers: {', '.join(sizes)}); "
        "a merge cuts no row and adds none: give all models the same number, with transformers' "
        f"model.resize_token_embeddings({most})"
    ]
