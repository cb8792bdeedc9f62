"""The structure of the package: imports go one way, starts are light, files stay short."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cuvee.runfolder import STAGES

ORDER = """errors atomic records progress templates recipe runfolder models workers verify shards
problems teach select rounds lineage train merge evaluate search fit serve release view plan
pipeline cli""".split()
"""Files and rooms, top to bottom: each may import only what stands before it."""

PACKAGE = Path(__file__).parent.parent / "src" / "cuvee"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LONGEST_FILE = 400
LONGEST_FUNCTION = 60


def place(module: str) -> int:
    """Return where in ORDER a module of ours (`cuvee.verify.math`) stands."""
    return ORDER.index(module.split(".")[1])


def module_name(path: Path) -> str:
    return ".".join(("cuvee", *path.relative_to(PACKAGE).with_suffix("").parts))


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """Return (line, full name) of every import of ours, wherever it stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write imports in full, not with dots"
            found.append((node.lineno, node.module or ""))
    return [(line, name) for line, name in found if name.startswith("cuvee.")]


def test_every_file_and_room_has_a_place_in_the_order() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert rooms == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_up(path: Path) -> None:
    module = module_name(path)
    for line, target in imported(ast.parse(path.read_text())):
        room, own = target.split(".")[1], module.split(".")[1]
        if room != own:
            assert place(target) < place(module), f"{module}:{line} imports {target}, below it"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_and_functions_fit_on_a_few_screens(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_exceptions_and_recipe_sections_inherit(path: Path) -> None:
    allowed = {"CuveeError", "Exception", "Section", "BaseModel", "Protocol", "NamedTuple"}
    allowed |= {"TypedDict"}
    foreign = {"ProgressColumn", "TrainerCallback", "StrEnum", "ClientRequest"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
            assert bases <= allowed | foreign, f"{node.name} inherits from {bases}"


@pytest.mark.parametrize("command", ["import cuvee", "import cuvee.cli"])
def test_start_loads_neither_torch_nor_transformers(command: str) -> None:
    heavy = "{'torch', 'transformers', 'pyarrow', 'datasets', 'pydantic'}"
    code = f"import sys; {command}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tasks_that_are_done_are_found_without_torch() -> None:
    """`cuvee status`, and a run with nothing to do, import every stage; torch adds seconds."""
    stages = ", ".join(f"cuvee.{stage}.stage" for stage in STAGES)
    code = f"import sys, {stages}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_answers_in_half_a_second_of_processor_time() -> None:
    # Processor time, and the best of three: what else the machine does must not fail this.
    used = min(_help_seconds() for _ in range(3))
    assert used < 0.8, f"{used:.2f} s; 0.4 s is what it takes on two quiet cores"


def _help_seconds() -> float:
    before = os.times()
    subprocess.run([sys.executable, "-m", "cuvee.cli", "--help"], check=True, capture_output=True)
    after = os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system
