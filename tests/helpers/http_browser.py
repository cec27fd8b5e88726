"""A headless Chromium for tests, told what to do over its DevTools protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.sync.client import ClientConnection, connect

from tests.helpers.certificates import Files
from tests.helpers.waiting import DEADLINE_S, wait_until
from tests.programs import find_program

PROGRAM: Final = "chromium-headless-shell"


class Browser:
    """One page. It trusts the certificate of ``files``, and finds every name on 127.0.0.1."""

    def __init__(self, directory: Path, files: Files) -> None:
        program = find_program(PROGRAM)
        assert program is not None, f"{PROGRAM} is not installed"
        key = files.certificate.public_key()
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pin = base64.b64encode(hashlib.sha256(info).digest()).decode()
        self._count = 0
        self._session = ""
        self._talk: ClientConnection | None = None
        self._stack = ExitStack()
        self._output = directory / "browser.output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    program,
                    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server"),
                    *("--disable-background-networking", "--disable-component-update"),
                    *("--disable-dev-shm-usage", "--remote-debugging-port=0"),
                    *(f"--user-data-dir={directory / 'browser'}", "--disable-quic"),
                    f"--ignore-certificate-errors-spki-list={pin}",
                    "--host-resolver-rules=MAP * 127.0.0.1",
                    "about:blank",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                start_new_session=True,  # what it starts may outlive it
            )
        try:
            self._attach()
        except BaseException:
            self.end()
            raise

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        found = self._ask("Page.navigate", url=url)
        assert "errorText" not in found, found
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        found = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true, over a change of the page too."""

        def look() -> bool:
            try:
                found = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
            except ConnectionAbortedError:
                return False  # the page has just gone
            return bool(found["result"].get("value") is True)

        wait_until(look, f"{script} in the browser")

    def end(self) -> None:
        """End it; its helpers end with it."""
        self._stack.close()
        self._process.terminate()
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(DEADLINE_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _attach(self) -> None:
        def look() -> str:
            assert self._process.poll() is None, self._output.read_text()
            _, mark, rest = self._output.read_text().partition("listening on ")
            return rest.split()[0] if mark and "\n" in rest else ""

        address = wait_until(look, "the browser")
        self._talk = self._stack.enter_context(connect(address, proxy=None, max_size=None))
        (page,) = [
            one["targetId"]
            for one in self._ask("Target.getTargets")["targetInfos"]
            if one["type"] == "page"
        ]
        found = self._ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = str(found["sessionId"])

    def _ask(self, method: str, **params: object) -> dict[str, Any]:
        assert self._talk is not None
        self._count += 1
        message: dict[str, object] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._talk.send(json.dumps(message))
        while True:
            answer = json.loads(self._talk.recv(DEADLINE_S))
            if answer.get("id") == self._count:
                if "navigated" in str(answer.get("error")):
                    raise ConnectionAbortedError(str(answer["error"]))
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found
