"""How training processes ended that said nothing themselves: from exit code and log, in words.

With several processes the log ends with a report of torch's launcher on the first that
failed; what that one wrote itself stands before it. Not here: errors that a training process
tells its parent (`cuvee.train.launch`).
"""

import re
import signal
from pathlib import Path

TAIL_BYTES = 1 << 16
TAIL_LINES = 15
_REPORT = re.compile(r"^[WE]\d{4} [^\n]{0,60}torch/distributed/elastic/", re.MULTILINE)
"""Where the launcher's own lines begin."""
_FIRST_TO_FAIL = re.compile(r"^ +rank +: (\d+)[^\n]*\n +exitcode +: (-?\d+)", re.MULTILINE)


def ending(code: int, log: Path, *, since: int) -> str:
    """Return why a training ended, with the end of what it wrote to its log.

    `code` is the exit code of the process that was started, negative for a signal; `since`
    is where in `log`, in bytes, its own lines begin.
    """
    with log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    failed = _FIRST_TO_FAIL.findall(text)
    who = "training"
    if failed:
        rank, code = int(failed[-1][0]), int(failed[-1][1])
        who = f"process {rank} of the training"
    report = _REPORT.search(text)
    lines = (text[: report.start()] if report else text).splitlines()[-TAIL_LINES:]
    shown = "\n".join(f"  {line}" for line in lines) or "  (empty)"
    return f"{_how(who, code)}; the end of {log}:\n{shown}"


def _how(who: str, code: int) -> str:
    if code == -signal.SIGKILL:
        return f"{who} was killed (signal 9), as a rule because memory ran out"
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{who} ended without a result ({how})"
