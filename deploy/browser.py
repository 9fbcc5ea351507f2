"""Drives a real browser without a screen over Chrome's DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import programs
from websockets.sync.client import ClientConnection, connect

PATIENCE_SECONDS = 60.0
KEYS = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
"""Keys by name, with Windows' numbers for them, which Chrome uses."""


class Page:
    """One tab. `complaints` are its console's errors, `asked` the URLs that it loaded."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._number = 0
        self._session = ""
        self.complaints: list[str] = []
        self.asked: list[str] = []
        target = self._do("Target.createTarget", url="about:blank")["targetId"]
        attached = self._do("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._do(f"{domain}.enable")
        self._do("Page.bringToFront")  # else keys do not reach it

    def close(self) -> None:
        self._do("Page.close")

    def open(self, url: str) -> None:
        self._do("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Evaluate a JavaScript expression and return its value."""
        got = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def wait(self, condition: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < deadline, f"{condition} did not come: {self.complaints}"
            time.sleep(0.02)

    def before(self, script: str) -> None:
        """Run JavaScript in every document that opens from now on, before its own scripts."""
        self._do("Page.addScriptToEvaluateOnNewDocument", source=script)

    def press(self, key: str) -> None:
        """Press a named key, at the focus."""
        said = {"key": key, "windowsVirtualKeyCode": KEYS[key]}
        more = {"text": "\r"} if key == "Enter" else {}
        self._do("Input.dispatchKeyEvent", type="keyDown", **said, **more)
        self._do("Input.dispatchKeyEvent", type="keyUp", **said)

    def named(self, *roles: str) -> list[tuple[str, str]]:
        """The elements of these roles that a screen reader finds: (role, name)."""
        nodes = self._do("Accessibility.getFullAXTree")["nodes"]
        shown = (node for node in nodes if not node["ignored"])
        pairs = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]
        return [(role, name) for role, name in pairs if role in roles]

    def look(self, width: int, height: int, *, scheme: str = "light", scale: float = 1) -> None:
        """Set the window's size, in CSS pixels, and the preferred colour scheme."""
        self._do("Emulation.setScrollbarsHidden", hidden=True)
        self._do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        self.prefer("prefers-color-scheme", scheme)

    def prefer(self, feature: str, value: str) -> None:
        """Set one of CSS's media features to a value, and leave the others."""
        self._do("Emulation.setEmulatedMedia", features=[{"name": feature, "value": value}])

    def network(self, *, latency_ms: float = 0, rate: float = -1, offline: bool = False) -> None:
        """Emulate a network of this latency and rate, in bytes a second; -1 for no limit."""
        self._do(
            "Network.emulateNetworkConditions",
            offline=offline,
            latency=latency_ms,
            downloadThroughput=rate,
            uploadThroughput=rate,
        )

    def picture(self) -> bytes:
        """The whole page as PNG, whatever the window's height."""
        size = self._do("Page.getLayoutMetrics")["cssContentSize"]
        took = self._do(
            "Page.captureScreenshot", clip={**size, "scale": 1}, captureBeyondViewport=True
        )
        return base64.b64decode(took["data"])

    def _do(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._devtools.send(json.dumps(message))
        while True:
            said = json.loads(self._devtools.recv(PATIENCE_SECONDS))
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result
            self._note(said)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("sessionId") != self._session:
            return  # of another tab
        what, about = event.get("method"), event.get("params", {})
        if what == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif what == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"])


@contextmanager
def browsing(program: Path, folder: Path) -> Iterator[Callable[[], Page]]:
    """Run a browser with a profile of its own in `folder`, until the block ends.

    Yields a function that opens a tab.
    """
    environment = {**os.environ, "LD_LIBRARY_PATH": programs.libraries(), "HOME": str(folder)}
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]
    options += ["--remote-debugging-port=0", f"--user-data-dir={folder}"]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *options, "about:blank"], stdout=log, stderr=log, env=environment
        )
    try:
        port = folder / "DevToolsActivePort"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (port.exists() and port.read_text().count("\n")):
            assert process.poll() is None, (folder / "browser.log").read_text()
            assert time.monotonic() < deadline, (folder / "browser.log").read_text()
            time.sleep(0.02)
        number, path = port.read_text().split()
        address = f"ws://127.0.0.1:{number}{path}"
        # Its pings would draw random numbers in a thread of their own.
        with connect(address, max_size=None, proxy=None, ping_interval=None) as devtools:
            yield lambda: Page(devtools)
    finally:
        process.terminate()
        process.wait(20)
