"""The reference page and the JSON Schema of the plan file, made from the models: `python -m forcelift.plan.reference`.

Writes:  `plan-file.md` and `plan.schema.json` into the folder given, by default `docs/reference`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from forcelift.plan import models
from forcelift.plan.expressions import DEPTH_MAX, EXPRESSIONS, SCALE_MAX
from forcelift.plan.json_schema import schema_text
from forcelift.plan.sentences import expected
from forcelift.plan.shape import alternatives
from forcelift.plan.thresholds import THRESHOLDS

# Section titles and models in the order of the file; rules have a section of their own.
_SECTIONS: Sequence[tuple[str, type[BaseModel]]] = (
    ("Top level", models.Plan),
    ("`source`", models.SourceSettings),
    ("`source.limits`", models.SourceLimits),
    ("`target`", models.TargetSettings),
    ("`target.auth`", models.Auth),
    ("`audit`", models.AuditSettings),
    ("`retention`", models.Retention),
    ("`tables`: each table", models.TablePlan),
    ("`tables`: each column in `fields`", models.FieldRule),
    ("`tables`: each of `checks`", models.Check),
    ("`chunks`", models.Chunks),
    ("`limits`", models.Limits),
    ("`prepare`", models.Prepare),
    ("`roles`", models.Roles),
)

# The rules in the order in which they act on a row, with the model that holds each.
_RULES: Sequence[tuple[str, type[BaseModel]]] = (
    ("null_key", models.TablePlan),
    ("duplicates", models.TablePlan),
    ("encoding_error", models.FieldRule),
    ("outer_blanks", models.FieldRule),
    ("values", models.FieldRule),
    ("unmapped", models.FieldRule),
    ("empty", models.FieldRule),
    ("na_text", models.FieldRule),
    ("control_characters", models.FieldRule),
    ("zero_width", models.FieldRule),
    ("unicode", models.FieldRule),
    ("invalid_date", models.FieldRule),
    ("buddhist_era", models.FieldRule),
    ("future_date", models.FieldRule),
    ("negative", models.FieldRule),
    ("number_size", models.FieldRule),
    ("too_long", models.FieldRule),
    ("missing_parent", models.FieldRule),
)

_INTRODUCTION = """\
# The plan file

<!-- Made by `python -m forcelift.plan.reference` from the models; change the models, not this page. -->

One YAML file says where rows come from, where they go, and what is done to them on the way. Commands read
`forcelift.yaml` in the current folder, or the file that `--plan` names. [plan.schema.json](plan.schema.json) is its
JSON Schema; an editor checks a plan against it with this line at the top of the plan:

```yaml
# yaml-language-server: $schema=plan.schema.json
```

A plan is read as a whole: all problems are listed at once, each with its line, and nothing is read or written
before they are mended (exit code 2).

## An example

```yaml
{example}```
"""

_READING = """\
## How the file is read

- It is YAML 1.2 in UTF-8, one document. `yes`, `no`, `on` and `off` are texts. Anchors, aliases and `<<` work; tags
  (`!...`) are refused. Inside `{...}` and `[...]` a `${ENV}`, and anything with a comma, must be quoted.
- A name is the very text in the file: the table `012` is `012`. So are keys and values of `values`, `default`,
  constants, texts and `tolerance`: `Y`, `012`, `1.0` and `null` are texts there, quoted or not.
- A key that does not exist is refused, with the nearest one that does; so is a key given twice.
- Relative paths start at the folder of the plan file. `~` is the home folder.

## Secrets

`password`, `client_secret`, `private_key`, `access_token`, and whatever is secret in the URLs of source, audit
database and notifications, never stand in the plan. They are written as one of

- `${ENV}`: the environment variable, which must be set and not empty. Inside a URL it stands in the place of the
  secret part (`postgresql://loader:${DB_PASSWORD}@host/db`) and is escaped as URLs want it, or it is the whole URL,
  which then must be escaped already.
- `file:PATH`: the file's content in UTF-8 without line ends at its end, at most 64 KiB. A file that others can read
  gives a warning.

A secret that is written out is refused, without being shown. `user`, `client_id` and `username` take both forms,
too, and may be written out; as their values are shown, a variable that is a secret by its name is refused there.
Everywhere else `${...}` stays as it stands, with a warning.

