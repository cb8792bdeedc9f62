"""What difference between a file and its checkpoint still is the export's own.

Quantising loses something by design, so for quantised types nobody can say what is too much
for a use: the numbers are reported. But an export that is broken (rows not reordered, a tensor
lost or of another model) is off by nats, and that must not pass as "quantised". Each limit on
the mean divergence is therefore a bound of sanity, well above what the type was measured to lose
on a 135M Llama, an unkind case: small models lose most, and where rows are no multiple of 256
llama.cpp stores them in other types. It says "broken", never "good enough". A loss much larger
than the type's usual one, below the limit, is seen in the row alone.

Measured there, mean nats on 511 positions of the shipped text: Q8_0 0.002, Q6_K 0.007, Q5_K_M
0.13 (stored as Q5_1 for the most part, and so worse than Q4_K_M, stored as Q5_0), Q4_K_M 0.06,
Q3_K_M 0.15, Q2_K 0.47. Q5_K_S and Q4_K_S were not measured; they share their neighbours' limits.

F32, F16 and BF16 are meant to be the model itself and have a limit on every log-probability.
F32 is exact; BF16 is of a bf16 checkpoint. Of others: F16 keeps 11 bits of each weight and BF16
8, an error of 2^-12 and 2^-9 at most, relative; 8 times the limit of F16 is allowed for BF16.
"""

import dataclasses

from cuvee.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a type may differ by, at most."""

    divergence: float
    """Mean Kullback-Leibler divergence, in nats."""
    difference: float | None = None
    """Of any token's log-probability at any position; None: not judged by it."""


ENGINE_DIVERGENCE = 0.1
"""Of the engine's predictions from torch's, of the same weights, at its worst position, in nats.
The engine rounds what it computes with (attention in float16; for quantised weights, its inputs
to 8 bits): measured 1e-4 for BF16, 0.009 for Q4_K_M."""

LIMITS = {
    "F32": Limit(1e-6, 1e-3),
    "F16": Limit(1e-3, 0.1),
    "BF16": Limit(0.02, 0.8),
    "Q8_0": Limit(0.1),
    "Q6_K": Limit(0.1),
    "Q5_K_M": Limit(0.5),
    "Q5_K_S": Limit(0.5),
    "Q4_K_M": Limit(0.5),
    "Q4_K_S": Limit(0.5),
    "Q3_K_M": Limit(1.0),
    "Q2_K": Limit(2.0),
}


def limit_of(quantization: str) -> Limit:
    """Return what a type may differ by. Raises RecipeError for an unknown type."""
    if quantization not in LIMITS:
        raise RecipeError(f"quantization {quantization!r}: known are {', '.join(LIMITS)}")
    return LIMITS[quantization]
