# SPDX-License-Identifier: Apache-2.0
"""What an event of a log says about itself, as JSON for policies and people.

Only what :meth:`~cocos.evidence.eventlog.Event.digest_matches` vouches for is measured;
for the other types the data is a description, which whoever passed the log on could have
changed.
"""

import base64
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.evidence._reader import Reader
from cocos.evidence.eventlog import EVENT_TAG, Event

AAEL_MAGIC: Final = 0x4141454C
"""Tag of the attestation agent's runtime events."""

_MAX_TEXT: Final = 4096
_MAX_NODES: Final = 64
_ACPI_PNP: Final = 0x41D0  # "PNP" in compressed EISA form
_GPT, _GUID = 2, 2
_TD_HOB: Final = b"td_hob".ljust(16, b"\0")
_TD_PAYLOAD: Final = b"td_payload_info".ljust(16, b"\0")


class RuntimeEvent(msgspec.Struct, frozen=True):
    """A runtime event of the attestation agent: who, did what, to what."""

    domain: str
    operation: str
    content: str


def runtime_event(event: Event) -> RuntimeEvent | None:
    """Return the runtime event in a log's entry; None if it is something else.

    Raises:
        FormatError: it has the tag, but not the form.
    """
    if event.type != EVENT_TAG or event.data[:4] != AAEL_MAGIC.to_bytes(4, "little"):
        return None
    reader = Reader(event.data[4:], "a runtime event", "little")
    text = reader.take(reader.u32())
    reader.end()
    try:
        parts = text.decode("utf-8").split(" ", 2)
    except UnicodeDecodeError as error:
        raise FormatError("a runtime event is not UTF-8 text") from error
    if len(parts) != len(("domain", "operation", "content")) or not all(parts[:2]):
        raise FormatError("a runtime event lacks domain, operation or content")
    return RuntimeEvent(*parts)


def details(event: Event) -> JsonObject:
    """Return what the event says; an empty object when it does not read."""
    describe = _DESCRIBE.get(event.type_name)
    try:
        return {} if describe is None else describe(event)
    except (FormatError, UnicodeError):
        return {}


def summary(event: Event) -> str:
    """Return one line about the event, for people."""
    said = details(event)
    text = said.get("string") or said.get("unicode_name") or " ".join(said.get("device_paths", ()))
    return f"{event.type_name} {text}".strip()


def _ascii(data: bytes) -> str:
    """Text up to its terminating zero; in UTF-16 when every second byte is zero."""
    if len(data) >= 4 and data[1] == data[3] == 0:  # noqa: PLR2004
        return _printable(data.decode("utf-16-le", "replace").partition("\0")[0])
    return _printable(data.partition(b"\0")[0].decode("utf-8", "replace"))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:_MAX_TEXT])


def _text(event: Event) -> JsonObject:
    return {"string": _ascii(event.data)}


def _platform(event: Event) -> JsonObject:
    """Settings that a firmware measured; td-shim's have a name of 16 bytes and a length."""
    name, rest = event.data[:16], event.data[16:]
    if name == _TD_HOB:
        return {"string": ""}  # a table of memory, no text
    if name != _TD_PAYLOAD:
        return _text(event)
    reader = Reader(rest, "a platform event", "little")
    return {"string": f"{_ascii(name)} {_ascii(reader.take(reader.u32()))}".strip()}


def _counted(event: Event) -> JsonObject:
    reader = Reader(event.data, "a table event", "little")
    return {"string": _ascii(reader.take(reader.u8()))}


def _variable(event: Event) -> JsonObject:
    """UEFI_VARIABLE_DATA (Firmware Profile §10.2.6)."""
    reader = Reader(event.data, "a variable event", "little")
    guid = reader.take(16)
    name_length, data_length = reader.u64(), reader.u64()
    name = reader.take(2 * name_length).decode("utf-16-le", "replace")
    data = reader.take(data_length)
    raw = guid.hex()
    return {
        "unicode_name": _printable(name),
        "unicode_name_length": name_length,
        "variable_data": base64.b64encode(data).decode("ascii"),
        "variable_data_length": data_length,
        # In the order of the bytes, as Trustee shows it; not the usual form of a GUID.
        "variable_name": "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:])),
    }


