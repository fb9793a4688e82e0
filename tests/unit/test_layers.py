"""The house holds: floors, siblings, no training framework in the library, and only the library in the wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipelines.config.places import CHECKOUT

FRAMEWORKS = {"lightning", "pytorch_lightning", "mlflow", "deepspeed", "webdataset", "omegaconf"}
ALLOWED_AT_IMPORT = {"streamchar", "torch", "transformers", "numpy", *sys.stdlib_module_names}


def test_import_linter_keeps_every_contract() -> None:
    done = subprocess.run([str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=CHECKOUT, text=True,
                          capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "0 broken" in done.stdout


def imports(tree: ast.Module, *, only_top: bool) -> set[str]:
    """First names of all imported modules; ``only_top``: those that run when the module is imported."""
    found = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
            if not (only_top and lazy):
                pending.append(child)
    return found


@pytest.mark.parametrize("path", sorted((CHECKOUT / "streamchar").rglob("*.py")),
                         ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_library_imports_torch_and_transformers_alone(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not imports(tree, only_top=False) & FRAMEWORKS
    assert imports(tree, only_top=True) <= ALLOWED_AT_IMPORT


def test_importing_the_whole_library_loads_no_framework() -> None:
    code = ("import pkgutil, importlib, sys, streamchar\n"
            "for m in pkgutil.walk_packages(streamchar.__path__, 'streamchar.'): importlib.import_module(m.name)\n"
            f"sys.exit(str({FRAMEWORKS!r} & set(sys.modules) or '') or 0)")
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=300,
                          check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_wheel_holds_streamchar_only(tmp_path: Path) -> None:
    source = tmp_path / "source"
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT,
                           capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):  # a copy: building inside the checkout would leave its droppings there
        if (CHECKOUT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((CHECKOUT / name).read_bytes())
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                           "--no-index", "-w", str(tmp_path), str(source)], capture_output=True, text=True, timeout=300,
                          check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    held = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert held == {"streamchar", next(n for n in held if n.endswith(".dist-info"))}
    packages = {p.parent.relative_to(CHECKOUT).as_posix() for p in (CHECKOUT / "streamchar").rglob("__init__.py")}
    assert packages <= {str(Path(name).parent) for name in zipfile.ZipFile(wheel).namelist()}


def test_files_stay_small() -> None:
    lengths = {path.relative_to(CHECKOUT).as_posix(): len(path.read_text().splitlines())
               for room in ("streamchar", "pipelines", "datamodules", "lightning_modules", "callbacks")
               for path in (CHECKOUT / room).rglob("*.py")}
    assert {name: n for name, n in lengths.items() if n > 500} == {}
    ordered = sorted(n for n in lengths.values() if n)
    assert ordered[len(ordered) // 2] < 150


def test_no_room_for_odds_and_ends() -> None:
    forbidden = {"utils", "common", "helpers", "misc"}
    names = [p for room in ("streamchar", "pipelines", "datamodules", "lightning_modules", "callbacks")
             for p in (CHECKOUT / room).rglob("*") if p.stem in forbidden and "__pycache__" not in p.parts]
    assert names == []
