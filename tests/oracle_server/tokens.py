"""Oracle SQL cut into words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from tests.oracle_server.errors import OracleError, not_taught

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
    |(?P<qstring>[nN]?[qQ]'(?:\[.*?\]|\{.*?\}|<.*?>|\(.*?\)|(?P<mark>[^\s\[\{<(]).*?(?P=mark))')
    |(?P<string>[nN]?'(?:[^']|'')*')
    |(?P<quoted>"[^"]+")
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[dDfF]?)
    |(?P<bind>:\s*(?:"[^"]+"|\d+|[A-Za-z][\w$\#]*))
    |(?P<word>[^\W\d][\w$\#]*)
    |(?P<mark2>:=|<>|!=|\^=|<=|>=|\|\||\(\+\)|=>|[-+*/=<>(),.;@%])""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a statement. `text` is upper case for words, without quotes and escapes for strings."""

    kind: str
    text: str
    at: int


@lru_cache(maxsize=1024)
def tokens_of(statement: str) -> tuple[Token, ...]:
    """All words; the last one is empty. Comments, and so hints, are passed over."""
    found, at = [], 0
    while at < len(statement):
        match = _TOKEN.match(statement, at)
        if not match:
            code = 1756 if statement[at] == "'" else 911
            raise OracleError(code, position=at)
        kind, text = match.lastgroup or "", match.group()
        if match["qstring"] is not None:
            kind, text = ("nstring" if text[0] in "nN" else "string"), text.partition("'")[2][1:-2]
        elif kind == "string":
            kind, text = ("nstring" if text[0] in "nN" else "string"), text.partition("'")[2][:-1].replace("''", "'")
        elif kind == "quoted":
            text = text[1:-1]
        elif kind == "bind":
            name = text[1:].strip()
            text = name[1:-1] if name[0] == '"' else name.upper()
        elif kind == "word":
            text = text.upper()
        elif kind == "mark2":
            kind = "mark"
            if text == "(+)":
                raise not_taught("outer joins by (+)")
            text = {"!=": "<>", "^=": "<>"}.get(text, text)
        elif kind == "number" and text[-1] in "dDfF":
            kind = "binary"
        if kind != "space":
            found.append(Token(kind, text, at))
        at = match.end()
    found.append(Token("end", "", len(statement)))
    return tuple(found)
