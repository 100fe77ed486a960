"""The fenced blocks of a page of Markdown.

A ``text`` block behind a ``python`` block is what it prints; three dots are anything. A comment
``<!-- not run: why -->`` stands before a block that is not run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Block", "blocks"]


class Block(NamedTuple):
    """A fenced block: its section, language, code and line; why it is not run; and what it prints."""

    section: str
    language: str
    code: str
    line: int
    not_run: str | None
    prints: str | None
    page: Path

    def compiled(self) -> Any:
        """To be evaluated; an awaitable if there is an ``await`` at the top."""
        code = "\n" * (self.line - 1) + self.code
        return compile(code, self.page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)

    def printed(self, text: str) -> bool:
        """Whether the text is what the page says that the block prints."""
        assert self.prints is not None
        pattern = re.escape(self.prints.strip()).replace(re.escape("..."), ".*")
        return re.fullmatch(pattern, text, re.DOTALL) is not None


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r"(?:<!-- not run: (?P<why>.*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
    output = re.compile(r"\n\n```text\n(.*?)^```$", re.M | re.S)
    for found in fence.finditer(text):
        before = text[: found.start("code")]
        follows = output.match(text, found.end())
        yield Block(
            section=re.findall(r"^## (.*)$", before, re.M)[-1] if "\n## " in before else "",
            language=found["language"],
            code=found["code"],
            line=before.count("\n") + 1,
            not_run=found["why"],
            prints=follows[1] if follows else None,
            page=page,
        )
