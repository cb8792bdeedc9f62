"""One of several training processes: it dies with the one that started it, then trains.

`accelerate launch` puts each of its processes into a session of its own, where a kill of the
launcher does not reach it. So each asks the kernel first, before torch is imported, and then
becomes `python -m cuvee.train.sft JOB.json`. Not here: training.
"""

import os
import signal
import sys
from collections.abc import Sequence

from cuvee.models import guard


def main(arguments: Sequence[str]) -> int:
    """Turn into the training process; return an exit code only where that could not be."""
    command = [sys.executable, "-m", "cuvee.train.sft", *arguments]
    return guard.main([str(os.getppid()), str(int(signal.SIGKILL)), *command])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
