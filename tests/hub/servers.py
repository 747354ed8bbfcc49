"""Places to publish to, on 127.0.0.1: a real package index, and stand-ins for the Environments Hub and Hugging Face."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def package_index(folder: Path) -> Iterator[str]:
    """A real pypiserver over an empty folder; gives its address. Uploads need no password and overwrite nothing."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pypiserver", "run", "-i", "127.0.0.1", "-p", str(port)]
    command += ["-a", ".", "-P", ".", "--disable-fallback", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}simple/"):
                break
            assert server.poll() is None, "pypiserver ended"
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(10)


class StandIn:
    """An HTTP server whose `answer` method takes (method, path, headers, body) and returns (status, headers, body).

    `requests`: all of them, in order.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                stand_in.requests.append((self.command, self.path, headers, body))
                status, extra, reply = stand_in.answer(self.command, self.path, headers, body)
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **extra}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_HEAD = do_DELETE = do_any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], Any]:
        raise NotImplementedError

    @property
    def seen(self) -> list[str]:
        """The requests as `METHOD path`."""
        return [f"{method} {path}" for method, path, _, _ in self.requests]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exception: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


class HubStandIn(StandIn):
    """The Environments Hub's API as `prime` 0.18.0 uses it. Refuses a wrong key and a content hash that it has, as the
    real one does; keeps wheels and source archives."""

    KEY = "key-of-a-test"

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.uploads: dict[str, bytes] = {}
        self._hashes: set[tuple[str, str]] = set()

    def answer(self, method, path, headers, body):
        if method == "PUT" and path.startswith("/upload/"):
            self.uploads[path] = body
            return 200, {}, {}
        if (listed := re.fullmatch(r"/api/v1/environmentshub/([^/]+)/([^/]+)/versions", path)) and method == "GET":
            name = listed[2]
            return (200, {}, {"data": {"versions": self.versions[name]}}) if name in self.versions else (404, {}, {})
        if headers.get("authorization") != f"Bearer {self.KEY}":
            return 401, {}, {"detail": "Could not validate credentials"}
        if path == "/api/v1/user/whoami":
            return 200, {}, {"data": {"id": "u1", "slug": "tester", "name": "A Tester", "email": "t@example.org"}}
        asked = json.loads(body) if body else {}
        if path == "/api/v1/environmentshub/resolve":
            created = asked["name"] not in self.versions
            self.versions.setdefault(asked["name"], [])
            owner = asked.get("owner_slug") or "tester"
            return 200, {}, {"data": {"id": asked["name"], "owner": {"name": owner}, "created": created}}
        if path.endswith("/finalize"):
            return 200, {}, {"data": {"success": True}}
        made = re.fullmatch(r"/api/v1/environmentshub/([^/]+)/(wheels|versions)", path)
        if made is None:
            return 404, {}, {"detail": "Not Found"}
        key = (made[2], asked["content_hash"])
        if key in self._hashes:
            return 409, {}, {"detail": "An environment version with this content hash already exists"}
        self._hashes.add(key)
        if made[2] == "versions":
            self.versions[made[1]].append({"version": asked["semantic_version"], "sha256": asked["content_hash"]})
        url = f"{self.url}/upload/{asked['filename']}"
        return 200, {}, {"data": {"wheel_id": "w1", "version_id": "v1", "upload_url": url}}


class HuggingFaceStandIn(StandIn):
    """The part of Hugging Face's API that creates, fills and tags a dataset repository and gives its files back.

    Refuses a wrong token, a tag that is there, a file by LFS that was not uploaded before the commit.
    """

    TOKEN = "hf_token_of_a_test"

    def __init__(self) -> None:
        super().__init__()
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.private: dict[str, bool] = {}
        self._large: dict[str, bytes] = {}

    def answer(self, method, path, headers, body):
        if method == "PUT" and path.startswith("/lfs/"):
            digest = path.removeprefix("/lfs/")
            assert hashlib.sha256(body).hexdigest() == digest
            self._large[digest] = body
            return 200, {}, {}
        if got := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            name, revision, file = got.groups()
            known = self.repositories.get(name, {}) if revision in self.tags.get(name, {}) else {}
            return (200, {"Content-Type": "application/octet-stream"}, known[file]) if file in known else (404, {}, {})
        if headers.get("authorization") != f"Bearer {self.TOKEN}":
            return 401, {}, {"error": "Invalid username or password."}
        return self._api(path, json.loads(body) if body and body[:1] == b"{" and b"\n{" not in body else {}, body)

    def _api(self, path, asked, body):
        if path == "/api/validate-yaml":
            return 200, {}, {"errors": [], "warnings": []}
        if path == "/api/whoami-v2":
            return 200, {}, {"type": "user", "name": "tester", "orgs": []}
        if path == "/api/repos/create":
            name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
            assert asked["type"] == "dataset"
            if name in self.repositories:
                return 409, {}, {"error": "You already created this dataset repo"}
            self.repositories[name], self.tags[name] = {}, {}
            self.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return 200, {}, {"url": f"{self.url}/datasets/{name}", "name": name}
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}} for one in asked["objects"]
            ]
            return 200, {"Content-Type": "application/vnd.git-lfs+json"}, {"transfer": "basic", "objects": objects}
        match = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(/.*|\?.*)?", path)
        if match is None or match[1] not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, {}
        return self._repository(match[1], (match[2] or "").partition("?")[0], asked, body)

    def _repository(self, name, rest, asked, body):
        files, tags = self.repositories[name], self.tags[name]
        if rest == "/refs":
            refs = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": at} for tag, at in tags.items()]
            return 200, {}, {"branches": [], "converts": [], "tags": refs}
        if rest.startswith("/preupload/"):
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".whl") else "regular",
                    "shouldIgnore": False,
                }
                for f in asked["files"]
            ]
            return 200, {}, {"files": modes}
        if rest.startswith("/commit/"):
            return self._commit(name, body)
        if rest.startswith("/tag/"):
            if asked["tag"] in tags:
                return 409, {}, {"error": "Tag already exists"}
            tags[asked["tag"]] = rest.removeprefix("/tag/")
            return 200, {}, {}
        if rest.startswith("/tree/"):
            listed = [
                {"type": "file", "path": path, "size": len(data), "oid": "0" * 40} for path, data in files.items()
            ]
            return 200, {}, listed
        head = hashlib.sha1(repr(sorted(files)).encode()).hexdigest()
        siblings = [{"rfilename": path} for path in files]
        return 200, {}, {"id": name, "_id": "0", "sha": head, "siblings": siblings, "private": self.private[name]}

    def _commit(self, name, body):
        import base64

        for line in body.decode().splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                if value["oid"] not in self._large:
                    return 400, {}, {"error": f"{value['path']} was not uploaded"}
                self.repositories[name][value["path"]] = self._large[value["oid"]]
            elif part["key"] == "deletedFile":
                del self.repositories[name][value["path"]]
        oid = hashlib.sha1(body).hexdigest()
        return 200, {}, {"commitOid": oid, "commitUrl": f"{self.url}/datasets/{name}/commit/{oid}", "success": True}
