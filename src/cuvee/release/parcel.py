"""What a push would upload of a run, what it leaves out and why; nothing is sent here.

A released run in, a `Parcel` out: weights, GGUF files, Modelfiles, cards, report, recipe and
manifest, all at the top of the repository. Paths of this machine are written relative in cuvee's
own texts, and those that are left are told. Refused is what must not leave the machine: a file
that failed its parity, and a text with a key in it. Not here: the network (`cuvee.release.push`).
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from cuvee.errors import DataError
from cuvee.release.exports import gguf_file, modelfile_file, parity_table, read_exports
from cuvee.release.secrets import require_none
from cuvee.release.stage import tasks
from cuvee.runfolder import FOLDERS, Run, is_done, read_manifest

OWN_TEXTS = (".json", ".html", ".md", ".yaml")
MACHINE_PATH = re.compile(r"(?<![\w.:/~<-])/(?:[\w.@+-]+/)+[\w.@+-]+")
"""An absolute path of at least two parts; parts of URLs and of closing tags are none."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Of a model: what looks like a path there is a token."""
NAMED = 3
"""Paths that a note names of all it found."""
WHY_NOT = {
    "problems": "data: DATA_CARD.md says what it is of",
    "teach": "teachers' answers: whether their terms allow to publish them is yours to check",
    "verify": "data",
    "select": "data, with the teachers' answers in it",
    "train": "specialists: the merged model is what is released",
    "evaluate": "answers to benchmarks; the cards hold the scores",
}
"""Stage -> why its folder stays here."""


@dataclasses.dataclass(frozen=True)
class Upload:
    """One file to upload."""

    path: str
    """In the repository."""
    source: Path
    text: str | None
    """What is sent where it is not the file as it is."""

    @property
    def size(self) -> int:
        """Return how many bytes are sent."""
        return self.source.stat().st_size if self.text is None else len(self.text.encode())


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file or folder of the run that stays."""

    path: str
    """In the run folder."""
    reason: str


@dataclasses.dataclass(frozen=True)
class Parcel:
    """All that a push would upload."""

    run: Run
    uploads: tuple[Upload, ...]
    """By path; no two have the same."""
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    """What a reader should know before it is public."""

    @property
    def size(self) -> int:
        """Return how many bytes are sent."""
        return sum(upload.size for upload in self.uploads)


def make_parcel(run: Run, *, environment: Mapping[str, str], home: Path) -> Parcel:
    """Return what a push of the run would upload.

    `environment` holds the values that must not be in it, `home` is written `~`. Raises
    DataError where the release is not finished, where a file did not pass its parity, and
    where a text holds a key.
    """
    _require_parity(run)
    _require_done(run)
    places = _places(run)
    texts = {path: _text(run, file, home) for path, file in places.items()}
    for path, text in texts.items():
        if text is not None:
            require_none(path, text, environment=environment)
    changed = {p: t for p, t in texts.items() if t is not None and t != _read(places[p])}
    uploads = [Upload(path, places[path], changed.get(path)) for path in sorted(places)]
    left_out = tuple(_left_out(run, set(places.values())))
    return Parcel(run, tuple(uploads), left_out, tuple(_notes(run, uploads)))


def _require_parity(run: Run) -> None:
    """Raise DataError for a file that was compared and did not pass."""
    if run.recipe.release.parity is None or not parity_table(run).exists():
        return
    failed = [e for e in read_exports(run) if e.parity is not None and not e.parity.passed]
    if failed:
        reasons = "; ".join(f"{e.file}: {e.parity.detail}" for e in failed if e.parity)
        rest = [q for q in run.recipe.release.gguf if q not in {e.quantization for e in failed}]
        raise DataError(
            f"did not pass the comparison with the merged model, and is not uploaded: {reasons}. "
            f"Release without: --set release.gguf=[{', '.join(rest)}]"
        )


def _require_done(run: Run) -> None:
    """Raise DataError where a task of the stage is not done or no longer as it should be."""
    manifest = read_manifest(run.path)
    with ExitStack() as resources:
        due = [t.name for t in tasks(run, resources) if not is_done(run, t, manifest)]
    if due:
        raise DataError(
            f"{run.path}: not released, or changed since: {', '.join(due)}; without --dry-run, "
            f"`cuvee release` does that first"
        )


def _places(run: Run) -> dict[str, Path]:
    """Return path in the repository -> file. The release's own cards win over the weights'."""
    folder = run.folder("release")
    places = {str(p.relative_to(run.merged())): p for p in _files(run.merged())}
    places |= {name: run.path / name for name in ("recipe.yaml", "MANIFEST.json")}
    names = ["report.html", *(("README.md", "DATA_CARD.md") if run.recipe.release.card else ())]
    places |= {name: folder / name for name in names}
    for quantization in run.recipe.release.gguf:
        for file in (gguf_file(run, quantization), modelfile_file(run, quantization)):
            places[file.name] = file
    if run.recipe.release.gguf and run.recipe.release.parity is not None:
        table = parity_table(run).with_suffix(".json")
        places[table.name] = table
    return places


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(
        p for p in found if not any(part[0] == "." for part in p.relative_to(folder).parts)
    )


def _text(run: Run, file: Path, home: Path) -> str | None:
    """Return a text of cuvee's own as it is sent; None for what is sent as it is."""
    if file.is_relative_to(run.merged()) and not file.name.startswith("cuvee_"):
        return None  # weights, tokenizer and configuration are the model: not a byte is changed
    if file.suffix not in OWN_TEXTS and not file.name.startswith("Modelfile."):
        return None
    return portable(_read(file), run=run.path, home=home)


