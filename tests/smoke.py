"""The smoke recipe run as a user runs it: the real command, a process and a ledger of its own."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cuvee.recipe import load_recipe
from cuvee.runfolder import Run

from .models.processes import wait_until

RECIPE = Path(__file__).parent.parent / "recipes" / "smoke.yaml"
SANDBOX = os.environ.get("CUVEE_TEST_SANDBOX", "bubblewrap")


@dataclasses.dataclass(frozen=True)
class Job:
    """A run folder, the ledger beside it, and the overrides they go with."""

    path: Path
    overrides: tuple[str, ...] = ()

    def command(self, *more: str) -> list[str]:
        ledger = f"ledger={self.path.parent / (self.path.name + '.sqlite')}"
        sets = [f"--set={s}" for s in (ledger, f"sandbox={SANDBOX}", *self.overrides)]
        out = ["--out", str(self.path)]
        return [sys.executable, "-m", "cuvee.cli", "run", str(RECIPE), *out, *sets, *more]

    def run(self, *more: str, code: int = 0) -> str:
        done = subprocess.run(self.command(*more), capture_output=True, text=True)
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        assert "Traceback" not in output
        return output

    def kill(self, *, at: str, when: Callable[[], bool]) -> None:
        """Run, and kill -9 once the task `at` has begun and `when` holds."""
        process = subprocess.Popen(
            self.command(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        with process:
            assert process.stderr is not None
            begun = any(line.strip() == at for line in process.stderr)
            held = wait_until(lambda: when() or process.poll() is not None)
            alive = process.poll() is None
            process.kill()
        assert begun and held and alive, f"it was over before it was killed at {at}"

    def opened(self) -> Run:
        return Run(self.path, load_recipe(self.path / "recipe.yaml"))

    def copied(self, to: Path, *overrides: str) -> "Job":
        """Return a copy to change. The ledger is not copied: requests are sent again."""
        shutil.copytree(self.path, to)
        return Job(to, overrides)


def engines_of(path: Path) -> list[str]:
    """Return the command lines of processes of cuvee that work for a run folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(path) in line and "cuvee" in line:
                found.append(line)
    return found
