"""How large a model is, and its files, from as little as can be had of it.

A model's name in (hub id, folder, `.gguf`, `random:two-layer`); its shape out, or where only
the name can be read the number of weights that stands in it (`...-32B`), or nothing and why.
Of a hub id `config.json` alone is fetched, or found in the hub's cache. Not here: memory of
serving and sizes by tensor (`cuvee.fit`), memory of training (`cuvee.train.memory`).
"""

import dataclasses
import re
from pathlib import Path

from cuvee.errors import CuveeError, DataError
from cuvee.fit.files import gguf_bytes as exact_gguf_bytes
from cuvee.models.shape import ModelShape, shape_of
from cuvee.plan.assumptions import Assumptions
from cuvee.plan.figures import Figure, known

BILLIONS = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)
"""`32B`, `1.5B`, `135M` in a model's name."""
ROUNDED = 0.06
"""How far a name's number may be from the weights there really are: Qwen2.5-32B has 32.8."""
BITS = {
    "F32": 32, "F16": 16, "BF16": 16, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q5_K_S": 5.5,
    "Q4_K_M": 4.85, "Q4_K_S": 4.6, "Q3_K_M": 3.9, "Q2_K": 3.2,
}  # fmt: skip
"""Bits a weight where the tensors are not known: of published files of 7B to 32B."""
UNSURE_BITS = 0.05
HUB_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Sized:
    """What is known of a model's size."""

    shape: ModelShape | None
    parameters: Figure | None
    why: str = ""
    """Why there is no shape."""

    def bytes(self, each: float) -> Figure | None:
        """Return its weights at `each` bytes."""
        return None if self.parameters is None else self.parameters.scaled(each)


def size_of(spec: str, assumptions: Assumptions) -> Sized:
    """Return what can be known of a model's size. Never raises for what is not there."""
    try:
        shape = _shape(spec)
    except (CuveeError, OSError, ValueError) as error:  # the hub's errors are OSError, ValueError
        why = " ".join(str(error).split())
        return Sized(None, _of_the_name(spec, assumptions), f"{spec}: {_first(why)}")
    return Sized(shape, known(shape.parameters))


def gguf_bytes(model: Sized, quantization: str) -> Figure | None:
    """Return the bytes of a GGUF file; None where nothing is known of the model."""
    if model.shape is not None:
        size = exact_gguf_bytes(model.shape, quantization)
        ends = (size.total, size.total - size.error, size.total + size.error)
        return Figure(*ends, "assumed" if size.error else "known")
    if model.parameters is None:
        return None
    found = model.parameters.scaled(BITS[quantization] / 8)
    return Figure(
        found.value, found.low * (1 - UNSURE_BITS), found.high * (1 + UNSURE_BITS), "assumed"
    )


def _shape(spec: str) -> ModelShape:
    from cuvee.models.checkpoint import RANDOM, resolve

    path = Path(spec).expanduser()
    if spec == RANDOM:
        return shape_of(resolve(spec))
    if path.is_dir() or spec.endswith(".gguf"):
        return shape_of(path)
    return shape_of(_of_the_hub(spec).parent)


def _of_the_hub(spec: str) -> Path:
    """Return the `config.json` of a hub id: from the hub's cache, else from the hub."""
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(spec, "config.json", local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the cache: it is asked for
    try:
        # One try: the hub's own download would wait half a minute for a network that is not there.
        get_session().head(hf_hub_url(spec, "config.json"), timeout=HUB_SECONDS)
    except (HTTPError, OSError) as error:
        raise DataError(
            f"config.json is not in the cache, and the hub cannot be reached ({error})"
        ) from error
    return Path(hf_hub_download(spec, "config.json", etag_timeout=HUB_SECONDS))


def _of_the_name(spec: str, assumptions: Assumptions) -> Figure | None:
    wish = assumptions.wish("parameters")
    if wish is not None:
        return wish
    found = BILLIONS.findall(spec)
    if not found:
        return None
    number, unit = found[-1]
    value = float(number) * (1e9 if unit.upper() == "B" else 1e6)
    default = (value, value * (1 - ROUNDED), value * (1 + ROUNDED))
    return assumptions.figure("parameters", default=default, why=f"from the name {spec}")


def _first(text: str) -> str:
    """Return the first sentence of an error, at most 160 characters."""
    sentence = text.partition(". ")[0]
    return sentence if len(sentence) <= 160 else sentence[:157] + "..."
