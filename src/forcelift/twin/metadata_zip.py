"""Packages of the Metadata API: zip archives with a `package.xml`, read with bounds and written.

Source: Metadata API guide, "File-Based Calls"; names in section 6.2 of the API reference.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree.ElementTree import Element

from forcelift.twin.soap import METADATA, XSI, children, elements, local_name, read_xml, text_of

# Salesforce: 10,000 files, 39 MB as zip, 400 MB unzipped.
FILES_MAX: Final = 10_000
ZIP_BYTES_MAX: Final = 39_000_000
UNZIPPED_BYTES_MAX: Final = 400_000_000
MANIFEST: Final = "package.xml"


class BadPackage(Exception):
    """An archive or manifest that cannot be used at all; the whole deploy or retrieve fails with this text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a `package.xml` lists: members by type name, `*` for all of a type."""

    version: str
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_zip(content: bytes) -> dict[str, bytes]:
    """The files of an archive by path, without the one folder around all of them that some tools put in.

    Raises:
        BadPackage: No zip, too many files or bytes, encrypted, or a path that leads out of the archive.
    """
    if len(content) > ZIP_BYTES_MAX:
        raise BadPackage(f"Maximum size of request reached. Maximum size of request is {ZIP_BYTES_MAX} bytes.")
    files: dict[str, bytes] = {}
    left = UNZIPPED_BYTES_MAX
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > FILES_MAX:
                raise BadPackage(f"Number of files in zip exceeds the maximum of {FILES_MAX}")
            for entry in entries:
                # The directory's sizes may lie: what is really inflated counts.
                with archive.open(entry) as file:
                    data = file.read(left + 1)
                left -= len(data)
                if left < 0:
                    raise BadPackage("The unzipped files exceed the maximum size")
                files[entry.filename] = data
    except (
        zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError, ValueError, OverflowError,
    ) as error:  # fmt: skip
        raise BadPackage("The zip file cannot be read") from error
    if any(name.startswith("/") or ".." in name.split("/") for name in files):
        raise BadPackage("The zip file holds a path that leads out of it")
    if MANIFEST not in files:
        folders = {name.partition("/")[0] for name in files}
        folder = next(iter(folders)) if len(folders) == 1 else ""
        if f"{folder}/{MANIFEST}" not in files:
            raise BadPackage("No package.xml found")
        files = {name.removeprefix(f"{folder}/"): data for name, data in files.items()}
    return files


def read_manifest(content: bytes) -> Manifest:
    """Raises BadPackage."""
    try:
        root = read_xml(content)
    except ValueError as error:
        raise BadPackage(f"package.xml: {error}") from error
    return manifest_of(root)


def manifest_of(root: Element) -> Manifest:
    """The manifest in a `Package` element, or in the `unpackaged` of a retrieve."""
    members: dict[str, tuple[str, ...]] = {}
    for types in children(root, "types"):
        name = text_of(types, "name")
        if not name:
            raise BadPackage("package.xml: Required field is missing: name")
        listed = tuple((entry.text or "").strip() for entry in children(types, "members"))
        members[name] = (*members.get(name, ()), *listed)
    return Manifest(version=text_of(root, "version") or "", members=members)


def write_zip(files: Mapping[str, bytes]) -> bytes:
    """An archive with the files in their order. Times are fixed, so that equal orgs give equal archives."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def write_manifest(members: Mapping[str, Iterable[str]], *, version: str) -> bytes:
    types = [{"members": list(names), "name": name} for name, names in members.items()]
    return metadata_xml("Package", {"types": types, "version": version})


def metadata_xml(root: str, values: Mapping[str, Any]) -> bytes:
    """A metadata file: the members that have a value, sequences repeated."""
    body = elements(prune(values))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{METADATA}" xmlns:xsi="{XSI}">{body}</{root}>\n'
    ).encode()


def prune(value: Any) -> Any:
    """Without members that are null or empty: metadata files leave those out."""
    if isinstance(value, Mapping):
        kept = {name: prune(entry) for name, entry in value.items()}
        return {name: entry for name, entry in kept.items() if entry is not None and entry != [] and entry != {}}
    if isinstance(value, (list, tuple)):
        return [prune(entry) for entry in value]
    return value


def element_values(element: Element, *, lists: Iterable[str] = ()) -> dict[str, Any]:
    """An element's children as a dict: text, nested dicts, and lists for names in `lists` or that repeat."""
    always = set(lists)
    values: dict[str, Any] = {}
    for entry in element:
        name = local_name(entry)
        value: Any = element_values(entry, lists=always) if len(entry) else (entry.text or "").strip()
        if not len(entry) and entry.get(f"{{{XSI}}}nil") == "true":
            value = None
        if name in values and not isinstance(values[name], list):
            values[name] = [values[name], value]
        elif name in values:
            values[name].append(value)
        else:
            values[name] = [value] if name in always else value
    return values
