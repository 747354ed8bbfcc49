"""Serves the page on 127.0.0.1, to the person who started it and to nobody else.

The secret in the address that is printed becomes a cookie; every other request needs it. Requests that another page
makes, or that came under another host's name, are refused. The page may load nothing from elsewhere and run no script
but its own. Only reading is served: nothing here writes, starts or changes anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import unquote

from aiohttp import web

from rlm_env.view.api import Api, NotFound
from rlm_env.view.assets import script, served_page, style
from rlm_env.view.workplace import Workplace

HOST = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
OLD_LINK = (
    "This link is of a viewer that has ended, or it lacks its secret. Open the address that rlm-env view has printed.\n"
)


class ViewServer:
    """The viewer's server. `url` is the address to open; it holds the secret."""

    def __init__(self, workplace: Workplace, port: int = 0) -> None:
        """`port` 0: a free one."""
        self.api = Api(workplace)
        self.secret = secrets.token_urlsafe(24)
        self.port = port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/?token={self.secret}"

    @property
    def cookie(self) -> str:
        """Its name has the port, since browsers share cookies between ports."""
        return f"rlm_env_view_{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves until the block is left. Raises OSError where the port is taken."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._page)
        app.router.add_get("/app.js", self._script)
        app.router.add_get("/style.css", self._style)
        app.router.add_get("/raw/{tail:.*}", self._raw)
        app.router.add_get("/api/{tail:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuses strangers; puts the headers on every answer."""
        response = self._refusal(request)
        if response is None:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.reason}\n")
            if self._has_token(request):
                response.set_cookie(self.cookie, self.secret, httponly=True, samesite="Strict", path="/")
        response.headers.update(HEADERS)
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Host") not in (f"{HOST}:{self.port}", f"localhost:{self.port}"):
            return web.Response(status=403, text="This viewer answers under its own address only.\n")
        if self._has_token(request):
            return None
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return web.Response(status=403, text="This viewer answers no other page.\n")
        if not _equal(request.cookies.get(self.cookie, ""), self.secret):
            return web.Response(status=403, text=OLD_LINK)
        return None

    def _has_token(self, request: web.Request) -> bool:
        """True for the address that was printed."""
        return request.path == "/" and _equal(request.query.get("token", ""), self.secret)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=served_page(), content_type="text/html")

    async def _script(self, request: web.Request) -> web.Response:
        return web.Response(text=script(), content_type="text/javascript")

    async def _style(self, request: web.Request) -> web.Response:
        return web.Response(text=style(), content_type="text/css")

    async def _answer(self, request: web.Request) -> web.Response:
        query = dict(request.query)

        def work() -> bytes:
            return json.dumps(self.api.get(_parts(request), query), separators=(",", ":")).encode("ascii")

        try:
            return web.Response(body=await asyncio.to_thread(work), content_type="application/json")
        except (NotFound, OSError) as error:
            return web.json_response({"error": str(error)}, status=404)
        except Exception as error:  # the page says so, and goes on
            traceback.print_exc()
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=500)

    async def _raw(self, request: web.Request) -> web.Response:
        """The line of a rollout as it is stored, to be saved."""
        run, key = [*_parts(request), "", ""][:2]
        try:
            line = await asyncio.to_thread(self.api.line, run, key)
        except (NotFound, OSError) as error:
            return web.Response(status=404, text=f"{error}\n")
        disposition = {"Content-Disposition": 'attachment; filename="rollout.json"'}
        return web.Response(body=line, content_type="application/json", headers=disposition)


def _parts(request: web.Request) -> list[str]:
    """The parts of the path behind its first one, each decoded by itself, so that a name may hold a slash."""
    return [unquote(part) for part in request.rel_url.raw_path.split("/")[2:]]


def _equal(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), secret.encode())
