"""Writes the address of the repository into what a release shows: [project.urls], and the links of README.md.

python scripts/release_addresses.py https://github.com/OWNER/NAME v0.2.0

The sources name no address, because a copy may lie anywhere; `.github/workflows/release.yml` knows where it runs. On
the page of a package index a relative link leads nowhere and a relative picture is not shown, so both become addresses
of the tag. It changes files in place, once: for a checkout that is built and thrown away.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
"""A relative link or picture: path, anchor."""
URLS = "[project.urls]\n"
PICTURES = (".svg", ".png")


def absolute_links(readme: str, address: str, tag: str) -> str:
    """A page whose relative links lead to the files of a tag. Code blocks stay as they are."""

    def moved(found: re.Match[str]) -> str:
        form = "raw" if found[1].endswith(PICTURES) else "blob"
        return f"{address}/{form}/{tag}/{found[1]}{found[2] or ''}"

    parts = re.split(r"(^```.*?^```$)", readme, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


def with_urls(pyproject: str, address: str, tag: str) -> str:
    """A pyproject.toml that says where the repository is."""
    urls = {
        "Homepage": address,
        "Documentation": f"{address}/blob/{tag}/docs/index.md",
        "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
    lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    if URLS in pyproject:
        return pyproject.replace(URLS, URLS + lines)
    return f"{pyproject.rstrip()}\n\n{URLS}{lines}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of the repository, such as https://github.com/OWNER/NAME")
    parser.add_argument("tag", help="what is released")
    arguments = parser.parse_args()
    address = arguments.address.rstrip("/")
    readme = ROOT / "README.md"
    readme.write_text(absolute_links(readme.read_text("utf-8"), address, arguments.tag), "utf-8")
    for path in (ROOT / "pyproject.toml", *ROOT.glob("environments/*/pyproject.toml")):
        path.write_text(with_urls(path.read_text("utf-8"), address, arguments.tag), "utf-8")


if __name__ == "__main__":
    main()
