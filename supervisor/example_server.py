"""The small process behind the built-in example: a page and an echo, each on a Unix socket.

    python -P -m supervisor.example_server RUNTIME_DIR

Prints "ready" once both sockets listen, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import html
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Final

from aiohttp import web
from msgspec import Struct

from supervisor.cli import client
from supervisor.example import ECHO, ECHO_SOCKET, PAGE, PAGE_SOCKET

_READ_BYTES: Final = 64 * 1024
_ASK_S: Final = 1.0  # how long a page may wait for the supervisor, and how long an answer is good

_CONFIG: Final = """\
version: 1
routes:
  - name: web
    match: {ports: [8000]}
    action: {type: forward, targets: ["127.0.0.1:9000"]}
"""

_TEXT: Final = Template("""\
proxyctl $version is running. Workers: $workers. Supervisor: pid $pid.

This page came through it: you -> $page -> a worker -> route "page" -> a Unix socket.
An echo waits on $echo:

    echo hello | timeout 1 curl -sN telnet://$echo

What to do next
  1. Look inside             $command status
                             curl http://127.0.0.1:9901/metrics
  2. Write proxyctl.yaml:

$config
  3. Check it                $command validate proxyctl.yaml
  4. Stop this example       $command stop        (or Ctrl-C)
  5. Run your own            $command start --config proxyctl.yaml
  6. After each change       $command reload      (no connection is lost)
""")

_PAGE: Final = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>proxyctl is running</title>
<style>
:root { color-scheme: light dark;
  --line: #d5dae1; --soft: #f4f6f8; --quiet: #5b6673; --mark: #0a7d48 }
@media (prefers-color-scheme: dark) {
  :root { --line: #363d46; --soft: #1b2027; --quiet: #98a3b0; --mark: #4cc38a }
  body { background: #12161b; color: #e4e8ec }
}
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif;
  max-width: 44rem; margin: 3rem auto; padding: 0 1.25rem }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h1 span { color: var(--mark) }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem }
p { margin: .4rem 0 } .quiet { color: var(--quiet) }
dl { display: grid; grid-template-columns: repeat(3, 1fr); gap: .75rem; margin: 1.5rem 0 }
dl div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem }
dt { color: var(--quiet); font-size: .85rem } dd { margin: 0; font-size: 1.15rem; font-weight: 600 }
code, pre { font: .9rem/1.5 ui-monospace, monospace;
  background: var(--soft); border-radius: .35rem }
code { padding: .1rem .3rem }
pre { border: 1px solid var(--line); padding: .7rem .9rem; overflow-x: auto }
ol { padding-left: 1.3rem } li { margin: .5rem 0 }
</style>
</head>
<body>
<h1><span>&#9679;</span> proxyctl is running</h1>
<p class="quiet">This page came through it: you &rarr; $page &rarr; a worker &rarr;
route <code>page</code> &rarr; a Unix socket.</p>
<dl>
<div><dt>Version</dt><dd>$version</dd></div>
<div><dt>Workers</dt><dd>$workers</dd></div>
<div><dt>Supervisor pid</dt><dd>$pid</dd></div>
</dl>
<p>An echo waits on <code>$echo</code>:</p>
<pre>echo hello | timeout 1 curl -sN telnet://$echo</pre>
<h2>What to do next</h2>
<ol>
<li>Look inside: <code>$command status</code>, or the
<a href="http://127.0.0.1:9901/metrics">metrics</a>.</li>
<li>Write <code>proxyctl.yaml</code>:
<pre>$config</pre></li>
<li>Check it: <code>$command validate proxyctl.yaml</code></li>
<li>Stop this example: <code>$command stop</code>, or Ctrl-C.</li>
<li>Run your own: <code>$command start --config proxyctl.yaml</code></li>
<li>After each change: <code>$command reload</code>. No connection is lost.</li>
</ol>
</body>
</html>
""")


class _Running(Struct, frozen=True, kw_only=True):
    """What the page says of the proxy. ``pid`` is the supervisor's."""

    workers: str
    pid: int


class _Page:
    """Renders the page; asks the supervisor at most once per _ASK_S, however many look at it."""

    def __init__(self, runtime_dir: Path) -> None:
        self._runtime_dir = runtime_dir
        self._asking = asyncio.Lock()
        self._running = _Running(workers="starting", pid=os.getppid())
        self._good_until = 0.0  # of the loop's clock
        beside = Path(sys.executable).with_name("proxyctl")
        self._command = "proxyctl" if shutil.which("proxyctl") else str(beside)

    async def answer(self, request: web.Request) -> web.Response:
        """HTML for who asks for it (browsers), plain text for the rest (curl)."""
        running = await self._look()
        values = {
            "version": metadata.version("proxyctl"),
            "workers": running.workers,
            "pid": str(running.pid),
            "page": PAGE,
            "echo": ECHO,
            "command": self._command,
        }
        headers = {"Vary": "Accept", "Cache-Control": "no-store"}
        if "text/html" in ",".join(request.headers.getall("Accept", [])):
            escaped = {key: html.escape(value) for key, value in values.items()}
            body = _PAGE.substitute(escaped, config=html.escape(_CONFIG))
            return web.Response(text=body, content_type="text/html", headers=headers)
        config = "".join(f"       {line}\n" for line in _CONFIG.splitlines())
        return web.Response(text=_TEXT.substitute(values, config=config), headers=headers)

    async def _look(self) -> _Running:
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() >= self._good_until:
                self._running = await asyncio.to_thread(_ask, self._runtime_dir, self._running)
                self._good_until = loop.time() + _ASK_S
            return self._running


def _ask(runtime_dir: Path, before: _Running) -> _Running:
    """Ask the supervisor; what was known before when it does not answer in time."""
    workers = client.ask(runtime_dir, "workers", {}, _ASK_S).data.get("workers")
    if not isinstance(workers, list):
        return before
    ready = sum(1 for worker in workers if worker.get("state") == "ready")
    return _Running(workers=f"{ready} ready", pid=before.pid)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes; the client's end of stream is passed back last."""
    try:
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        writer.transport.abort()  # the client is gone, and with it whoever would read an error
        return
    finally:
        writer.close()


async def serve(runtime_dir: Path) -> None:
    """Serve page and echo until standard input ends."""
    application = web.Application()
    application.router.add_get("/{path:.*}", _Page(runtime_dir).answer)
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(runtime_dir / PAGE_SOCKET), backlog=1024).start()
        path = str(runtime_dir / ECHO_SOCKET)
        echo = await asyncio.start_unix_server(_echo, path, limit=_READ_BYTES, backlog=1024)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)
        echo.close()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
