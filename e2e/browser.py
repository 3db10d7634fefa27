"""Chromium without a window, driven by ChromeDriver's WebDriver protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from harness import PATIENCE_SECONDS, eventually, free_ports

# No window, no services of its own that talk to the network.
CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip


class Browser:
    """One browser with one page."""

    def __init__(self, folder: Path, width: int = 1440, height: int = 1000):
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if not driver or not chromium:
            pytest.fail("chromium and chromedriver are missing; Debian: apt install chromium chromium-driver")
        (port,) = free_ports(1)
        with (folder / "chromedriver.log").open("wb") as log:
            self.process = subprocess.Popen([driver, f"--port={port}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=2 * PATIENCE_SECONDS)
        self.session = ""
        try:
            eventually(self._is_ready, "chromedriver is ready")
            arguments = [*CHROMIUM, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
            options = {"binary": chromium, "args": arguments}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.session = f"/session/{answer['sessionId']}"
        except BaseException:
            self.stop()
            raise

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/status").json()["value"]["ready"]
        except httpx.HTTPError:
            return False

    def _ask(self, method: str, path: str, body: dict | None = None):
        answer = self.client.request(method, path, json=body)
        value = answer.json()["value"]
        assert answer.status_code == 200, f"{path}: {json.dumps(value)[:2000]}"
        return value

    def open(self, url: str) -> None:
        self._ask("POST", f"{self.session}/url", {"url": url})

    def run(self, script: str, *arguments):
        """What a script in the page returns."""
        return self._ask("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector: str) -> str:
        """The text of the first element, or nothing if there is none."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def rows(self, table: str) -> list[list[str]]:
        """The cells of a table's rows of data, as text."""
        script = "return [...document.querySelectorAll(`${arguments[0]} tbody tr`)].map(row => [...row.cells].map(cell => cell.innerText))"
        return self.run(script, table)

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)

    def devtools(self, command: str, **parameters):
        return self._ask("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def prefer(self, **features: str) -> None:
        """What the system of the page's reader prefers: `prefer(color_scheme="dark")`."""
        listed = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", features=listed)

    def resize(self, width: int, height: int) -> None:
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self, path: Path) -> None:
        """The whole page, as far down as it goes."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, format="png", **self._clip())
        path.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self) -> dict:
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def complaints(self) -> list[str]:
        """What the console has said since it was last asked, but for notes."""
        entries = self._ask("POST", f"{self.session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def stop(self) -> None:
        try:
            if self.session:
                self.client.delete(self.session)
        except httpx.HTTPError:
            pass
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
