"""File sizes: against files that cuvee and llama.cpp write, and against published ones."""

import dataclasses
import re
import sys
from pathlib import Path

import gguf
import numpy
import pytest

from cuvee.errors import DataError
from cuvee.fit.files import gguf_bytes, known_metadata, safetensors_bytes, tensors
from cuvee.fit.mixing import BLOCKS, TYPES, kind_of
from cuvee.models.gguf_header import read_header
from cuvee.models.gguf_write import TYPES as WRITTEN
from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import Architecture, write_random_model
from cuvee.models.shape import LINEAR, ModelShape, shape_of

QWEN_32B = ModelShape(
    architecture="qwen2", vocabulary=152064, hidden=5120, intermediate=27648, layers=64, heads=40,
    key_value_heads=8, head_size=128, tied=False, biased=LINEAR[:3],
)  # fmt: skip
QWEN3_32B = ModelShape(
    architecture="qwen3", vocabulary=151936, hidden=5120, intermediate=25600, layers=64, heads=64,
    key_value_heads=8, head_size=128, tied=False,
)  # fmt: skip
# GB of 10^9 bytes, from the model cards of bartowski/DeepSeek-R1-Distill-Qwen-32B-GGUF and
# bartowski/Qwen_Qwen3-32B-GGUF (rounded to 0.01 there; made with an importance matrix, which
# changes Q4_0 alone).
PUBLISHED = {
    "BF16": (65.54, 65.53), "Q8_0": (34.82, 34.82), "Q6_K": (26.89, 26.88),
    "Q5_K_M": (23.26, 23.21), "Q5_K_S": (22.64, 22.64), "Q4_1": (20.64, 20.64),
    "Q4_K_M": (19.85, 19.76), "Q4_K_S": (18.78, 18.77), "Q4_0": (18.71, 18.70),
    "Q3_K_L": (17.25, 17.33), "Q3_K_M": (15.94, 15.97), "Q3_K_S": (14.39, 14.39),
    "Q2_K": (12.31, 12.34),
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
@pytest.mark.parametrize("model", [0, 1], ids=["R1-Distill-Qwen-32B", "Qwen3-32B"])
def test_sizes_are_those_published(kind: str, model: int) -> None:
    found = gguf_bytes((QWEN_32B, QWEN3_32B)[model], kind)
    rounding = 0.08e9 if kind == "Q4_0" else 0.011e9
    assert abs(found.total - 1e9 * PUBLISHED[kind][model]) <= rounding


def test_a_published_size_to_the_byte_but_for_its_metadata() -> None:
    # bartowski/DeepSeek-R1-Distill-Qwen-32B-GGUF, Q4_K_M: 19,851,335,584 bytes.
    found = gguf_bytes(QWEN_32B, "Q4_K_M")
    assert abs(found.total - 19_851_335_584) <= found.error
    assert found.error < 0.0002 * found.total


def test_blocks_are_those_of_ggml() -> None:
    for kind, block in BLOCKS.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] == block


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_files_that_cuvee_writes_are_as_large_as_said(
    architecture: Architecture, tied: bool, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "model"
    write_random_model(checkpoint, architecture=architecture, tied=tied)
    for kind in ("F32", "BF16", "Q8_0"):
        assert kind in WRITTEN
        file = tmp_path / f"{kind}.gguf"
        write_gguf(checkpoint, file, quantization=kind)
        exact = gguf_bytes(shape_of(file), kind, metadata=known_metadata(file))
        assert exact.total == file.stat().st_size
        assert exact.error == 0
        told = gguf_bytes(shape_of(checkpoint), kind, metadata=known_metadata(checkpoint))
        assert abs(told.total - file.stat().st_size) < 0.05 * file.stat().st_size
    weights = checkpoint / "model.safetensors"
    said = safetensors_bytes(shape_of(checkpoint), "F32")
    assert abs(said.total - weights.stat().st_size) <= said.error


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_header_and_configuration_say_the_same_shape(
    architecture: Architecture, tmp_path: Path
) -> None:
    write_random_model(tmp_path, architecture=architecture)
    file = tmp_path / "m.gguf"
    write_gguf(tmp_path, file, quantization="F32")
    assert shape_of(file) == shape_of(tmp_path) == shape_of(tmp_path / "config.json")
    head = file.read_bytes()[: read_header(file).size]
    (tmp_path / "head.gguf").write_bytes(head)  # a download that has only begun
    assert shape_of(tmp_path / "head.gguf") == shape_of(file)


def test_rows_that_no_block_divides_are_refused_or_fall_back() -> None:
    odd = dataclasses.replace(QWEN_32B, hidden=48, heads=1, key_value_heads=1, head_size=48)
    for kind in ("Q8_0", "Q4_K_S"):  # its head would be Q8_0, for which llama.cpp has no other
        with pytest.raises(DataError, match="Q8_0 needs rows of a multiple of 32"):
            gguf_bytes(odd, kind)
    narrow = dataclasses.replace(QWEN_32B, intermediate=80)
    found = gguf_bytes(narrow, "Q4_K_S")
    assert dict(found.kinds)["F16"] == found.fallbacks == narrow.layers  # every ffn_down
    with pytest.raises(DataError, match="known are"):
        gguf_bytes(odd, "Q9")


QUANTISER = [
    # layers, hidden, intermediate, heads, key-value heads, tied, architecture
    (8, 256, 512, 4, 1, True, "llama"),
    (8, 256, 512, 4, 2, False, "qwen2"),
    (17, 256, 256, 4, 4, False, "qwen3"),
    (9, 288, 544, 9, 3, True, "llama"),  # nothing is a multiple of 256
    pytest.param((80, 256, 256, 4, 1, False, "llama"), marks=pytest.mark.slow),  # "a 70B"
    pytest.param((80, 256, 256, 4, 4, False, "llama"), marks=pytest.mark.slow),
]


def _written(file: Path, shape: ModelShape) -> None:
    """Write a GGUF file of zeros in F32 that llama.cpp's quantiser reads."""
    writer = gguf.GGUFWriter(file, shape.architecture)
    writer.add_block_count(shape.layers)
    writer.add_context_length(512)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_layer_norm_rms_eps(1e-5)
    for tensor in tensors(shape):
        writer.add_tensor(tensor.name, numpy.zeros(tensor.shape, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the extra `quantize` is tried on Linux")
@pytest.mark.parametrize("case", QUANTISER, ids=str)
def test_every_tensor_has_the_type_that_llama_cpp_gives_it(
    case: tuple[int, int, int, int, int, bool, str], tmp_path: Path
) -> None:
    llama = pytest.importorskip("cyllama.llama.llama_cpp")
    layers, hidden, intermediate, heads, key_value_heads, tied, architecture = case
    shape = ModelShape(
        architecture=architecture, vocabulary=64, hidden=hidden, intermediate=intermediate,
        layers=layers, heads=heads, key_value_heads=key_value_heads, head_size=hidden // heads,
        tied=tied, biased=LINEAR[:3] if architecture == "qwen2" else (),
    )  # fmt: skip
    source, out = tmp_path / "f32.gguf", tmp_path / "out.gguf"
    _written(source, shape)
    for kind in (k for k in TYPES if re.match("Q[2-6]", k)):
        parameters = llama.LlamaModelQuantizeParams()
        parameters.ftype = int(gguf.LlamaFileType[f"MOSTLY_{kind}"])
        parameters.nthread = 1
        llama.model_quantize(str(source), str(out), parameters)
        header = read_header(out)
        real = {t.name: gguf.GGMLQuantizationType(t.kind).name for t in header.tensors}
        assert {t.name: kind_of(t, shape, kind)[0] for t in tensors(shape)} == real, kind
        said = gguf_bytes(shape, kind, metadata=known_metadata(out))
        assert said.total == out.stat().st_size, kind
