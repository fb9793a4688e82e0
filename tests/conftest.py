"""``--resume``: leave out what has passed already with this very code, so that a cut-off run can be gone on with."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

KEY = "streamchar/passed"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--resume", action="store_true", help="leave out tests that passed already with this very code")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--resume"):
        config.pluginmanager.register(Resume(config), "resume")


class Resume:
    """Notes every test that passes, under a hash of all files of the checkout."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.code = config, code_hash(config.rootpath)
        kept = config.cache.get(KEY, {})
        self.outcome, self.left_out = False, 0
        self.troubles: dict[str, str] = kept.get("troubles", {}) if kept.get("code") == self.code else {}
        self.cells: dict[str, str] = kept.get("cells", {}) if kept.get("code") == self.code else {}
        self.passed: list[str] = kept.get("tests", []) if kept.get("code") == self.code else []

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        done = [item for item in items if item.nodeid in set(self.passed)]
        self.left_out = len(done)
        if done:
            config.hook.pytest_deselected(items=done)
            items[:] = [item for item in items if item not in done]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.outcome = report.passed
            for name, value in report.user_properties:
                if name in ("cell", "trouble"):
                    from tests.strategy_table import stamp

                    table, key = (self.cells, "/".join(value)) if name == "cell" else (self.troubles, "|".join(value))
                    table[key] = ("" if report.passed else "failed ") + stamp(self.config.rootpath)
        elif report.when == "teardown" and report.passed and self.outcome:
            self.passed.append(report.nodeid)
            self.config.cache.set(KEY, {"code": self.code, "tests": self.passed, "cells": self.cells,
                                        "troubles": self.troubles})
        elif report.when == "setup":
            self.outcome = False

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.cells:
            from tests.strategy_table import read_table, write_table

            table = self.config.rootpath / "docs" / "strategies.md"
            write_table(table, read_table(table) | self.cells)
        if self.troubles:
            from tests.slurm.trouble_table import read_trouble_table, write_trouble_table

            table = self.config.rootpath / "docs" / "requeue.md"
            found = {tuple(key.split("|")): passed for key, passed in self.troubles.items()}
            write_trouble_table(table, read_trouble_table(table) | found)
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.left_out:
            session.exitstatus = pytest.ExitCode.OK  # all of them had passed already


def code_hash(root: Path) -> str:
    """Hash of all files that git knows or would add, names and contents, and of the interpreter and its packages.

    Without the tables that the tests themselves write.
    """
    names = subprocess.run(["git", "ls-files", "-zco", "--exclude-standard"], cwd=root, text=True, capture_output=True,
                           check=True).stdout.split("\0")[:-1]
    names = [name for name in names if name not in ("docs/strategies.md", "docs/requeue.md")]
    packages = sorted(f"{d.name}=={d.version}" for d in distributions())
    digest = hashlib.sha256("\n".join([sys.version, sys.platform, *packages]).encode())
    for name in sorted(set(names)):
        path = root / name
        digest.update(name.encode() + b"\0" + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()
