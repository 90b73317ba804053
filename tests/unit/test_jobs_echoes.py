"""What the org's messages repeat of their own record does not stay in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
import pytest

from forcelift.jobs.echoes import without_values


def masked(messages: Sequence[str | None], values: Mapping[str, Sequence[str | None]]) -> list[str | None]:
    errors = [None if message is None else f"CODE:{message}:--" for message in messages]
    rows = pl.DataFrame({"sf__Id": [None] * len(errors), "sf__Error": errors, **values}).cast(pl.String)
    return without_values(
        pl.Series("message", messages, dtype=pl.String), rows=rows, columns=list(values), null_text="#N/A"
    ).to_list()


@pytest.mark.parametrize(
    ("message", "value", "wanted"),
    [
        ("Somchai Jaidee is blocked", "Somchai Jaidee", "<value> is blocked"),
        ("SOMCHAI JAIDEE, again: somchai jaidee", "Somchai Jaidee", "<value>, again: <value>"),
        ("ลูกค้าสมชายถูกระงับ", "สมชาย", "ลูกค้า<value>ถูกระงับ"),
        ("(a.b) [c] \\1 $& here", "(a.b) [c] \\1 $&", "<value> here"),
        ("line one\nline two: no", "line one\nline two", "<value>: no"),
        ('said "no", twice', 'said "no"', "<value>, twice"),
        ("Ann calls Anna", "Ann", "<value> calls Anna"),
        ("a plain message", "a", "a plain message"),
        ("a plain message", "#N/A", "a plain message"),
        ("field #N/A is bad", "#N/A", "field #N/A is bad"),
        ("a plain message", None, "a plain message"),
        ("a plain message", "   ", "a plain message"),
        ("a plain message", "something else", "a plain message"),
        (None, "something", None),
        ("O&#39;Brien &amp; Sons is blocked", "O'Brien & Sons", "<value> is blocked"),
        ("&lt;b&gt;Somchai&lt;/b&gt; is blocked", "<b>Somchai</b>", "<value> is blocked"),
        ("a &amp;amp; b &amp;quot;x&amp;quot;", 'b "x"', "a & <value>"),
        ("AT&amp;T here", "AT&amp;T", "<value> here"),
        ("1 &lt; 2 and more", "absent text", "1 &lt; 2 and more"),
        ("'Somchai Jaid...' is too long", "Somchai Jaidee of Bangkok", "'<value>...' is too long"),
        ("too long: Somchai J", "Somchai Jaidee", "too long: <value>"),
        ("bad value SOMCHAI JAIDEE OF BANGK is cut", "Somchai Jaidee of Bangkok", "bad value <value> is cut"),
        ("Customer is blocked", "Customer ABC Ltd", "Customer is blocked"),
        ("ชื่อ “สมชาย ใจดี แห่งกรุ” ยาวไป", "สมชาย ใจดี แห่งกรุงเทพ", "ชื่อ “<value>” ยาวไป"),
        ("สมชาย ใจดก...", "สมชาย ใจดี", "<value>ก..."),
        ("value value", "value", "<value> <value>"),
        ("at Date, at", "at", "<value> Date, <value>"),
        ("İstanbul is Somchai Jaidee", "Somchai Jaidee", "İstanbul is <value>"),
        ("Somchai Jaidee, Somchai Jaid.", "Somchai Jaidee", "<value>, <value>."),
    ],
)
def test_a_value_that_a_message_repeats(message: str | None, value: str | None, wanted: str | None) -> None:
    assert masked([message], {"Name": [value]}) == [wanted]


def test_a_shorter_value_inside_a_longer_one_leaves_nothing_of_it() -> None:
    values = {"First__c": ["Somchai"], "Name": ["Somchai Jaidee"]}
    assert masked(["Somchai Jaidee and Somchai"], values) == ["<value> and <value>"]


def test_each_message_is_looked_at_with_its_own_record() -> None:
    values = {"Name": ["Alpha", "Beta", "Gamma"], "Town__c": ["Delta", None, "Alpha"]}
    messages = ["Alpha of Delta", "Alpha is not Beta", "nothing"]
    assert masked(messages, values) == ["<value> of <value>", "Alpha is not <value>", "nothing"]


def test_nothing_personal_leaves_messages_as_they_are() -> None:
    messages = pl.Series("message", ["Alpha"])
    assert without_values(messages, rows=pl.DataFrame(), columns=[], null_text="") is messages
