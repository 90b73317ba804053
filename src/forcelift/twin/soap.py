"""SOAP envelopes: read what a client sent, write what Salesforce answers.

XML from outside is read by defusedxml: no document type, no entities, nothing fetched. What is written is escaped, and
characters that XML cannot hold are left out.
Source: partner and metadata WSDL; fault shapes in sections 1.2 and 1.5 of the API reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape, quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from forcelift.twin.http_core import Reply

PARTNER: Final = "urn:partner.soap.sforce.com"
ENTERPRISE: Final = "urn:enterprise.soap.sforce.com"
METADATA: Final = "http://soap.sforce.com/2006/04/metadata"
ENVELOPE: Final = "http://schemas.xmlsoap.org/soap/envelope/"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
XML_TYPE: Final = ("content-type", "text/xml; charset=utf-8")
DEPTH_MAX: Final = 100  # elements in elements; what SOAP and metadata files need is below 20
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class SoapFault(Exception):
    """An error answer of a SOAP call. `code` is Salesforce's exception code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class SoapRequest:
    """A call: the name of its body's element, that element, and the session of the header."""

    operation: str
    body: Element
    session_id: str | None


def read_xml(content: bytes) -> Element:
    """The root of an XML document. Raises ValueError for what is no XML, holds entities, or is nested too deeply."""
    try:
        root = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise ValueError(f"the XML cannot be read: {type(error).__name__}") from error
    level, depth = [root], 0
    while level:
        level, depth = [child for element in level for child in element], depth + 1
        if depth > DEPTH_MAX:
            raise ValueError("the XML is nested too deeply")
    return root


def read_request(content: bytes) -> SoapRequest:
    """Raises SoapFault for what is no SOAP envelope with one call."""
    try:
        root = read_xml(content)
    except ValueError as error:
        raise SoapFault("soapenv:Client", str(error)) from error
    header = child(root, "Header")
    body = child(root, "Body")
    if local_name(root) != "Envelope" or body is None or len(body) != 1:
        raise SoapFault("soapenv:Client", "a SOAP envelope with one element in its body is expected")
    session = None if header is None else child(header, "SessionHeader")
    return SoapRequest(
        operation=local_name(body[0]),
        body=body[0],
        session_id=None if session is None else text_of(session, "sessionId"),
    )


def local_name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def child(element: Element, name: str) -> Element | None:
    """The first child of that name, in whatever namespace and case: clients are lax with both."""
    return next((entry for entry in element if local_name(entry).lower() == name.lower()), None)


def children(element: Element, name: str) -> list[Element]:
    return [entry for entry in element if local_name(entry) == name]


def text_of(element: Element, name: str) -> str | None:
    """The text of the first child of that name without outer blanks; None if there is none."""
    found = child(element, name)
    return None if found is None else (found.text or "").strip()


def flag_of(element: Element, name: str) -> bool:
    return (text_of(element, name) or "").lower() in ("true", "1")


def xml_text(value: object) -> str:
    """A value as XML text. None has none: leave its element out, or use `elements`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return escape(_NOT_XML.sub("", str(value)))


def elements(values: Mapping[str, Any]) -> str:
    """Elements by name: scalars as text, None as nil, mappings nested, a sequence as repeated elements."""
    return "".join(_element(name, value) for name, value in values.items())


def _element(name: str, value: Any) -> str:
    if value is None:
        return f'<{name} xsi:nil="true"/>'
    if isinstance(value, Mapping):
        return f"<{name}>{elements(value)}</{name}>"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "".join(_element(name, entry) for entry in value)
    return f"<{name}>{xml_text(value)}</{name}>"


def answer(operation: str, results: Any, *, namespace: str) -> Reply:
    """The answer to a call: `results` becomes `result` elements, one for each entry of a sequence."""
    inner = "" if results is None else _element("result", results)
    return Reply(
        content=_envelope(
            f"<{operation}Response>{inner}</{operation}Response>",
            f"xmlns={quoteattr(namespace)} xmlns:xsi={quoteattr(XSI)}",
        ),
        headers=(XML_TYPE,),
    )


def fault_reply(fault: SoapFault, *, namespace: str) -> Reply:
    """Salesforce answers every SOAP error with HTTP 500 and a fault whose detail repeats code and message."""
    code = xml_text(fault.code if ":" in fault.code else f"sf:{fault.code}")
    told = xml_text(f"{fault.code}: {fault.message}")
    plain = fault.code.rpartition(":")[2]
    detail = ""
    if ":" not in fault.code:
        name = "LoginFault" if fault.code.startswith("INVALID_LOGIN") else "UnexpectedErrorFault"
        detail = (
            f'<detail><sf:{name} xsi:type="sf:{name}"><sf:exceptionCode>{xml_text(plain)}</sf:exceptionCode>'
            f"<sf:exceptionMessage>{xml_text(fault.message)}</sf:exceptionMessage></sf:{name}></detail>"
        )
    body = f"<soapenv:Fault><faultcode>{code}</faultcode><faultstring>{told}</faultstring>{detail}</soapenv:Fault>"
    attributes = f"xmlns:sf={quoteattr(fault_namespace(namespace))} xmlns:xsi={quoteattr(XSI)}"
    return Reply(status=500, content=_envelope(body, attributes), headers=(XML_TYPE,))


def fault_namespace(namespace: str) -> str:
    return METADATA if namespace == METADATA else namespace.replace("urn:", "urn:fault.")


def _envelope(body: str, attributes: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="{ENVELOPE}" {attributes}>'
        f"<soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
    ).encode()
