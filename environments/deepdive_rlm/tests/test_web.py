"""The web over real HTTP: the local server, its search, pages as lines, and what the open web is not asked for."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest
from aiohttp import web

from deepdive_rlm import DeepDive
from deepdive_rlm.client import LINE_CHARS, Connections, LocalWeb, OpenWeb, WebError, check_public, to_lines
from deepdive_rlm.search import SearchIndex
from deepdive_rlm.server import Site, WebServer
from deepdive_rlm.tools import make_tools

HOST = "eval-0.deepdive.example"


@pytest.fixture
def server():
    env = DeepDive(profile="tiny")
    server = WebServer(env.source.site)
    yield server
    server.stop()


async def ask(server: WebServer, method: str, path: str, host: str = HOST, **options) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{server.start()}{path}", headers={"Host": host}, **options) as reply,
    ):
        return reply.status, reply.content_type, await reply.text()


async def test_search_answers_in_serpers_shape(server):
    status, kind, _ = await ask(server, "POST", "/search", json={"q": "bridge", "num": 3})
    assert (status, kind) == (200, "application/json")
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}/search"
        async with session.post(url, json={"q": "bridge", "num": 3, "page": 2}, headers={"Host": HOST}) as reply:
            found = await reply.json()
    assert found["searchParameters"] == {"q": "bridge", "num": 3, "page": 2}
    assert [result["position"] for result in found["organic"]] == [4, 5, 6]
    for result in found["organic"]:
        assert result.keys() == {"title", "link", "snippet", "position"}
        assert result["link"].startswith(f"http://{HOST}/wiki/")


async def test_pages_are_html_and_hosts_are_worlds_of_their_own(server):
    world = DeepDive(profile="tiny").source.world("eval-0")
    thing = world.kinds["bridge"][0]
    status, kind, text = await ask(server, "GET", f"/wiki/{thing.slug}")
    assert (status, kind) == (200, "text/html")
    assert f"<h1>{thing.title}</h1>" in text
    for path, host in [("/wiki/nothing", HOST), (f"/wiki/{thing.slug}", "train-9.deepdive.example")]:
        assert (await ask(server, "GET", path, host))[0] == 404
    for host in ("elsewhere.example", "test-0.deepdive.example"):
        assert (await ask(server, "GET", f"/wiki/{thing.slug}", host))[0] == 404


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"q": 3}', b'{"num": 3}', b'{"q": "a", "num": 0}', b'{"q": "a", "page": "x"}', b"\xff"]
)
async def test_bad_searches_are_refused_with_the_form(server, body):
    status, _, text = await ask(server, "POST", "/search", data=body)
    assert status == 400
    assert '"num": 1 to 20' in text


async def test_the_server_can_be_stopped_and_started_again(server):
    ports = []
    for _ in range(2):
        ports.append(server.start())
        assert server.start() == ports[-1]
        assert (await ask(server, "GET", "/wiki/nothing"))[0] == 404
        server.stop()
        server.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as session:
            await session.get(f"http://127.0.0.1:{ports[0]}/wiki/nothing")


def test_searches_find_by_words_and_give_nothing_for_none():
    env = DeepDive(profile="tiny")
    site = Site(env.source.world("eval-0"))
    city = env.source.world("eval-0").kinds["city"][0]
    results = site.index.search(f"where is {city.name}?", 20)["organic"]
    assert city.title in [result["title"] for result in results[:6]]
    assert all(city.name in " ".join(site.pages[r["link"]].paragraphs) + r["title"] for r in results)
    for query in ("", "   ", "the of and", "zzzzzz", "\ud800", "a" * 10_000):
        assert site.index.search(query, 5)["organic"] == []


def test_equal_scores_keep_the_order_of_pages():
    pages = list(Site(DeepDive(profile="tiny").source.world("eval-0")).pages.values())
    twice = SearchIndex([pages[0]] * 5).search(pages[0].title, 5)["organic"]
    assert len(twice) == 5
    first, again = (SearchIndex(pages).search("museum city river", 20)["organic"] for _ in range(2))
    assert first == again


def test_pages_as_lines():
    html = """<html><head><title> A  title </title><script>var x;</script></head><body><h1>A title</h1>
    <p>One <a href="/wiki/x">link</a>.</p><p></p><style>p {}</style><ul><li>item</li></ul>""" + (
        f"<p>{'A sentence of some length. ' * 30}</p></body></html>"
    )
    lines = to_lines(html, "http://a.example/wiki/y")
    assert lines[:3] == ["A title", "One [link](http://a.example/wiki/x).", "* item"]
    assert len(lines) > 5
    assert all(len(line) <= LINE_CHARS for line in lines)
    assert to_lines("", "http://a.example") == ["http://a.example"]


@pytest.fixture
async def local():
    env = DeepDive(profile="tiny")
    task = env.tasks("eval").take(1)[0]
    yield env, task, {tool.__name__: tool for tool in env.tools(task)}
    await env.aclose()


async def test_the_tools_search_scan_and_open(local):
    _, task, tools = local
    url = task.info["evidence"][0]
    found = await tools["search_web"]("bridge", 2)
    assert found.startswith("1. ")
    assert len(found.splitlines()) == 6
    assert await tools["search_web"]("zzzz") == "No results."
    scanned = await tools["scan_page"](url)
    assert scanned.splitlines()[0].endswith(" lines)")
    assert "2: " in scanned
    assert (await tools["scan_page"](url, "nowhere | NOT TO BE confused")).splitlines()[1].endswith(").")
    assert "No line holds it." in await tools["scan_page"](url, "nowhere")
    assert (await tools["open_lines"](url, 2, 2)).startswith("2: ")
    assert "There are no such lines" in await tools["open_lines"](url, 99)
    for wrong in (url + "x", url.replace("eval", "train"), "http://127.0.0.1/wiki/x", "http://[", "nonsense", ""):
        with pytest.raises(WebError, match="no such page"):
            await tools["open_lines"](wrong)


async def test_closing_is_not_the_end(local):
    env, task, _ = local
    for _ in range(2):
        tools = env.tools(task)
        assert await tools[0]("bridge")
        await env.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://10.1.2.3/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]:8000/",
        "http://0.0.0.0/",
        "file:///etc/passwd",
        "ftp://example.org/",
        "nonsense",
        "http://",
        "http://[",
    ],
)
def test_addresses_that_are_not_public_are_not_asked(url):
    with pytest.raises(WebError, match=r"not public|must begin with|no address"):
        check_public(url)


class Everywhere(aiohttp.abc.AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host, port=0, family=0):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self):
        pass


@contextlib.asynccontextmanager
async def site_on_this_machine():
    """A site with a search, and an OpenWeb for which its host's name, www.example, leads there."""
    seen = []

    async def handle(request):
        seen.append(request)
        if request.path == "/search":
            results = [{"title": "T", "link": "http://www.example/page", "snippet": "S"}, {"title": "no link"}, "odd"]
            results += [{"title": "The answers", "link": "https://www.huggingface.co/datasets/zai-org/DeepDive"}]
            return web.json_response({"organic": results} if (await request.json())["q"] != "fail" else [])
        if request.path == "/page":
            return web.Response(text="<title>T</title><p>Text</p>", content_type="text/html")
        if request.path == "/plain":
            return web.Response(
                body="gr\u00fcn".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}
            )
        if request.path == "/moved":
            raise web.HTTPFound("/page")
        if request.path == "/inside":
            raise web.HTTPFound("http://127.0.0.1/secret")
        if request.path == "/answers":
            raise web.HTTPFound("https://huggingface.co/datasets/zai-org/DeepDive")
        if request.path == "/loop":
            raise web.HTTPFound("/loop")
        if request.path == "/large":
            return web.Response(body=b"x" * 6_000_000, content_type="text/plain")
        if request.path == "/image":
            return web.Response(body=b"x", content_type="image/png")
        raise web.HTTPNotFound

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://www.example:{runner.addresses[0][1]}"
    connections = Connections(public_only=True)
    connections._loop = asyncio.get_running_loop()
    connections._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Everywhere()))
    try:
        yield OpenWeb("the-key", connections, f"{base}/search"), base, seen
    finally:
        await connections.aclose()
        await runner.cleanup()


