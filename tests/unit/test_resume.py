"""``pytest --resume``: what passed with this very code is left out, everything else runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"


def run(folder: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--resume"], cwd=folder, text=True,
                          capture_output=True, check=False)
    return done.returncode, done.stdout


def test_a_run_goes_on_where_it_failed_and_new_code_starts_anew(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text(".pytest_cache\n__pycache__\nready\n")
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    test = tmp_path / "test_it.py"
    test.write_text("from pathlib import Path\ndef test_a(): pass\ndef test_b(): assert Path('ready').exists()\n")
    code, said = run(tmp_path)
    assert code == 1 and "1 failed, 1 passed" in said
    (tmp_path / "ready").touch()
    code, said = run(tmp_path)
    assert code == 0 and "1 passed, 1 deselected" in said
    code, said = run(tmp_path)
    assert code == 0 and "2 deselected" in said
    test.write_text(test.read_text() + "# changed\n")
    code, said = run(tmp_path)
    assert code == 0 and "2 passed" in said
