"""Keeps text in CSV files from being run as a formula by a spreadsheet (OWASP, CSV injection)."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")


def spreadsheet_text(words: str) -> str:
    """The words, after an apostrophe where a spreadsheet would take them for a formula.

    For columns of text; a number keeps its minus sign.
    """
    return f"'{words}" if _FORMULA.match(words) else words