async def test_the_open_web_is_searched_and_read():
    async with site_on_this_machine() as (open_web, base, seen):
        assert [r["title"] for r in await open_web.search("q", 10, 1)] == ["T"]
        assert seen[0].headers["X-API-KEY"] == "the-key"
        assert await open_web.read(f"{base}/page") == ["T", "Text"]
        assert await open_web.read(f"{base}/moved") == ["T", "Text"]
        assert await open_web.read(f"{base}/plain") == ["grün"]
        asked = len(seen)
        await open_web.read(f"{base}/page")
        assert len(seen) == asked, "pages are kept"
        assert all("the-key" not in str(request.headers) for request in seen[1:])
        for path, message in [
            ("/inside", "not public"),
            ("/answers", "not available"),
            ("/loop", "too often"),
            ("/large", "larger than"),
            ("/image", "is image/png, not text"),
            ("/nothing", "status 404"),
        ]:
            with pytest.raises(WebError, match=message):
                await open_web.read(base + path)
        with pytest.raises(WebError, match="the search failed") as error:
            await open_web.search("fail", 10, 1)
        assert "the-key" not in str(error.value)


async def test_names_of_this_machine_are_not_resolved():
    connections = Connections(public_only=True)
    open_web = OpenWeb("key", connections)
    try:
        with pytest.raises(WebError, match="cannot be read"):
            await open_web.read("http://localhost:1/")
    finally:
        await connections.aclose()


def test_the_open_web_needs_a_key(monkeypatch, tmp_path):
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    rows = tmp_path / "qa_rl.jsonl"
    rows.write_text('{"id": 1, "question": "Who?", "answer": "Ada", "conversations": []}\n')
    env = DeepDive(dataset="hub", files=rows)
    (task,) = env.tasks("train").take(5)
    with pytest.raises(ValueError, match="SERPER_API_KEY holds no key"):
        env.tools(task)
    monkeypatch.setenv("SERPER_API_KEY", "k")
    assert [tool.__name__ for tool in env.tools(task)] == ["search_web", "scan_page", "open_lines"]


async def test_local_and_open_webs_have_the_same_tools(server):
    connections = Connections(public_only=False)
    names = [
        [tool.__name__ for tool in make_tools(w)]
        for w in (LocalWeb(server, HOST, connections), OpenWeb("k", connections))
    ]
    assert names[0] == names[1] == ["search_web", "scan_page", "open_lines"]
    await connections.aclose()
