"""What the tables of the audit database share: their collection, and the sizes of their columns."""

from __future__ import annotations

import sqlalchemy as sa

from forcelift.audit.types import varchar

metadata = sa.MetaData()

ID = varchar(255)
HASH = varchar(64)
WORD = varchar(40)
NAME = varchar(255)
FILE = varchar(1000)