## URLs

| url | where | form |
| --- | --- | --- |
| `oracle://host/service` | source, audit | with `user` and `password`, or `oracle://user:${DB_PASSWORD}@host/service` |
| `postgresql://host/db` | source, audit | the same |
| `sqlite:///path` | source, audit | three slashes before a relative path, four before an absolute one |
| `duckdb:///path` | source | the same |
| `files:./folder` | source | a folder of CSV or Parquet files, one table each |
| `https://NAME.my.salesforce.com` | target | host only |
| `http://127.0.0.1:8080` | target | a twin on this machine |
| `twin:./org.duckdb` | target | a twin inside the process |
| `s3://bucket/prefix` | staging | instead of a folder; credentials come from the environment |

## Keys and the external ID

`key` names one column or several. Their canonical text fills `external_id`; several are joined with `|`, where `|`
and `\\` inside a part are escaped with `\\`. A part that is null or only blanks makes the whole key null. A key
longer than the field is rejected, never cut. With one key column, that column may be mapped onto `external_id` or
left out of it; nothing else may fill the field, and with several columns nothing at all.

A lookup is written `Relationship.ExternalId` with the parent's table in `parent`. Parents are loaded first; lookups
to the same table or in a circle are sent in a second pass.

## Computed fields

`computed` gives a field one expression. An operand of it is a column's name (or `{column: NAME}`), `{text: TEXT}`,
`{number: N}`, or another expression; they nest {depth} deep at most. Columns need not be in `fields`; a column that is
there counts with its cleaned value, as its own field stores it.

| expression | gives |
| --- | --- |
| `{concat}` | the operands one after the other, of which a null one is empty text |
| `{coalesce}` | the first operand that is not null or blank |
| `{part}` | characters from that place on (1 is the first), all the rest without `length` |
| `{part: {column: A, split: "-", take: 2}}` | that piece between separators, -1 is the last; null if there are fewer |
| `{letters}` | `upper`, `lower` or `title` case |
| `{case}` | the text that `when` has for the very text; `else` for all others and null |
| `{add}` | the exact sum |
| `{subtract}` | the first less all others |
| `{multiply}` | the exact product |
| `{divide}` | the quotient, rounded half away from zero to `scale` digits (0 to {scale}) after the point |

`else` is a text, `{column: NAME}` or an expression; without it the result is null. Characters are Unicode code points.
Numbers are exact decimals of up to 19 digits before the point; what needs more is rejected (`REJECTED_ARITHMETIC`).
Operands are taken with 18 digits after the point, rounded half away from zero. A text that is no number is rejected
(`REJECTED_INVALID_NUMBER`), and so is a division by zero (`REJECTED_DIVISION_BY_ZERO`). A null number makes the result
null. The result is then treated as a value of the source: it is trimmed, and the rules of its field's type apply with
their defaults, so that a text that is too long or no date is rejected.

## Constants

A constant is a text, `{record_type: NAME}` on `RecordTypeId`, or `{owner: USERNAME}` on `OwnerId` or another lookup of
users.

## Copies of a key merged into one

Under `duplicates: merge` all rows of one key become one. The latest copy by `changed_at` goes on, null is oldest, or
without `changed_at` the first by the canonical text of its columns; the others are `duplicate`. It takes the values
that `merge` chooses column by column, from the values as the source has them, and then passes all rules. `min`, `max`
and `sum` understand values as their field does: numbers by size, dates by time, texts by their code points. A value
that is no number or date is taken before all others, so that its rule refuses the row rather than lose a copy in
silence. A sum is exact, with up to 45 digits on both sides of the point. Each value that comes from another copy counts
as a change `merge`. Columns of the key keep the value of the row that goes on.

## Hours

`limits.window` is `[DAYS ]HH:MM-HH:MM ZONE`, such as `22:00-06:00 Asia/Bangkok`, or a list of these, of which one has
to hold:

```yaml
limits:
  window:
    - Mon-Thu 22:00-06:00 Asia/Bangkok
    - Fri 22:00-24:00 Asia/Bangkok
    - Sat,Sun 00:00-24:00 Asia/Bangkok
```

