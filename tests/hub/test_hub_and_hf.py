"""Publishing to the Environments Hub by the real `prime`, and to Hugging Face by its real client, on 127.0.0.1.

What the real command sends is recorded here: a stand-in answers it.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from rlm_env.hub.build import Built
from rlm_env.hub.places.environments_hub import EnvironmentsHub
from rlm_env.hub.project import read_project, stage_project
from rlm_env.hub.tools import ToolFailed
from rlm_env.origin import HASH_FILE
from tests.hub.conftest import PRIME
from tests.hub.servers import HubStandIn, HuggingFaceStandIn
from tests.hub.shell import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Asking(Shell):
    """A shell whose commands ask these stand-ins."""

    def __init__(self, folder: Path, hub: HubStandIn, hugging_face: HuggingFaceStandIn, path: Path, index: str) -> None:
        super().__init__(
            folder,
            PATH=f"{path}{os.pathsep}{os.environ['PATH']}",
            PRIME_API_BASE_URL=hub.url,
            PRIME_API_KEY=HubStandIn.KEY,
            PRIME_DISABLE_VERSION_CHECK="1",
            HF_ENDPOINT=hugging_face.url,
            HF_TOKEN=HuggingFaceStandIn.TOKEN,
            HF_HUB_DISABLE_XET="1",
            PIP_EXTRA_INDEX_URL=f"{index}simple/",
        )
        self.hub, self.hugging_face = hub, hugging_face


@pytest.fixture
def shell(index, prime, tmp_path):
    """A shell in which `prime`, Hugging Face's client and pip know nothing but 127.0.0.1."""
    pytest.importorskip("huggingface_hub")
    with HubStandIn() as hub, HuggingFaceStandIn() as hugging_face:
        shell = Asking(tmp_path, hub, hugging_face, prime, index)
        shell.rlm_env("new", "sent-rlm")
        yield shell


def test_a_package_is_published_to_the_hub_and_to_hugging_face(shell, tmp_path):
    assert PRIME in shell("prime", "--version")
    said = shell.rlm_env("publish", "sent-rlm", "--to", "hub", "--to", "hf", "--owner", "tester")
    assert "to install it elsewhere: prime env install tester/sent-rlm@0.1.0" in said
    _check_what_the_hub_got(shell.hub, said)
    _check_what_hugging_face_got(shell.hugging_face, said)

    url = said.partition("pip install 'sent-rlm @ ")[2].partition("'")[0]
    python = shell.venv("elsewhere") / "python"
    shell(python, "-m", "pip", "install", "--quiet", "--no-deps", f"sent-rlm @ {url}")
    assert list(python.parents[1].glob("lib/*/site-packages/sent_rlm/environment.py"))

    refused = shell.rlm_env("publish", "sent-rlm", "--to", "hub", "--to", "hf", "--owner", "tester", code=1)
    assert "the hub: sent-rlm 0.1.0 is there already. Remedy: raise the version" in refused
    assert "Hugging Face: sent-rlm 0.1.0 is there already" in refused


def _check_what_the_hub_got(hub: HubStandIn, said: str) -> None:
    api = "/api/v1/environmentshub"
    assert hub.seen == [
        f"GET {api}/tester/sent-rlm/versions",
        f"POST {api}/resolve",
        f"POST {api}/sent-rlm/wheels",
        "PUT /upload/sent_rlm-0.1.0-py3-none-any.whl",
        f"POST {api}/sent-rlm/wheels/w1/finalize",
        f"POST {api}/sent-rlm/versions",
        next(line for line in hub.seen if line.startswith("PUT /upload/sent-rlm-0.1.0-")),
        f"POST {api}/sent-rlm/versions/v1/finalize",
    ]
    bodies = [json.loads(body) for method, path, _, body in hub.requests if method == "POST" and body]
    resolve, wheel, source = bodies
    assert resolve == {"name": "sent-rlm", "visibility": "PUBLIC", "owner_slug": "tester"}
    for sent in (wheel, source):
        assert (sent["runtime_hint"], sent["semantic_version"]) == ("VERIFIERS_V1", "0.1.0")
        assert sent["metadata"]["tags"] == ["rlm", "long-context", "aggregation", "eval", "train"]
        assert (sent["metadata"]["license"], sent["metadata"]["python_requires"]) == ("Apache-2.0", ">=3.11")
        assert sent["metadata"]["requires_dist"] == ["rlm-env<0.3,>=0.2"]
    with zipfile.ZipFile(io.BytesIO(hub.uploads["/upload/sent_rlm-0.1.0-py3-none-any.whl"])) as archive:
        sha256 = archive.read(f"sent_rlm/{HASH_FILE}").decode().strip()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert f"sha256 {sha256}" in said
    with tarfile.open(fileobj=io.BytesIO(hub.uploads[f"/upload/{source['filename']}"])) as archive:
        names = archive.getnames()
    assert {"README.md", "pyproject.toml", f"sent_rlm/{HASH_FILE}", "tests/test_environment.py"} <= set(names)


def _check_what_hugging_face_got(hugging_face: HuggingFaceStandIn, said: str) -> None:
    files = hugging_face.repositories["tester/sent-rlm"]
    assert list(hugging_face.tags["tester/sent-rlm"]) == ["v0.1.0"]
    assert hugging_face.private == {"tester/sent-rlm": False}
    assert {"LICENSE", "pyproject.toml", "sent_rlm/environment.py", "dist/sent_rlm-0.1.0-py3-none-any.whl"} <= set(
        files
    )
    head, _, text = files["README.md"].decode().partition("---\n# sent-rlm")
    assert head.startswith("---\nlicense: apache-2.0\npretty_name: sent-rlm\ntags:\n- rlm-env\n- rlm\n")
    assert "### Overview" in text


def test_what_a_place_refuses_is_told_in_its_own_words(shell, tmp_path, monkeypatch):
    for name in ("HOME", "PATH", "PRIME_API_BASE_URL", "PRIME_API_KEY", "PRIME_DISABLE_VERSION_CHECK"):
        monkeypatch.setenv(name, shell.environ[name])
    staged, _ = stage_project(read_project(tmp_path / "environments" / "sent_rlm"), tmp_path / "copy")
    built = Built(tmp_path / "none.whl", tmp_path / "none.tar.gz")  # prime builds its own
    hub = EnvironmentsHub()
    assert hub.upload(staged, built) == ["to install it elsewhere: prime env install tester/sent-rlm@0.1.0"]
    with pytest.raises(ToolFailed) as refused:
        hub.upload(staged, built)
    assert "An environment version with this content hash already exists" in refused.value.said
    for owner in ("tester", None):
        assert EnvironmentsHub(owner).refusals(read_project(staged.folder))[0].rule == "published"
    monkeypatch.setenv("PRIME_API_KEY", "wrong")
    with pytest.raises(ToolFailed) as refused:
        hub.upload(staged, built)
    assert "API key unauthorized" in refused.value.said
    shell.environ["HF_TOKEN"] = "wrong"
    shell.rlm_env("publish", "sent-rlm", "--to", "hf", "--owner", "tester", code=2)
