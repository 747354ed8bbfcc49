"""Searches and reads a web, the small local one or the open one, on behalf of the tools (`tools.py`).

Makes the requests, turns pages into lines of Markdown, and limits sizes and times. The local server is in `server.py`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from bs4 import BeautifulSoup
from markdownify import MarkdownConverter

from deepdive_rlm.server import WebServer

SERPER = "https://google.serper.dev/search"
BLOCKED = ("huggingface.co", "hf.co", "hf-mirror.com")
"""Hosts that publish the questions with their answers."""
PAGE_BYTES = 5_000_000
LINE_CHARS = 240
"""Longer lines are split at the ends of sentences."""
REDIRECTS = 5
PAGES_KEPT = 4096
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\[\"'])")
REDIRECT = (301, 302, 303, 307, 308)


class WebError(Exception):
    """There is no page or no result; the message is for the model."""


class Connections:
    """One HTTP session per event loop and the pages that were read last, for all tasks of an environment."""

    def __init__(self, *, public_only: bool) -> None:
        self.pages: OrderedDict[str, list[str]] = OrderedDict()
        self._public_only = public_only
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            resolver = PublicResolver() if self._public_only else None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, limit=64),
                timeout=aiohttp.ClientTimeout(total=60),
                headers={"User-Agent": "Mozilla/5.0 (compatible; deepdive-rlm)"},
            )
            self._loop = loop
        return self._session

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()


class Web(ABC):
    """A web to search and to read. Safe for many coroutines of one event loop at once."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @abstractmethod
    async def search(self, query: str, count: int, page: int) -> list[dict[str, Any]]:
        """Results in Serper's shape: dicts with title, link, snippet, position. Raises WebError."""

    async def read(self, url: str) -> list[str]:
        """The page as lines of Markdown, links absolute; the first one is its title. Raises WebError."""
        pages = self._connections.pages
        if url not in pages:
            pages[url] = await self._fetch(url)
            if len(pages) > PAGES_KEPT:
                pages.popitem(last=False)
        return pages[url]

    @abstractmethod
    async def _fetch(self, url: str) -> list[str]:
        """The result of `read`, without the cache."""


class LocalWeb(Web):
    """One world of the local server, under the host name that its addresses have."""

    def __init__(self, server: WebServer, host: str, connections: Connections) -> None:
        super().__init__(connections)
        self._server = server
        self._host = host

    async def search(self, query: str, count: int, page: int) -> list[dict[str, Any]]:
        body = {"q": query, "num": count, "page": page}
        async with self._connections.session.post(
            await self._address("/search"), json=body, headers={"Host": self._host}
        ) as reply:
            if reply.status != 200:
                raise WebError(await reply.text())
            return (await reply.json())["organic"]

    async def _fetch(self, url: str) -> list[str]:
        prefix, _, path = url.partition(self._host)
        if prefix != "http://" or not path.startswith("/wiki/"):
            raise WebError("there is no such page")
        async with self._connections.session.get(await self._address(path), headers={"Host": self._host}) as reply:
            if reply.status != 200:
                raise WebError("there is no such page")
            return to_lines(await reply.text(), url)

    async def _address(self, path: str) -> str:
        port = await asyncio.to_thread(self._server.start)
        return f"http://127.0.0.1:{port}{path}"


