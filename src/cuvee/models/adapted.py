"""A base's tokenizer as it is trained and served: mended where its template breaks.

`load_adapted` gives it to whoever renders or counts; `copy_adapted` writes it with a
specialist, so that what was trained is what is served. Where nothing is to mend, the base's
files are copied byte for byte. Not here: what is mended (`cuvee.models.template.adapt`).
"""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from cuvee.atomic import write_text
from cuvee.models.checkpoint import CONFIG_FILES, TOKENIZER_FILES, load_tokenizer
from cuvee.models.template import adapt


def load_adapted(path: Path) -> PreTrainedTokenizerBase:
    """Return a folder's tokenizer, mended. Raises DataError as `load_tokenizer` and `adapt`."""
    tokenizer = load_tokenizer(path)
    adapt(tokenizer)
    return tokenizer


def copy_adapted(base: Path, out: Path) -> list[str]:
    """Write tokenizer, chat template and configuration of `base` into `out`, mended.

    Returns what was mended, in words. Changed are then `chat_template.jinja` (which wins over
    the one in `tokenizer_config.json`; that is taken out), `eos_token`, and in both
    configurations `eos_token_id`, which names the end of a turn first and keeps what it had.
    Files of these names that `base` has not are removed from `out`. Raises DataError.
    """
    for name in (*CONFIG_FILES, *TOKENIZER_FILES):
        (out / name).unlink(missing_ok=True)
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    tokenizer = load_tokenizer(base)
    template, end = tokenizer.chat_template, tokenizer.eos_token
    changes = adapt(tokenizer)
    if tokenizer.chat_template != template:
        write_text(out / "chat_template.jinja", tokenizer.get_chat_template())
        _change(out / "tokenizer_config.json", chat_template=None)
    if tokenizer.eos_token != end:
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            _change(out / name, eos_token=tokenizer.eos_token)
    for name in CONFIG_FILES:
        changes += _stop_at(out / name, int(tokenizer.eos_token_id))
    return changes


def _stop_at(file: Path, end: int) -> list[str]:
    """Make `end` one of the ids at which generation stops; return what changed."""
    if not file.is_file():
        return []
    found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    ids = found if isinstance(found, list) else [found] if found is not None else []
    if end in ids:
        return []
    _change(file, eos_token_id=[end, *ids] if ids else end)
    return [f"{file.name}: eos_token_id now has {end}, the end of a turn (it was {found})"]


def _change(file: Path, **values: Any) -> None:
    """Set keys of a JSON file, None taking one out; a file that is not there stays away."""
    if not file.is_file():
        return
    content = json.loads(file.read_text(encoding="utf-8")) | values
    kept = {key: value for key, value in content.items() if key not in values or value is not None}
    write_text(file, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