Over midnight where the end lies before the beginning; the end itself is outside; `24:00` is the end of the day. Days
are `Mon` to `Sun`, one by one or as `Mon-Fri`, and name the day on which the hours begin: `Fri 22:00-06:00` ends on
Saturday morning. Without days the hours hold on each. Hours are those of the clock on the zone's walls: hours that a
change to summer time leaves out do not come, hours that a change back repeats count both times.
[Load in stated hours](../how-to/steer.md#keep-to-stated-hours) says what happens outside of them.
"""

_RULES_HEAD = """\
## Rules

Every rule has a default, which is the first value. `warn` keeps the value, counts it, and lists examples. Each
change that a rule makes is counted.

| rule | values | what it is about |
| --- | --- | --- |
"""

_ORDER = """
A row's rules act in this order: within `where`, null key, duplicates; then for each column, in the plan's order:
decode, trim, value map, empty, literal `#N/A`, control characters, unicode form, type and validity, Buddhist era,
range (future, negative, number size), length, restricted picklist, required, missing parent; computed fields come
after all columns. The first reason in this order is the row's code (`REJECTED_<RULE>`); all reasons stand in its
details.

With `buddhist_era: convert` a text such as `2567-02-29` is no invalid date: the day exists once it is converted. A
restricted picklist takes its active values, letter for letter, in a multipicklist joined by `;`; all else is rejected
(`REJECTED_PICKLIST`). The values of a multipicklist are sent and compared sorted, each once: the org gives them back
in an order of its own.
"""


def reference_page() -> str:
    """The page in Markdown."""
    reading = _READING.replace("{depth}", str(DEPTH_MAX)).replace("{scale}", str(SCALE_MAX))
    for name, example in EXPRESSIONS.items():
        reading = reading.replace(f"`{{{name}}}`", f"`{example}`")
    parts = [_INTRODUCTION.replace("{example}", example_text()), reading]
    for title, model in _SECTIONS:
        parts.append(f"## {title}\n\n{model.__doc__}\n\n" + "".join(_key_table(model)))
    parts.append(_RULES_HEAD + "".join(_rule_row(name, model) for name, model in _RULES) + _ORDER)
    parts.append("## `thresholds`\n\nNames, defaults and what they watch.\n\n" + "".join(_threshold_table()))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def example_text() -> str:
    """A whole plan file with every section."""
    return files("forcelift.plan").joinpath("example.yaml").read_text(encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Write both files into the folder given."""
    folder = Path(arguments[0]) if arguments else Path("docs/reference")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan-file.md").write_text(reference_page(), encoding="utf-8")
    (folder / "plan.schema.json").write_text(schema_text(), encoding="utf-8")
    return 0


def _key_table(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | takes | default | meaning |\n| --- | --- | --- | --- |\n"
    for name, info in model.model_fields.items():
        yield f"| `{name}` | {_cell(_takes(info))} | {_cell(_default(info))} | {_cell(info.description or '')} |\n"


def _rule_row(name: str, model: type[BaseModel]) -> str:
    info = model.model_fields[name]
    words = [f"`{word}`" for word in _words(info)]
    takes = ", ".join(words) if words else _takes(info)
    if name == "empty":
        takes += ", `{default: TEXT}`"
    return f"| `{name}` | {_cell(takes)} | {_cell(info.description or '')} |\n"


def _words(info: FieldInfo) -> list[str]:
    words: list[str] = []
    for option, _ in alternatives(info.rebuild_annotation()):
        if get_origin(option) is Literal:
            words += [str(one) for one in get_args(option)]
        elif isinstance(option, type) and issubclass(option, Enum):
            words += [str(one.value) for one in option]
    return words


def _threshold_table() -> Iterator[str]:
    yield "| name | default | unit | watches |\n| --- | --- | --- | --- |\n"
    for name, one in THRESHOLDS.items():
        yield f"| `{name}` | {one.default:g} | {one.unit} | {one.meaning} this |\n"


def _takes(info: FieldInfo) -> str:
    return expected(info.rebuild_annotation())


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "must be given"
    value = info.default
    if isinstance(value, BaseModel):
        return "as below"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
