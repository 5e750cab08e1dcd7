"""A Report as HTML: sections, escaping, the content policy."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from entropy_vision.report import Report


def render(report: Report) -> str:
    """The page as one string of HTML."""
    return f"<!doctype html><title>{html.escape(report.title)}</title>"
