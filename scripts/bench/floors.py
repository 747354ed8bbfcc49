"""Lower bounds for the REPL's bench: the least code that could do the same.

A fork and a pipe; a fresh interpreter; a byte over a socket and back; plain HTTP requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator

_FORK_FLOOR = textwrap.dedent(
    """
    import gc, os, sys, socket
    import numpy, scipy, sympy
    gc.collect(); gc.freeze()
    pipe = socket.socket(fileno=int(sys.argv[1]))
    while pipe.recv(1):
        pid = os.fork()
        if pid == 0:
            pipe.send(b'%d' % eval('1 + 1'))
            os._exit(0)
        os.waitpid(pid, 0)
    """
)


class ForkFloor:
    """A zygote in ten lines: fork a child that evaluates one cell and answers over a pipe. No sandbox, no state."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", _FORK_FLOOR, str(theirs.fileno())]
        environment = {"OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._ours.send(b"x")
        self._ours.recv(8)

    async def once(self) -> None:
        self._ours.send(b"x")
        self._ours.recv(8)

    def close(self) -> None:
        self._ours.close()
        self._process.wait()


async def cold_start() -> None:
    """A fresh interpreter with the same imports and one answer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import numpy, scipy, sympy; print(2)", stdout=subprocess.PIPE
    )
    await process.communicate()


class PingPong:
    """Another process that sends back what it is sent."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        code = "import socket, sys\ns = socket.socket(fileno=int(sys.argv[1]))\nwhile d := s.recv(64): s.send(d)"
        command = [sys.executable, "-c", code, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()

    async def once(self) -> None:
        self._ours.send(b"x")
        self._ours.recv(64)

    def close(self) -> None:
        self._ours.close()
        self._process.wait()


@contextlib.asynccontextmanager
async def slow_server(seconds: float) -> AsyncIterator[str]:
    """An HTTP server in a separate process that answers each POST after `seconds`; yields its URL."""
    code = textwrap.dedent(
        f"""
        import asyncio
        from aiohttp import web
        seen = 0
        async def answer(request):
            global seen
            seen += 1
            text = await request.text()
            await asyncio.sleep({seconds})
            return web.Response(text=text)
        async def count(request):
            return web.Response(text=str(seen))
        async def main():
            app = web.Application(client_max_size=2**30)
            app.router.add_post('/', answer); app.router.add_get('/', count)
            runner = web.AppRunner(app, access_log=None); await runner.setup()
            site = web.TCPSite(runner, '127.0.0.1', 0, backlog=4096); await site.start()
            print(site._server.sockets[0].getsockname()[1], flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    port = int(await process.stdout.readline())
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        await process.wait()
