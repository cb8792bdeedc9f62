"""Seeds of the random streams of a merge: one for each tensor and model.

With `cuvee.merge.kernels.uniform` an element's random number depends on the run's seed, the
tensor's name, the model's place and the element's index alone: not on threads, blocks, memory
or the tensors merged before. Makes no random numbers itself.
"""

import hashlib

import numpy as np


def stream_seed(seed: int, tensor: str, model: int) -> np.uint64:
    """Return the 64-bit seed of one model's stream for one tensor (the same on any machine).

    `seed`: the merge's, any integer; `tensor`: its name; `model`: the model's place among the
    models, from 0. Different triples give unrelated streams (BLAKE2b, 8 bytes).
    """
    text = f"{seed}\0{model}\0{tensor}".encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))
