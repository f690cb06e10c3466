"""README, docs and launch files as their tests see them: code blocks and what is before them, tables, links, names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown.extensions.toc import slugify
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_NOT_RUN = re.compile(r"<!-- not-run: (?P<reason>\S.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: the file.
        line: of its opening fence, from 1.
        language: `bash`, `python` or `yaml`.
        text: what is in it.
        not_run: why a test can't run it, from a comment right before it; empty: it is run.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def commands(self) -> list[str]:
        """The lines of a bash block: continued ones joined, comments dropped."""
        joined = self.text.replace("\\\n", " ")
        lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
        return [" ".join(line.split()) for line in lines if line]


def tokens(page: Path) -> list[Token]:
    """The page, parsed."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(language: str) -> list[Block]:
    """All code blocks of a language, page by page."""
    found = []
    for page in PAGES:
        before = None
        for token in tokens(page):
            if token.type == "fence" and token.info.strip() == language:
                comment = _NOT_RUN.fullmatch(before.content.strip()) if before and before.type == "html_block" else None
                assert token.map is not None
                reason = comment["reason"] if comment else ""
                found.append(Block(page, token.map[0] + 1, language, token.content, reason))
            before = token
    return found


def languages() -> set[str]:
    """Of all code blocks."""
    return {token.info.strip() for page in PAGES for token in tokens(page) if token.type == "fence"}


def table(page: Path, heading: str) -> list[list[str]]:
    """Rows below the head of the first table under a heading, cells as they are written."""
    under = False
    rows: list[list[str]] = []
    stream = iter(tokens(page))
    for token in stream:
        if token.type == "heading_open":
            under = next(stream).content == heading
        elif under and token.type == "tr_open":
            rows.append([])
        elif under and rows and token.type == "inline":
            rows[-1].append(token.content)
        elif under and token.type == "table_close":
            return rows[1:]
    raise AssertionError(f"{page.name} has no table under {heading!r}")


def inline(page: Path) -> Iterator[Token]:
    """Links, images and inline code of a page."""
    for token in tokens(page):
        yield from token.children or ()


def anchors(page: Path) -> set[str]:
    """What may follow `#` in a link to the page."""
    parsed = tokens(page)
    titles = [after.content for token, after in pairwise(parsed) if token.type == "heading_open"]
    return {slugify(title, "-") for title in titles}


def declared(name: str) -> dict[str, tuple[str | None, str]]:
    """Launch arguments of a file with default (None: computed) and description."""
    found = {}
    for node in ast.walk(ast.parse((ROOT / "launch" / name).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            default = given["default_value"]
            text = given["description"]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            description = "".join(part.value for part in parts if isinstance(part, ast.Constant))
            argument = node.args[0]
            assert isinstance(argument, ast.Constant)
            found[argument.value] = (default.value if isinstance(default, ast.Constant) else None, description)
    return found
