"""Takes the pictures of docs/dashboards.md: ``python docs/screenshots.py RUNS NAME/STAGE OUT``.

Serves ``RUNS/mlflow.db`` on loopback, opens MLflow's pages of one training stage in a real browser, plays a sample
clip, and writes ``OUT/mlflow_{runs,metrics,pointer,sample}.jpg``. Needs Playwright as a driver, which the environment
does not have (``pip install --no-deps -r docs/screenshots.lock`` adds it, no further download), and Debian's browser
(``apt install chromium``; another one: ``STREAMCHAR_CHROMIUM=PATH``).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    from playwright.sync_api import Page, TimeoutError, sync_playwright
except ImportError:
    sys.exit("docs/screenshots.py drives a browser with Playwright, which is not installed: pip install --no-deps -r "
             "docs/screenshots.lock")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from callbacks.mlflow_run import client_of, read_identity

WIDTH, HEIGHT, QUALITY = 1280, 860, 72
HIDE_PATHS = """() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) walk.currentNode.data = walk.currentNode.data.replace(/file:\\S*\\/(?=mlartifacts)/, "");
}"""
UP_S, SHOWN_MS = 300, 400_000
"""Patience with a server and a page on a busy machine."""


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    browser = os.environ.get("STREAMCHAR_CHROMIUM") or shutil.which("chromium")
    if len(arguments) != 3 or not browser:
        print(__doc__ if browser else "no chromium found: apt install chromium, or STREAMCHAR_CHROMIUM=PATH",
              file=sys.stderr)
        return 2
    runs, stage, out = Path(arguments[0]).absolute(), arguments[1], Path(arguments[2])
    identity = read_identity(runs / stage)
    if not (runs / "mlflow.db").is_file() or not identity:
        print(f"{runs}/mlflow.db or {runs}/{stage}/mlflow_run.json is missing: train the stage with "
              "tracking.kind=mlflow and samples", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    with served(runs) as address, sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--autoplay-policy=no-user-gesture-required"])
        page = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(SHOWN_MS)
        show(page, address, str(identity["run_id"]), out)
        opened.close()
    return 0


def show(page: Page, address: str, run: str, out: Path) -> None:
    """Visit the pages in turn; each is waited for by what it must hold, since it never stops loading."""
    client: Any = client_of(address)
    found = client.get_run(run)
    home = f"{address}/#/experiments/{found.info.experiment_id}"
    names = sorted(entry.path for entry in client.list_artifacts(run, "samples"))

    page.goto(f"{home}/runs")
    chain = page.get_by_text(found.info.run_name.split("/")[0], exact=True).first
    chain.wait_for()
    tidy(page)
    page.locator("[role=row]", has=chain).locator("button, [role=button]").first.click()  # its stages
    page.get_by_text(found.info.run_name, exact=True).first.wait_for()
    keep(page, out / "mlflow_runs.jpg")

    page.goto(f"{home}/runs/{run}/model-metrics")
    page.locator(".js-plotly-plot .scatterlayer").first.wait_for()
    keep(page, out / "mlflow_metrics.jpg")

    page.goto(f"{home}/runs/{run}/artifacts/{[n for n in names if n.endswith('.png')][-1]}")
    page.wait_for_function("[...document.images].some(i => i.naturalWidth > 200)")
    keep(page, out / "mlflow_pointer.jpg")

    page.goto("about:blank")  # a page of artefacts that is open already keeps what it shows
    page.goto(f"{home}/runs/{run}/artifacts/{[n for n in names if n.endswith('.mp4')][-1]}")
    page.locator("video").wait_for(state="attached")
    page.evaluate("document.querySelector('video').play()")
    page.wait_for_function("(v => v.currentTime > 0.4 && v.readyState >= 2)(document.querySelector('video'))")
    sound = page.evaluate("document.querySelector('video').webkitAudioDecodedByteCount")
    print(f"the clip plays, {sound} bytes of sound were decoded")
    if not sound:
        raise SystemExit("the clip plays without sound")
    keep(page, out / "mlflow_sample.jpg")


def tidy(page: Page) -> None:
    """Close the panel of MLflow's assistant, and choose the menu for training; a version without them is as well."""
    for wanted in (page.get_by_role("button", name="Close"), page.get_by_text("Model training", exact=True)):
        with suppress(TimeoutError):
            wanted.first.click(timeout=8000)


def keep(page: Page, path: Path) -> None:
    """Photograph the page when what slides in has come to rest, without this machine's paths."""
    page.wait_for_timeout(1500)
    page.evaluate(HIDE_PATHS)
    page.screenshot(path=path, type="jpeg", quality=QUALITY)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """MLflow's server over the folder of all runs, on a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{runs / 'mlflow.db'}", "--host",
         "127.0.0.1", "--port", str(port), "--workers", "1"], start_new_session=True)
    try:
        deadline = time.monotonic() + UP_S
        while not is_up(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"mlflow server did not come up within {UP_S} s")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(UP_S)


def is_up(port: int) -> bool:
    """Whether the server answers."""
    try:
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
