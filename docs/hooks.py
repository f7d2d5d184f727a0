"""What MkDocs asks on its way: pages that lie outside docs/ become part of the site, and links that work in the repository work there too.

A link in a page is written as the repository needs it, relative to the page's file: ``../CONTRIBUTING.md``, ``../examples/own_loop.py``.
In the site it leads to the page made of that file, or to a copy of the file; a link to a folder becomes text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = Path(__file__).resolve().parent
# Files of the repository that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "examples/ros2_node.md": "ros2_node.md",
}
# Where copies of other files of the repository lie in the site.
COPIES = "repository"
# A block of code, code in a line, or [text](address#anchor); what comes first wins, and code and addresses with a scheme are left alone.
LINK = re.compile(r"^```.*?^```$|`[^`\n]+`|\[(?P<text>[^\]]*)\]\((?P<address>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page into the site's."""
    source = Path(page.file.abs_src_path or DOCS / page.file.src_uri)

    def site_link(found: re.Match[str]) -> str:
        if not found["address"]:
            return found[0]
        target = (source.parent / found["address"]).resolve()
        if not target.is_relative_to(REPOSITORY) or not target.exists():
            return found[0]  # MkDocs names it
        if target.is_dir():
            return found["text"]
        place = _place(target, config, files)
        return f"[{found['text']}]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{found['anchor'] or ''})"

    return LINK.sub(site_link, markdown)


def _place(target: Path, config: MkDocsConfig, files: Files) -> str:
    """Where a file of the repository is in the site; a copy is made of what has no place there yet."""
    name = target.relative_to(REPOSITORY).as_posix()
    if known := PAGES.get(name):
        return known
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    place = f"{COPIES}/{name}"
    if files.get_file_from_path(place) is None:
        files.append(File.generated(config, place, abs_src_path=str(target)))
    return place
