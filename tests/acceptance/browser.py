"""Headless Chromium, told what to do over its debugging pipe: no driver, no further package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser")
REASON = "Chromium is not installed: bash tests/install_peers.sh"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    # Viewers draw with WebGL, and a test machine has no graphics card.
    "--enable-unsafe-swiftshader",
    "--use-angle=swiftshader",
    "--remote-debugging-pipe",
)
POLLS_EVERY_MS = 250
_KEY_CODES = {
    "Enter": 13,
    "Tab": 9,
    "Escape": 27,
    " ": 32,
    "PageUp": 33,
    "PageDown": 34,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Delete": 46,
}


class Navigated(Exception):
    """The page went elsewhere before it answered."""


class Page:
    """One page of the browser (Chrome DevTools Protocol)."""

    def __init__(self, to_browser: IO[bytes], from_browser: IO[bytes]) -> None:
        self._to, self._from = to_browser, from_browser
        self._last = 0
        self._session: str | None = None
        self.heard: list[dict[str, Any]] = []
        """Every event of the browser, oldest first."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._call("Page.enable")

    def listen(self) -> None:
        """Hear of requests, of what goes to the console and of faults."""
        for domain in ("Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every event of a kind that came so far."""
        self.evaluate("0")
        return [dict(one.get("params", {})) for one in self.heard if one.get("method") == method]

    def show_as(self, *, scheme: str = "light") -> None:
        """In light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def reach(self, *, is_offline: bool = False, latency_ms: float = 0.0) -> None:
        """How well the network carries what the page asks for from now on."""
        self._call(
            "Network.emulateNetworkConditions",
            offline=is_offline,
            latency=latency_ms,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def forget_cookies(self) -> None:
        """End every session, as the browser sees it."""
        self._call("Network.clearBrowserCookies")

    def hold(self, key: str, *, repeats: int) -> None:
        """One key that stays down so long that it repeats."""
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": ord(key[0].upper())}
        for number in range(repeats + 1):
            self._call(
                "Input.dispatchKeyEvent", type="keyDown", text=key, autoRepeat=number > 0, **keys
            )
        self._call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def press(self, key: str, *, code: str = "", text: str = "", shift: bool = False) -> None:
        """One key, down and up; `text` is what it types."""
        keys = {"key": key, "code": code or key, "modifiers": 8 if shift else 0}
        keys["windowsVirtualKeyCode"] = _KEY_CODES.get(key, ord(key[0].upper()))
        typed = text or (key if len(key) == 1 else "\r" if key == "Enter" else "")
        self._call("Input.dispatchKeyEvent", type="keyDown", text=typed, **keys)
        self._call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def type(self, words: str) -> None:
        """Into whatever has the focus."""
        self._call("Input.insertText", text=words)

    def choose_files(self, selector: str, files: Sequence[Path]) -> None:
        """As a person does in the file dialog."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(one) for one in files])

    def whole_page(self) -> bytes:
        """The page from top to bottom as PNG."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 9000)}
        shot = self._call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            clip={**clip, "scale": 1},
        )
        return base64.b64decode(shot["data"])

    def resize(self, width: int, height: int) -> None:
        """The size of the window in pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, url: str) -> None:
        """Go there."""
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of what its promise gives."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "context was destroyed" in str(answer.get("exceptionDetails", "")):
            raise Navigated
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, condition: str, *, at_most_s: float = 90.0) -> None:
        """Wait in the page for a JavaScript condition; fails with the page's text."""
        came = self.comes(condition, at_most_s=at_most_s)
        assert came, f"{condition} never held; the page said: {self.text()[:2000]}"

    def comes(self, condition: str, *, at_most_s: float) -> bool:
        """Wait in the page for a JavaScript condition; False where it does not come."""
        give_up = time.monotonic() + at_most_s
        while time.monotonic() < give_up:
            try:
                return self._comes_on_this_page(condition, give_up - time.monotonic())
            except Navigated:
                continue  # to the page on which it may come
        return False

    def _comes_on_this_page(self, condition: str, at_most_s: float) -> bool:
        tries = round(at_most_s * 1000 / POLLS_EVERY_MS)
        came = self.evaluate(
            f"""(async () => {{
                for (let tries = 0; tries < {tries}; tries++) {{
                    if ({condition}) return true;
                    await new Promise(wake => setTimeout(wake, {POLLS_EVERY_MS}));
                }}
                return false;
            }})()"""
        )
        return bool(came)

    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.evaluate("document.body.innerText"))

    def double_click(self, x: float, y: float) -> None:
        """Twice with the left button."""
        for count in (1, 2):
            for kind in ("mousePressed", "mouseReleased"):
                self._call(
                    "Input.dispatchMouseEvent",
                    type=kind,
                    x=x,
                    y=y,
                    button="left",
                    clickCount=count,
                )

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        wanted = self._last = self._last + 1
        message = {"id": wanted, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._hear()
            if "method" in answer:
                self.heard.append(answer)
            if answer.get("method") == "Page.javascriptDialogOpening":
                self._accept_dialog()
            if answer.get("id") == wanted:
                if "navigated" in str(answer.get("error", "")):
                    raise Navigated
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    def _accept_dialog(self) -> None:
        """A page that asks whether to leave would wait for ever."""
        self._last += 1
        accept = {"id": self._last, "method": "Page.handleJavaScriptDialog"}
        accept |= {"params": {"accept": True}, "sessionId": self._session}
        self._to.write(json.dumps(accept).encode() + b"\0")
        self._to.flush()

    def _hear(self) -> dict[str, Any]:
        heard = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser ended"
            heard += byte
        return dict(json.loads(heard))


@contextmanager
def browsing(folder: Path, *, width: int = 1600, height: int = 1000) -> Iterator[Page]:
    """A browser with an empty profile in `folder`."""
    assert EXECUTABLE is not None
    its_input, our_output = os.pipe()
    our_input, its_output = os.pipe()
    # The browser wants its pipe at 3 and 4, which this process may have in use.
    launch = f'exec "$0" "$@" 3<&{its_input} 4>&{its_output}'
    process = subprocess.Popen(
        ["bash", "-c", launch, EXECUTABLE, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
        pass_fds=(its_input, its_output),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_input)
    os.close(its_output)
    try:
        with os.fdopen(our_output, "wb") as to_browser, os.fdopen(our_input, "rb") as from_browser:
            page = Page(to_browser, from_browser)
            page.resize(width, height)
            yield page
    finally:
        process.terminate()
        process.wait()