def _image(event: Event) -> JsonObject:
    """UEFI_IMAGE_LOAD_EVENT (§10.2.3): where a program came from."""
    reader = Reader(event.data, "an image event", "little")
    reader.take(24)  # where it was loaded, how long it is, where it was linked for
    path = Reader(reader.take(reader.u64()), "a device path", "little")
    nodes: list[str] = []
    while path.left and len(nodes) < _MAX_NODES:
        kind, subtype, length = path.u8(), path.u8(), path.u16()
        body = path.take(max(length, 4) - 4)
        if kind == 0x7F:  # noqa: PLR2004 - end of the path (UEFI §10.3.1)
            break
        nodes.append(_node(kind, subtype, body))
    return {"device_paths": nodes}


def _node(kind: int, subtype: int, body: bytes) -> str:
    """One node of a device path in the text form of UEFI §10.6, as far as it is needed."""
    reader = Reader(body, "a device path", "little")
    if (kind, subtype) == (2, 1):
        low, high = reader.u16(), reader.u16()
        vendor = "PNP" if low == _ACPI_PNP else f"{low:04X}"
        return f"ACPI({vendor}{high:04X},{reader.u32()})"
    if (kind, subtype) == (1, 1):
        function, device = reader.u8(), reader.u8()
        return f"Pci({function},{device})"
    if (kind, subtype) == (4, 1):
        return _hard_drive(reader)
    if (kind, subtype) == (4, 4):
        text = body.decode("utf-16-le", "replace").rstrip("\0")
        return f"File({_printable(text)})"
    return f"Path({kind},{subtype},{body.hex()})"


def _hard_drive(reader: Reader) -> str:
    number, begin, size = reader.u32(), reader.u64(), reader.u64()
    signature = reader.take(16)
    form, signed = reader.u8(), reader.u8()
    if (form, signed) != (_GPT, _GUID):
        return f"HD({number},{form},{signature.hex()},{begin:#x},{size:#x})"
    guid = str(uuid.UUID(bytes_le=signature)).upper()
    return f"HD({number},GPT,{guid},{begin:#x},{size:#x})"


def _tagged(event: Event) -> JsonObject:
    found = runtime_event(event)
    if found is not None:
        shown = {"domain": found.domain, "operation": found.operation}
        return {
            "data": {"content": _json_or_text(found.content), **shown},
            "string": f"{found.domain} {found.operation} {found.content}",
            "unicode_name": "AAEL",
        }
    reader = Reader(event.data, "a tagged event", "little")
    tag = reader.u32()
    return {"tag": f"{tag:#010x}", "string": _ascii(reader.take(reader.u32()))}


def _json_or_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return text


_DESCRIBE: Final[Mapping[str, Callable[[Event], JsonObject]]] = {
    "EV_POST_CODE": _text,
    "EV_ACTION": _text,
    "EV_S_CRTM_VERSION": _text,
    "EV_EVENT_TAG": _tagged,
    "EV_PLATFORM_CONFIG_FLAGS": _platform,
    "EV_COMPACT_HASH": _text,
    "EV_IPL": _text,
    "EV_OMIT_BOOT_DEVICE_EVENTS": _text,
    "EV_EFI_ACTION": _text,
    "EV_EFI_VARIABLE_DRIVER_CONFIG": _variable,
    "EV_EFI_VARIABLE_BOOT": _variable,
    "EV_EFI_VARIABLE_BOOT2": _variable,
    "EV_EFI_VARIABLE_AUTHORITY": _variable,
    "EV_EFI_BOOT_SERVICES_APPLICATION": _image,
    "EV_EFI_BOOT_SERVICES_DRIVER": _image,
    "EV_EFI_RUNTIME_SERVICES_DRIVER": _image,
    "EV_EFI_HANDOFF_TABLES2": _counted,
    "EV_EFI_PLATFORM_FIRMWARE_BLOB2": _counted,
}
