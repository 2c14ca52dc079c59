"""What the documentation site makes of the pages (a hook of mkdocs): the reference of the command line, and links.

The reference is written from the commands themselves, so it cannot fall behind them. Links that lead out of ``docs``,
to source files above all, work in a checkout alone: in the site their text stays, as code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")

HEAD = """# Command line

Written from the commands themselves. `tuneopt COMMAND -h` prints the same in a terminal, and
`tuneopt --install-completion` lets the shell complete commands and names.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are generated."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "cli.md", content=reference()))
    return files


def on_page_markdown(markdown: str, **about: Any) -> str:
    """Let links out of the folder be what they name."""
    return LINK.sub(lambda match: match[1] if match[1].startswith("`") else f"{match[1]}", markdown)


def reference() -> str:
    """The help of every command, as one page of Markdown."""
    return HEAD + "\n".join(f"## {path}\n\n```text\n{text.strip()}\n```\n" for path, text in helps())


def helps() -> Iterator[tuple[str, str]]:
    """Each command by its whole name, and its help at 100 columns; commands that only hold others included."""
    from typer.main import get_command

    from tuneopt.cli import app

    yield from _helps(get_command(app), None, "tuneopt")


def _helps(command: Any, parent: Any, name: str) -> Iterator[tuple[str, str]]:
    # Widths are said, so that the page is the same whatever terminal builds it.
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=100, max_content_width=100,
        help_option_names=["-h", "--help"],
    )  # fmt: skip
    yield context.command_path, command.get_help(context)
    for inner in getattr(command, "list_commands", lambda context: [])(context):
        yield from _helps(command.get_command(context, inner), context, inner)