def _read(file: Path) -> str:
    return file.read_bytes().decode("utf-8")  # `read_text` would change line ends


def portable(text: str, *, run: Path, home: Path) -> str:
    """Return text with paths in the run folder relative to it, and those at home from `~`."""
    for place, instead in ((run, "."), (home, "~")):
        if place == Path(place.anchor):
            continue  # `/` is no home
        for form in {str(place), json.dumps(str(place))[1:-1]}:
            path = rf"(?<![\w.~/-]){re.escape(form)}(?![\w-])(?!\.\w)"
            if instead == ".":
                text = re.sub(rf"{path}/(?=[\w.])", "", text)
            text = re.sub(path, instead, text)
    return text


def _left_out(run: Run, taken: set[Path]) -> Iterator[LeftOut]:
    """Yield everything in the run folder that is not uploaded, folders of stages as one."""
    for stage, reason in WHY_NOT.items():
        if run.folder(stage).exists():
            yield LeftOut(f"{FOLDERS[stage]}/", reason)
    for file in _files(run.folder("release")):
        if file not in taken:
            yield LeftOut(str(file.relative_to(run.path)), _why(run, file))
    if hidden := [p for p in run.merged().rglob(".*") if p.is_file()]:
        yield LeftOut(f"{FOLDERS['merge']}/.*", f"{len(hidden)} hidden files")
    if (run.merged() / "README.md").exists() and run.recipe.release.card:
        yield LeftOut(f"{FOLDERS['merge']}/README.md", "the card of 08_release takes its place")
    known = {*FOLDERS.values(), "recipe.yaml", "MANIFEST.json"}
    reasons = {"engines": "logs of engines", "log.txt": "a log", "account.txt": "the ledger's"}
    for path in sorted(run.path.iterdir()):
        if path.name not in known and path.name[0] != ".":
            name = f"{path.name}/" if path.is_dir() else path.name
            yield LeftOut(name, reasons.get(path.name, "not of a release"))


def _why(run: Run, file: Path) -> str:
    if file == parity_table(run) or file.parent.name == "exports":
        return "parity.json and the card say the same"
    if file.suffix == ".gguf" or file.name.startswith("Modelfile."):
        return f"not of a type in release.gguf: [{', '.join(run.recipe.release.gguf)}]"
    return "not of this release"


def _notes(run: Run, uploads: Sequence[Upload]) -> Iterator[str]:
    """Yield what is to be known of machine, servers and checks before it is public."""
    if changed := [upload.path for upload in uploads if upload.text is not None]:
        yield (
            f"paths of this machine are written relative in {', '.join(changed)}; where "
            "MANIFEST.json has a hash of one, it is that of the file in the run folder"
        )
    for upload in uploads:
        if upload.path.endswith((".json", ".yaml")) and upload.path not in VOCABULARIES:
            text = _read(upload.source) if upload.text is None else upload.text
            found = sorted(set(MACHINE_PATH.findall(text)))
            if found:
                more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
                named = ", ".join(found[:NAMED])
                yield f"{upload.path} names paths of this machine: {named}{more}"
    if urls := sorted({t.url for t in run.recipe.teachers if t.url is not None}):
        yield f"recipe.yaml and report.html name these servers: {', '.join(urls)}"
    if run.recipe.release.gguf and run.recipe.release.parity is None:
        yield "release.parity is null: no GGUF file was compared with the merged model"
    yield "licence: the card names none; add it before this is public (README.md, Limits)"
