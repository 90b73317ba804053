"""The org's records as rows of canonical text: what is asked for, and how an answer is read.

Reads:   pages of bulk queries (CSV) and records of REST queries (JSON).
Gives:   `id`, `made` (seconds since 1970 in UTC) and the table's fields under the names that the plan sends them by.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from forcelift.errors import OrgUnavailable, TargetError
from forcelift.jobs.work import TableWork
from forcelift.protocols.org import FieldDescribe, ObjectDescribe, Org
from forcelift.rules import add_hashes, canonical_from_org

IDS_PER_QUERY = 240
_HEAD_BYTES_MAX = 6_500  # of 16,384 of URL and headers; the Ids take up to 6,500, a token that is a JWT 2,000


class OrgColumn(Struct, frozen=True, kw_only=True):
    """A field that the plan fills: under which name it is sent, how it is asked for, and what type it has."""

    name: str
    path: str
    field: FieldDescribe


class OrgShape(Struct, frozen=True, kw_only=True):
    """How the records of one table's object are asked for and read.

    Attributes:
        columns: The key and all fields that the plan fills, each once.
        unasked: Fields that no query can give as they were sent, with the reason.
    """

    work: TableWork
    columns: tuple[OrgColumn, ...]
    unasked: Mapping[str, str]

    @classmethod
    def of(
        cls, work: TableWork, describe: ObjectDescribe, parent_keys: Mapping[tuple[str, str], FieldDescribe]
    ) -> OrgShape:
        """From the compiled rules and the object's describe."""
        rules = work.rules
        lookups = {lookup.target: lookup for lookup in rules.lookups.values()}
        columns: dict[str, OrgColumn] = {}
        unasked: dict[str, str] = {}
        for name in dict.fromkeys([rules.key_field, *rules.target_columns, *rules.link_target_columns]):
            lookup = lookups.get(name)
            if lookup is None:
                columns[name] = OrgColumn(name=name, path=name, field=describe.fields[name])
            elif ":" in name:
                unasked[name] = "a lookup to several objects: no bulk query gives the key of such a parent"
            else:
                field = parent_keys[lookup.parent_object, lookup.key_field]
                columns[name] = OrgColumn(name=name, path=name, field=field)
        return cls(work=work, columns=tuple(columns.values()), unasked=unasked)

    def narrowed(self, names: Collection[str]) -> OrgShape:
        """The same records with their key and these fields alone: less to ask for, and no hash can be made of it."""
        columns = tuple(one for one in self.columns if one.name == self.key_field or one.name in names)
        return replace(self, columns=columns)

    @property
    def object(self) -> str:
        """API name of the object."""
        return self.work.spec.object

    @property
    def key_field(self) -> str:
        """The field that holds the key."""
        return self.work.rules.key_field

    def soql(self) -> str:
        """All records of the object. No ORDER BY and no LIMIT: they would switch the org's chunking off."""
        return (
            f"SELECT {', '.join(['Id', 'CreatedDate', *(column.path for column in self.columns)])} FROM {self.object}"
        )

    def page_rows(self, page: bytes) -> pl.DataFrame:
        """One page of `soql()` as rows; see the module."""
        frame = pl.read_csv(io.BytesIO(page), infer_schema=False)
        names = ["Id", "CreatedDate", *(column.path for column in self.columns)]
        if [name.lower() for name in frame.columns] != [name.lower() for name in names]:
            raise OrgUnavailable(
                f"a page of the bulk query of `{self.object}` has other columns than were asked for",
                state="nothing was changed in the org",
                hint="run the same command again",
            )
        frame.columns = names
        return self._rows(frame)

    def _rows(self, texts: pl.DataFrame) -> pl.DataFrame:
        made = texts["CreatedDate"].str.slice(0, 19).str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False)
        return pl.DataFrame(
            [
                texts["Id"].alias("id"),
                made.dt.epoch("s").alias("made"),
                *(canonical_from_org(one.field, texts[one.path]).alias(one.name) for one in self.columns),
            ]
        )

    def hashes(self, rows: pl.DataFrame) -> pl.Series:
        """The row hash of each record, as the ledger would hold it had the record been sent like this."""
        load = self.work.rules.hash_rows(rows)
        if not self.work.rules.link_target_columns:
            return load.alias("hash")
        return add_hashes(load, self.work.rules.hash_links(rows)).alias("hash")

    def fetch(self, org: Org, ids: Sequence[str]) -> pl.DataFrame:
        """Records by Id, as they are now, by REST: the columns of `page_rows`, and `modified` as the org prints it."""
        found: pl.DataFrame | None = None
        for columns in self._portions():
            records = [
                record
                for start in range(0, len(ids), IDS_PER_QUERY)
                for record in org.query(self._by_id(columns, ids[start : start + IDS_PER_QUERY]))
            ]
            names = dict.fromkeys(["Id", "CreatedDate", *(column.path for column in columns)])
            texts = {name: [_text(record, name) for record in records] for name in names}
            texts["modified"] = [_text(record, "LastModifiedDate") for record in records]
            part = pl.DataFrame(texts, schema=dict.fromkeys(texts, pl.String))
            if found is None:
                found = part
            else:
                found = found.join(part.drop("CreatedDate", "modified"), on="Id", how="inner", maintain_order="left")
        assert found is not None
        return self._rows(found).with_columns(found["modified"])

    def _portions(self) -> Iterator[list[OrgColumn]]:
        """The columns, as many at a time as fit into the URL of a query."""
        part: list[OrgColumn] = []
        used = 0
        for column in self.columns:
            size = len(quote(column.path, safe="")) + 6
            if part and used + size > _HEAD_BYTES_MAX:
                yield part
                part, used = [], 0
            part.append(column)
            used += size
        yield part

    def _by_id(self, columns: Sequence[OrgColumn], ids: Sequence[str]) -> str:
        wrong = sum(not one.isascii() or not one.isalnum() for one in ids)
        if wrong:
            raise TargetError(
                f"{wrong} Ids in the ledger of `{self.work.plan.table}` are none",
                state="nothing was asked",
                hint="check the ledger by `forcelift audit verify`",
            )
        listed = ",".join(f"'{one}'" for one in ids)
        names = dict.fromkeys(["Id", "CreatedDate", "LastModifiedDate", *(column.path for column in columns)])
        return f"SELECT {', '.join(names)} FROM {self.object} WHERE Id IN ({listed})"


def _text(record: Mapping[str, Any], path: str) -> str | None:
    """A value of a REST answer as a bulk query would print it; parents are nested."""
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
