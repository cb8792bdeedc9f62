"""`cuvee release CHECKPOINT`: files and rows of parity, made once and kept while right."""

import shutil
from pathlib import Path

import gguf
import pytest

from cuvee.errors import DataError, RecipeError
from cuvee.models.random_model import write_random_model
from cuvee.recipe import Parity as ParitySpec
from cuvee.records import Parity, read_rows
from cuvee.release.alone import export, summary


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny model"
    write_random_model(folder)
    card = "---\nlicense: mit\nbase_model:\n- owner/base\n---\n# Tiny\n"
    (folder / "README.md").write_text(card)
    return folder


def test_files_say_what_their_checkpoints_card_says(model: Path, tmp_path: Path) -> None:
    [one] = export(str(model), tmp_path / "out", types=["F16"], parity=None)
    assert one.file == tmp_path / "out" / "tiny-model.F16.gguf"
    fields = gguf.GGUFReader(one.file).fields
    assert fields["general.name"].contents() == "tiny-model"
    assert fields["general.license"].contents() == "mit"
    assert fields["general.base_model.0.repo_url"].contents().endswith("/owner/base")
    assert one.failure is None
    assert "not compared" in "\n".join(summary([one]))


def test_a_second_call_keeps_files_and_rows_and_adds_what_is_new(
    model: Path, tmp_path: Path
) -> None:
    out, parity = tmp_path / "out", ParitySpec(tokens=16)
    first = export(str(model), out, types=["F32"], parity=parity)
    engine_log = (out / "engines").stat().st_mtime_ns
    again = export(str(model), out, types=["F32"], parity=parity)
    assert [one.is_new for one in (*first, *again)] == [True, False]
    assert first[0].parity == again[0].parity
    assert (out / "engines").stat().st_mtime_ns == engine_log, "nothing was served again"
    assert first[0].parity is not None
    assert first[0].failure is None
    both = export(str(model), out, types=["F32", "Q8_0"], parity=parity)
    assert [one.is_new for one in both] == [False, True]
    rows = read_rows(out / "parity.parquet", Parity)
    assert [row.file for row in rows] == ["tiny-model.F32.gguf", "tiny-model.Q8_0.gguf"]
    assert [one.parity for one in both] == rows
    text = "\n".join(summary(both))
    assert "kept" in text
    assert "written" in text
    assert "same top token" in text
    longer = export(str(model), out, types=["F32"], parity=ParitySpec(tokens=20))
    assert longer[0].parity != first[0].parity, "another length is another row"
    assert len(read_rows(out / "parity.parquet", Parity)) == 2


def test_a_changed_checkpoint_is_exported_and_compared_anew(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    export(str(folder), tmp_path / "out", types=["F32"], parity=None)
    write_random_model(folder, seed=1)
    [one] = export(str(folder), tmp_path / "out", types=["F32"], parity=None)
    assert one.is_new


def test_what_cannot_be_done_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at least one"):
        export(str(model), tmp_path / "out", types=[], parity=None)
    with pytest.raises(RecipeError, match="each type once"):
        export(str(model), tmp_path / "out", types=["F32", "F32"], parity=None)
    with pytest.raises(RecipeError, match="nowhere"):
        export(str(tmp_path / "nowhere"), tmp_path / "out", types=["F32"], parity=None)
    with pytest.raises(RecipeError, match=r"no\.txt"):
        parity = ParitySpec(text=str(tmp_path / "no.txt"))
        export(str(model), tmp_path / "out", types=["F32"], parity=parity)
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"config\.json"):
        export(str(tmp_path / "empty"), tmp_path / "out", types=["F32"], parity=None)
