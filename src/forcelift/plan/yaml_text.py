"""From the bytes of a plan file to a tree of YAML nodes that still know their text, line and column.

Reads:   one file, once.
Raises:  `PlanError` with the line, for everything that is not one YAML 1.2 document in UTF-8.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLStreamError
from ruamel.yaml.nodes import Node

from forcelift.errors import PlanError, Problem, UsageError

# A plan of a thousand tables is about a megabyte; what is far larger is another file given by mistake.
PLAN_BYTES_MAX = 16 * 1024 * 1024
# The deepest place of a plan lies seven levels down; the rest is room for `notify`.
DEPTH_MAX = 40


def read_text(path: Path) -> str:
    """The file's text, without a byte order mark and with line ends as they are.

    Raises:
        UsageError: The file cannot be read.
        PlanError: It is too large or not UTF-8; names the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(PLAN_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no plan file `{path}`",
            state="nothing was read or written",
            hint="name the plan with `--plan FILE`, or go to the folder that holds `forcelift.yaml`",
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"the plan file `{path}` cannot be read: {reason}",
            state="nothing was read or written",
            hint="name a file that you may read with `--plan FILE`",
        ) from error
    if len(content) > PLAN_BYTES_MAX:
        _refuse(path, f"the file is larger than {PLAN_BYTES_MAX // 2**20} MB, which no plan is", line=None, column=None)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        _refuse(path, "the file is not UTF-8 here", line=line, column=column, hint="save the plan as UTF-8")


def compose(text: str, path: Path) -> Node:
    """The root node of the one document in `text`.

    Raises:
        PlanError: A fault of syntax, an empty file, or several documents; names the line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = DEPTH_MAX
    # An anchor may be used twice in YAML 1.2; a warning would reach the user without a file or a line.
    yaml.composer.warn_double_anchors = False
    try:
        root = yaml.compose(text)
    except RecursionError:
        _refuse(path, f"the file is nested deeper than {DEPTH_MAX} levels", line=None, column=None)
    except MarkedYAMLError as error:
        # Of a quote that never closes, the place where it opens is what helps.
        is_open_quote = "quoted scalar" in str(error.context)
        mark = (error.context_mark if is_open_quote else None) or error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        column = None if mark is None else mark.column + 1
        message, hint = _syntax_sentence(error, text, line)
        _refuse(path, message, line=line, column=column, hint=hint)
    except (YAMLError, YAMLStreamError) as error:
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        _refuse(path, "the file holds a character that YAML does not allow", line=line, column=None)
    except (ValueError, AssertionError, AttributeError, TypeError, IndexError, KeyError) as error:
        # The parser itself stumbles over some texts that are no YAML (a version of four digits in %YAML, say).
        raise PlanError([Problem(message="the file is not YAML", line=1, column=1)], file=str(path)) from error
    if root is None:
        _refuse(path, "the file is empty", line=1, column=1, hint="docs/reference/plan-file.md shows a whole plan")
    assert isinstance(root, Node)
    return root


def _syntax_sentence(error: MarkedYAMLError, text: str, line: int | None) -> tuple[str, str | None]:
    """What is wrong, in words of the person who wrote the file, and what to do about it."""
    problem = str(error.problem or error.context or "not YAML")
    lines = text.splitlines()
    source_line = lines[line - 1] if line is not None and line <= len(lines) else ""
    if "\\t" in problem:
        return "a tab stands where YAML wants blanks", "indent with blanks"
    if "another document" in problem:
        return "the file holds a second document (`---`)", "one file is one plan"
    if "undefined alias" in problem:
        # The alias is not repeated: it may be a password that begins with an asterisk.
        return "an alias (`*...`) stands here and no anchor of that name before it", "quote a text that begins with `*`"
    if "mapping values are not allowed" in problem:
        return "a `:` stands where no key can be", "put a text that holds `: ` into quotes, and check the indentation"
    if "maximum depth" in problem:
        return f"the file is nested deeper than {DEPTH_MAX} levels", None
    if re.search(r"[\[{].*\$\{", source_line):
        return "inside `{...}` and `[...]` a `${ENV}` must be quoted", 'write `"${ENV}"`'
    if "quoted scalar" in str(error.context) and "end of stream" in problem:
        return "a quote that opens here is never closed", None
    if "cannot start any token" in problem:
        sign = problem.removeprefix("found character ").partition(" ")[0].strip("'")
        return f"a text cannot begin with `{sign}`", "put the text into quotes"
    # The parser's words, without the pieces of the file that it would quote in its notes.
    return f"the file is not YAML here: {problem}", "check quotes, brackets and indentation"


def _refuse(path: Path, message: str, *, line: int | None, column: int | None, hint: str | None = None) -> NoReturn:
    raise PlanError([Problem(message=message, line=line, column=column, hint=hint)], file=str(path)) from None
