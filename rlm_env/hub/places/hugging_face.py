"""Hugging Face: a dataset repository with the sources, the wheel in a folder dist, and a tag for each version."""

from __future__ import annotations

import shutil

from rlm_env.hub.build import Built
from rlm_env.hub.findings import Finding
from rlm_env.hub.places.base import Place, already_there, unresolved_core
from rlm_env.hub.project import Project
from rlm_env.hub.tools import ToolFailed, require_modules
from rlm_env.readable.words import start_of
from rlm_env.runs.errors import ConfigError

REPO_TYPE = "dataset"
README = "README.md"
LONGEST = 300
"""Characters of an error that are shown."""


class HuggingFace(Place):
    """The Hugging Face Hub, by the login of its own tools (`hf auth login`, or `HF_TOKEN`).

    `owner`: a user or organization (None: whose login it is). `HF_ENDPOINT` leads elsewhere.
    """

    name = "hf"

    def __init__(self, owner: str | None = None, *, private: bool = False) -> None:
        self._owner, self._private = owner, private

    def refusals(self, project: Project) -> list[Finding]:
        require_modules("huggingface_hub")
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            tags = _api().list_repo_refs(self._repository(project), repo_type=REPO_TYPE).tags
        except RepositoryNotFoundError:
            tags = []
        except Exception as error:
            raise ToolFailed("asking Hugging Face", _in_a_line(error)) from error
        there = f"v{project.version}" in {tag.name for tag in tags}
        return [already_there(project, "Hugging Face")] * there + unresolved_core(project, "Hugging Face")

    def upload(self, staged: Project, built: Built) -> list[str]:
        repository, tag = self._repository(staged), f"v{staged.version}"
        (staged.folder / "dist").mkdir(exist_ok=True)
        shutil.copy(built.wheel, staged.folder / "dist")
        readme = staged.folder / README
        readme.write_text(card(staged, readme.read_text("utf-8")), "utf-8")
        api = _api()
        try:
            api.create_repo(repository, repo_type=REPO_TYPE, private=self._private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                repo_type=REPO_TYPE,
                folder_path=staged.folder,
                commit_message=f"{staged.name} {staged.version}",
                delete_patterns="*",
            )
            api.create_tag(repository, repo_type=REPO_TYPE, tag=tag, revision=commit.oid)
        except Exception as error:
            raise ToolFailed("uploading to Hugging Face", _in_a_line(error)) from error
        url = f"{api.endpoint}/datasets/{repository}/resolve/{tag}/dist/{built.wheel.name}"
        return [f"to install it elsewhere: pip install '{staged.name} @ {url}'"]

    def _repository(self, project: Project) -> str:
        if self._owner is None:
            try:
                self._owner = _api().whoami()["name"]
            except Exception as error:
                remedy = "run hf auth login, set HF_TOKEN, or name the owner by --owner"
                raise ConfigError(f"Hugging Face does not say who you are ({_in_a_line(error)}): {remedy}") from error
        return f"{self._owner}/{project.name}"


def card(project: Project, readme: str) -> str:
    """The README with the head that Hugging Face reads: license and tags."""
    license_id = str(project.metadata.get("license", "other")).lower()
    tags = "".join(f"- {tag}\n" for tag in dict.fromkeys(["rlm-env", *project.metadata.get("tags", [])]))
    return f"---\nlicense: {license_id}\npretty_name: {project.name}\ntags:\n{tags}---\n{readme}"


def _in_a_line(error: Exception) -> str:
    """The client's words, which come in several lines with advice of its own."""
    return f"{type(error).__name__}: {start_of(error, LONGEST)}"


def _api():  # noqa: ANN202 - huggingface_hub is imported only here
    from huggingface_hub import HfApi

    return HfApi()