class OpenWeb(Web):
    """The open web: Serper for searching, and pages of public hosts.

    A model chooses the addresses, so only public hosts are contacted, never this one or a private network. `blocked`:
    hosts, with their subdomains, that are neither shown nor read, since they publish the answers.
    """

    def __init__(
        self, api_key: str, connections: Connections, search_url: str = SERPER, blocked: Sequence[str] = BLOCKED
    ) -> None:
        super().__init__(connections)
        self._api_key = api_key
        self._search_url = search_url
        self._blocked = tuple(blocked)

    async def search(self, query: str, count: int, page: int) -> list[dict[str, Any]]:
        body = {"q": query, "num": count, "page": page}
        try:
            async with self._connections.session.post(
                self._search_url, json=body, headers={"X-API-KEY": self._api_key}
            ) as reply:
                if reply.status != 200:
                    raise WebError(f"the search failed with status {reply.status}")
                found = (await reply.json(content_type=None)).get("organic") or []
        except (aiohttp.ClientError, ValueError, AttributeError) as error:
            raise WebError(f"the search failed ({type(error).__name__})") from None
        results = [result for result in found if isinstance(result, dict) and isinstance(result.get("link"), str)]
        return [result for result in results if not self._is_blocked(result["link"])][:count]

    async def _fetch(self, url: str) -> list[str]:
        try:
            text, is_html = await self._get(url)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise WebError(f"the page cannot be read ({type(error).__name__})") from None
        return await asyncio.to_thread(to_lines, text, url) if is_html else _part(text)

    async def _get(self, url: str) -> tuple[str, bool]:
        for _ in range(REDIRECTS):
            check_public(url)
            if self._is_blocked(url):
                raise WebError("the page is not available")
            async with self._connections.session.get(url, allow_redirects=False) as reply:
                if reply.status in REDIRECT and "Location" in reply.headers:
                    url = urljoin(url, reply.headers["Location"])
                    continue
                if reply.status != 200:
                    raise WebError(f"the page answers with status {reply.status}")
                kind = reply.content_type
                if kind not in ("text/html", "application/xhtml+xml", "text/plain", "application/json"):
                    raise WebError(f"the page is {kind}, not text")
                data = bytearray()
                async for chunk in reply.content.iter_chunked(65_536):
                    data += chunk
                    if len(data) > PAGE_BYTES:
                        raise WebError(f"the page is larger than {PAGE_BYTES:,} bytes")
                return data.decode(reply.get_encoding(), "replace"), "html" in kind
        raise WebError("the page redirects too often")

    def _is_blocked(self, url: str) -> bool:
        try:
            host = (urlsplit(url).hostname or "").rstrip(".")
        except ValueError:
            return True
        return any(host == blocked or host.endswith(f".{blocked}") for blocked in self._blocked)


class PublicResolver(aiohttp.ThreadedResolver):
    """Resolves names to public addresses only."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        found = await super().resolve(host, port, family)
        public = [entry for entry in found if _is_public(entry["host"])]
        if not public:
            raise OSError(f"{host} has no public address")
        return public


def check_public(url: str) -> None:
    """Raises WebError for an address that is none of http(s), or names a host by an address that is not public; names
    are left to the resolver."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise WebError("this is no address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WebError("an address must begin with http:// or https://")
    try:
        public = _is_public(parts.hostname)
    except ValueError:
        return
    if not public:
        raise WebError("the host is not public")


def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_global


def to_lines(html: str, url: str) -> list[str]:
    """A page as lines of Markdown without scripts, styles and empty lines; links absolute, the title first."""
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup(["script", "style", "noscript", "template", "svg"]):
        tag.decompose()
    for link in soup.find_all("a", href=True):
        link["href"] = urljoin(url, link["href"])
    title = " ".join(soup.title.get_text().split()) if soup.title else url
    text = MarkdownConverter(heading_style="ATX", escape_misc=False).convert_soup(soup.body or soup)
    return [title, *(line for line in _part(text) if line.lstrip("# ") != title)]


def _part(text: str) -> list[str]:
    """Lines without empty ones; long ones are parted where sentences end."""
    lines: list[str] = []
    for line in filter(None, (raw.strip() for raw in text.splitlines())):
        if len(line) <= LINE_CHARS:
            lines.append(line)
            continue
        part = ""
        for sentence in SENTENCE_END.split(line):
            if part and len(part) + len(sentence) >= LINE_CHARS:
                lines.append(part)
                part = sentence
            else:
                part = f"{part} {sentence}".strip()
        lines.append(part)
    return lines
