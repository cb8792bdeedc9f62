"""`release:`: what the last stage writes, and what it checks of it."""

from pydantic import Field

from cuvee.recipe.base import Section
from cuvee.recipe.serving import Quantization


class Parity(Section):
    """How each exported file is compared with the checkpoint that it was made from."""

    text: str | None = None
    """A UTF-8 text file that perplexity and divergence are taken on; None: answers to the
    run's benchmarks, and where there are none a text that cuvee ships."""
    tokens: int = Field(default=512, ge=16)
    """How many of its tokens are compared, from the start."""


class Release(Section):
    """What the last stage writes beside the report."""

    gguf: list[Quantization] = Field(default_factory=list)
    """Types to export; K-quants (Q6_K, Q4_K_M, ...) need the extra `quantize`."""
    parity: Parity | None = Parity()
    """null: files are not compared with the checkpoint; the report says so."""
    card: bool = True
