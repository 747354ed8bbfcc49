"""Serves the small web over real HTTP on 127.0.0.1, in a separate thread.

Each world is a separate host, chosen by the `Host` header: `POST /search` answers in Serper's shape, `GET /wiki/...`
returns pages. Pages are made in `pages.py`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection

from aiohttp import web

from deepdive_rlm.pages import Page, make_page
from deepdive_rlm.search import MAX_RESULTS, SearchIndex
from deepdive_rlm.world import World

WORLDS = 4
"""Most worlds that are kept ready; one takes about a second to make and 15 MB."""


class Site:
    """A world's pages and their index. `without`: addresses of pages that are taken down."""

    def __init__(self, world: World, without: Collection[str] = ()) -> None:
        self.world = world
        self.without = frozenset(without)
        pages = [make_page(world, thing) for thing in world]
        self.pages: dict[str, Page] = {page.url: page for page in pages}
        self.index = SearchIndex(pages)


class WebServer:
    """Serves worlds. `make_site(host)` returns the site of a host, or None where there is none.

    `start` returns when the server listens, and `stop` when it has ended; both may be called again.
    """

    def __init__(self, make_site: Callable[[str], Site | None]) -> None:
        self.port = 0
        self._make_site = make_site
        self._sites: OrderedDict[str, Site | None] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> int:
        """The port on 127.0.0.1."""
        with self._lock:
            if self._thread is None:
                ready = threading.Event()
                failed: list[BaseException] = []
                self._thread = threading.Thread(
                    target=self._run, args=(ready, failed), name="deepdive-web", daemon=True
                )
                self._thread.start()
                ready.wait()
                if failed:
                    self._thread = None
                    raise RuntimeError(f"the local web server did not start: {failed[0]}") from failed[0]
            return self.port

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                thread.join()
                self._sites.clear()

    def _run(self, ready: threading.Event, failed: list[BaseException]) -> None:
        loop = self._loop = asyncio.new_event_loop()
        app = web.Application()
        app.router.add_post("/search", self._search)
        app.router.add_get("/wiki/{slug}", self._page)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        try:
            loop.run_until_complete(runner.setup())
            site = web.TCPSite(runner, "127.0.0.1", 0)
            loop.run_until_complete(site.start())
            self.port = runner.addresses[0][1]
        except BaseException as error:
            failed.append(error)
            return
        finally:
            ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    def _site(self, request: web.Request) -> Site:
        host = request.host.partition(":")[0].lower()
        if host not in self._sites:
            self._sites[host] = self._make_site(host)
            while len(self._sites) > WORLDS:
                self._sites.popitem(last=False)
        self._sites.move_to_end(host)
        site = self._sites[host]
        if site is None:
            raise web.HTTPNotFound(text=f"no site {host}")
        return site

    async def _search(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            query, count, page = body["q"], int(body.get("num", 10)), int(body.get("page", 1))
            if not isinstance(query, str) or not 1 <= count <= MAX_RESULTS or not 1 <= page <= 100:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            form = f'{{"q": str, "num": 1 to {MAX_RESULTS}, "page": 1 to 100}}'
            raise web.HTTPBadRequest(text=f"the body must be {form}") from None
        site = self._site(request)
        return web.json_response(site.index.search(query, count, page, site.without))

    async def _page(self, request: web.Request) -> web.Response:
        site = self._site(request)
        url = f"http://{site.world.host}/wiki/{request.match_info['slug']}"
        page = site.pages.get(url)
        if page is None or url in site.without:
            raise web.HTTPNotFound(text="there is no such page")
        return web.Response(text=page.html, content_type="text/html")
