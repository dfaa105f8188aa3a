"""Links inside the repository lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown viewers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_relative_link_leads_to_a_file_and_its_heading(link, repository: Path) -> None:
    parts = urlsplit(link.text)
    if parts.scheme:
        return
    page = repository / link.page
    target = (page.parent / parts.path).resolve() if parts.path else page
    assert target.is_relative_to(repository), f"{link} leaves the repository"
    assert target.exists(), f"{link} leads nowhere"
    if parts.fragment:
        assert parts.fragment in anchors(target), f"{link}: no such heading"
