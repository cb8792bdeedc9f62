"""What a model predicts at each position of a text, and how far two models are apart there.

In: the `Weights` of both and token ids in windows. Out: a `Comparison` of one number a
position, and the file's own distribution at a few of them, for the engine.

Why the file's weights are dequantised and computed with in torch, beside the checkpoint's:

- it is exact for what the export loses: both go through the same float32 code, so F32 gives
  a difference of exactly 0, and any other number is the stored weights' alone;
- it depends on no build of llama.cpp and no extra, and is one batched forward. The engine's
  HTTP interface gives a whole distribution as JSON: 4.7 MB and 0.7 s a position with 49,152
  tokens, six minutes for 512. A library with llama.cpp's logits would be another build than
  the one that serves.

It would not see what writer and reader of the file get wrong alike, or what the engine does
in another way. So the engine that serves is asked at a few positions
(`cuvee.release.parity.served`), and its token ids and rendered bytes are compared anyway.

One tensor is in memory at a time; besides, hidden states of every position, and float64
distributions of `CHUNK` positions. Not here: what difference is too large (`limits`).
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import accelerate
import torch

from cuvee.errors import DataError
from cuvee.progress import Tick, bar, say
from cuvee.release.parity.weights import Weights

PREFIX = "model."
"""Of the names of all weights but the head's."""

CHUNK = 16
"""Positions whose distributions are held at once: 20 MB each in float64 for 152k tokens."""
_TRIAL = 768
"""Side of the matrices whose product says how fast the machine is."""
_SAID_FROM = 20.0
"""Seconds from which the estimate is said."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models' predictions at each position; float64, [positions] but for `at`."""

    loss_checkpoint: torch.Tensor
    """Minus the log-probability of the token that follows, in nats."""
    loss_file: torch.Tensor
    divergence: torch.Tensor
    """Of the file's distribution from the checkpoint's (Kullback-Leibler), in nats."""
    same_top: torch.Tensor
    """1.0 where both find the same token most likely."""
    difference: torch.Tensor
    """Largest difference of log-probability of any token."""
    at: torch.Tensor
    """The file's log-probabilities at the places asked for, [places, vocabulary]."""


def compare(
    checkpoint: Weights, file: Weights, windows: Sequence[Sequence[int]], *, at: Sequence[int]
) -> Comparison:
    """Return how a file's predictions differ from its checkpoint's on windows of token ids.

    Predicted is each window's second token to its last, from those before it in the window.
    `at` are places in the first window. Says how long it will take where that is long, and
    shows progress. Raises DataError where a tensor is missing or the vocabularies differ.
    """
    heads = checkpoint.head, file.head
    if heads[0].shape[0] != heads[1].shape[0]:
        raise DataError(
            f"the checkpoint predicts {heads[0].shape[0]} tokens, the file {heads[1].shape[0]}"
        )
    _say_duration((checkpoint, file), positions=sum(map(len, windows)))
    states = [
        _hidden_states(weights, windows, label=label)
        for weights, label in ((checkpoint, "checkpoint, float32"), (file, "file, dequantised"))
    ]
    following = torch.tensor([token for window in windows for token in window[1:]])
    parts: list[list[torch.Tensor]] = []
    for begin in range(0, len(following), CHUNK):
        rows = slice(begin, begin + CHUNK)
        ours, theirs = (
            _log_probabilities(s[rows], head) for s, head in zip(states, heads, strict=True)
        )
        parts.append(_apart(ours, theirs, following[rows]))
    loss_checkpoint, loss_file, divergence, same_top, difference = (
        torch.cat(column) for column in zip(*parts, strict=True)
    )
    return Comparison(
        loss_checkpoint=loss_checkpoint,
        loss_file=loss_file,
        divergence=divergence,
        same_top=same_top,
        difference=difference,
        at=_log_probabilities(states[1][list(at)], heads[1]),
    )


def _apart(ours: torch.Tensor, theirs: torch.Tensor, following: torch.Tensor) -> list[torch.Tensor]:
    """Return the numbers of a `Comparison` for some positions, [positions, vocabulary] each."""
    chosen = following[:, None]
    return [
        -ours.gather(1, chosen)[:, 0],
        -theirs.gather(1, chosen)[:, 0],
        (ours.exp() * (ours - theirs)).sum(1),
        (ours.argmax(1) == theirs.argmax(1)).double(),
        (ours - theirs).abs().amax(1),
    ]


def _log_probabilities(states: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax((states @ head.T).double(), dim=-1)


def _hidden_states(
    weights: Weights, windows: Sequence[Sequence[int]], *, label: str
) -> torch.Tensor:
    """Return the last hidden states from which tokens are predicted, window after window.

    A window shorter than the longest is filled on its right, where causal attention of the
    places before does not look.
    """
    model = weights.skeleton().model
    width = max(len(window) for window in windows) - 1
    ids = torch.tensor([[*w[:-1], *([0] * (width - len(w) + 1))] for w in windows])
    names = [name for name, _ in model.named_parameters()]
    with torch.no_grad(), bar(label, total=len(names), unit="tensors") as tick:
        lazy: Any = _Lazy(weights.tensor, tick)
        # Each weight is there only while its module computes.
        accelerate.cpu_offload(model, torch.device("cpu"), state_dict=lazy)
        states = model(input_ids=ids, use_cache=False).last_hidden_state
    kept = [row[: len(window) - 1] for row, window in zip(states, windows, strict=True)]
    return torch.cat(kept)


@dataclasses.dataclass(frozen=True)
class _Lazy:
    """What accelerate takes for a model's weights: a name gives the tensor."""

    tensor: Callable[[str], torch.Tensor]
    tick: Tick

    def __getitem__(self, name: str) -> torch.Tensor:
        self.tick(1)
        return self.tensor(f"{PREFIX}{name}")


def _say_duration(models: Sequence[Weights], *, positions: int) -> None:
    """Say how long two forward passes take, from the speed of one product of matrices.

    Two operations a weight and position; reading and dequantising come on top, and a large
    product is faster than a model: the time is a lower bound, as the words say.
    """
    square = torch.ones(_TRIAL, _TRIAL)
    tried = []
    for _ in range(4):  # the first ones wake the threads up
        begin = time.monotonic()
        _product = square @ square
        tried.append(time.monotonic() - begin)
    rate = 2 * _TRIAL**3 / min(tried)
    sizes = [sum(p.numel() for p in weights.skeleton().parameters()) for weights in models]
    seconds = 2 * sum(sizes) * positions / rate
    if seconds > _SAID_FROM:
        say(
            f"parity: {positions} tokens through {max(sizes) / 1e9:.1f}B weights, twice, in "
            f"float32 on this CPU: at least {seconds / 60:.1f} min; `release.parity.tokens` "
            "asks for fewer"
        )
