"""How much two names mean the same: words of `KPS_T_SALES_MD`, `SalesAmount` and `Sales_Amount__c`. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PARTS: Final = re.compile(r"[^\w]+|_+")
# Words that say what kind of thing a name is rather than which.
_FILLERS: Final = frozenset({"t", "m", "md", "tbl", "table", "tab", "mst", "trx", "txn", "fact", "dim", "c", "r"})
_SAME: Final = {
    "amt": "amount",
    "qty": "quantity",
    "desc": "description",
    "addr": "address",
    "dt": "date",
    "no": "number",
    "num": "number",
    "nbr": "number",
    "cust": "customer",
    "acct": "account",
    "tel": "phone",
    "telephone": "phone",
    "mail": "email",
    "cd": "code",
    "nm": "name",
    "stat": "status",
    "pct": "percent",
    "curr": "currency",
    "prod": "product",
    "emp": "employee",
    "dept": "department",
    "lat": "latitude",
    "lon": "longitude",
    "lng": "longitude",
    "alt": "altitude",
    "dep": "departure",
    "arr": "arrival",
    "sched": "scheduled",
}


def words(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case, long forms for usual short ones; `__c` and the like are no words."""
    bare = re.sub(r"__[a-zA-Z]$", "", name.rpartition(".")[2])
    parts = [part for piece in _PARTS.split(bare) for part in _CAMEL.split(piece) if part]
    return tuple(_SAME.get(_singular(part.lower()), _singular(part.lower())) for part in parts)


def common_prefix(names: Sequence[str]) -> tuple[str, ...]:
    """Words with which most names begin, such as an application's short name; none of fewer than three names."""
    firsts = Counter(found[0] for name in names if len(found := words(name)) > 1)
    if not firsts:
        return ()
    word, count = firsts.most_common(1)[0]
    return (word,) if count >= 3 and count > len(names) / 2 else ()


def likeness(left: str, right: str, *, prefix: Sequence[str] = ()) -> float:
    """From 0 to 1: 1 for the same words, less for words that differ or are left over."""
    one, other = _telling(left, prefix), _telling(right, prefix)
    if not one or not other:
        return 1.0 if left == right else 0.0  # marks only, such as `#` and `%`: no words that could be alike
    if one == other:
        return 1.0
    if _bare(left) == _bare(right):
        return 0.97  # `noext` and `NoExt__c`, whatever words that may be
    if "".join(one) == "".join(other):
        return 0.97
    shared = sum((Counter(one) & Counter(other)).values())
    overlap = 2 * shared / (len(one) + len(other)) if one and other else 0.0
    spelt = SequenceMatcher(None, " ".join(one), " ".join(other)).ratio()
    return min(0.95, 0.65 * overlap + 0.35 * spelt)


def _bare(name: str) -> str:
    return "".join(_PARTS.split(re.sub(r"__[a-zA-Z]$", "", name.rpartition(".")[2]))).lower()


def _telling(name: str, prefix: Sequence[str]) -> tuple[str, ...]:
    found = words(name)
    if prefix and found[: len(prefix)] == tuple(prefix) and len(found) > len(prefix):
        found = found[len(prefix) :]
    telling = tuple(word for word in found if word not in _FILLERS)
    return telling or found


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
