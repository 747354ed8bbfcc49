"""Who may ask the viewer's server, and what it tells browsers: strangers, other pages and other hosts get nothing."""

import json

import aiohttp
import pytest

from rlm_env.view.assets import script, style
from rlm_env.view.server import HEADERS, HOST, ViewServer
from rlm_env.view.workplace import Workplace


@pytest.fixture
async def server(eval_run):
    server = ViewServer(Workplace([eval_run]))
    async with server.running():
        yield server


def base(server: ViewServer) -> str:
    return f"http://{HOST}:{server.port}"


async def get(server: ViewServer, path: str, *, cookie: bool = True, method: str = "GET", **headers: str):
    cookies = {server.cookie: server.secret} if cookie else {}
    async with (
        aiohttp.ClientSession(cookies=cookies) as session,
        session.request(method, base(server) + path, headers=headers, allow_redirects=False) as reply,
    ):
        return reply.status, await reply.read(), reply.headers


async def test_the_address_opens_the_page_and_gives_the_cookie(server):
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(server.url) as reply:
            assert reply.status == 200
            assert "HttpOnly" in reply.headers["Set-Cookie"]
            assert "SameSite=Strict" in reply.headers["Set-Cookie"]
            assert server.secret not in await reply.text()
        async with session.get(f"{base(server)}/api/runs") as reply:
            assert (await reply.json())["runs"][0]["name"] == "scripted"


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/api/runs", "/raw/scripted/rlm%2Feval-0-0%2F0"])
async def test_without_the_secret_there_is_nothing(server, path):
    assert (await get(server, path))[0] == 200
    for refused in (
        await get(server, path, cookie=False),
        await get(server, path, cookie=False, Cookie=f"{server.cookie}=wrong"),
        await get(server, path + "?token=wrong", cookie=False),
        await get(server, path, Host="evil.example"),
        await get(server, path, Host=f"evil.example:{server.port}"),
        await get(server, path, **{"Sec-Fetch-Site": "cross-site"}),
        await get(server, path, **{"Sec-Fetch-Site": "same-site"}),
    ):
        assert refused[0] == 403
        assert b"rlm" not in refused[1].replace(b"rlm-env", b"")


async def test_the_token_opens_only_the_page(server):
    assert (await get(server, f"/api/runs?token={server.secret}", cookie=False))[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_can_be_changed(server, method):
    assert (await get(server, "/api/runs", method=method))[0] == 405


async def test_every_answer_has_the_headers(server):
    for path in ("/", "/api/runs", "/api/none", "/none", "/raw/none/none"):
        _, _, headers = await get(server, path)
        for name, value in HEADERS.items():
            assert headers[name] == value
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_what_is_not_there_is_404_with_a_reason(server):
    status, body, _ = await get(server, "/api/runs/none/rows")
    assert status == 404
    assert b"there is no run" in body
    for path in ("/api/runs/scripted/rollouts/..%2F..%2Fconfig.toml", "/assets/style.css", "/..%2fconfig.toml"):
        assert (await get(server, path))[0] == 404


async def test_the_record_is_the_line_of_the_file(server, eval_run):
    _, body, headers = await get(server, "/raw/scripted/rlm%2Feval-0-1%2F0")
    assert body in (eval_run / "rollouts.jsonl").read_bytes()
    assert headers["Content-Disposition"].startswith("attachment")


async def test_the_page_has_script_and_style_of_its_own(server):
    assert (await get(server, "/app.js"))[1].decode() == script()
    assert (await get(server, "/style.css"))[1].decode() == style()
    page = (await get(server, "/"))[1].decode()
    assert "http" not in page.replace("http-equiv", "")


async def test_a_mistake_of_the_viewer_is_told_and_it_goes_on(server, monkeypatch, capsys):
    monkeypatch.setattr(server.api, "runs", lambda: 1 / 0)
    status, body, headers = await get(server, "/api/runs")
    assert (status, json.loads(body)) == (500, {"error": "ZeroDivisionError: division by zero"})
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "division by zero" in capsys.readouterr().err
    assert (await get(server, "/api/runs/scripted/rows"))[0] == 200
