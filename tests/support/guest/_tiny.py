# SPDX-License-Identifier: Apache-2.0
"""The smallest guest: an EFI program of some bytes that greets on the console and ends so or so.

It stands where a unified kernel image stands, so that a boot costs the firmware's time only.
"""

import struct

from cocos.host.machines import efi_program

GREETING = "tiny guest is up"
COMMAND_LINE = "roothash=00 tiny"

_PM_STATUS, _PM_ENABLE, _PM_CONTROL = 0x600, 0x602, 0x604  # where OVMF puts them on q35
_HALT = bytes.fromhex("f4 eb fd")  # hlt; jmp to it


def _out16(port: int, value: int) -> bytes:
    return struct.pack("<2sH2sH2s", b"\x66\xba", port, b"\x66\xb8", value, b"\x66\xef")


_POWER_OFF = _out16(_PM_CONTROL, 0x2000)

SHUTS_DOWN = _POWER_OFF + _HALT
RESETS = bytes.fromhex("66 ba f9 0c b0 06 ee") + _HALT  # chipset's reset register
TRIPLE_FAULTS = bytes.fromhex("6a 00 6a 00 0f 01 1c 24 cc")  # lidt of nothing; int3
IGNORES_ALL = _HALT
OBEYS_THE_BUTTON = (
    _out16(_PM_ENABLE, 0x0100)
    + struct.pack("<2sH", b"\x66\xba", _PM_STATUS)
    # again: pause; in ax, dx; test ah, 1; jz again
    + bytes.fromhex("f3 90 66 ed f6 c4 01 74 f7")
    + _POWER_OFF
    + _HALT
)


def efi(tail: bytes) -> bytes:
    """Return an EFI program that prints the greeting and goes on with ``tail``."""
    message = f"\r\n{GREETING}\r\n".encode() + b"\0"
    # next: lodsb; test al, al; jz done; mov ah, al
    # mov dx, 0x3fd; wait: in al, dx; test al, 0x20; jz wait
    # mov dx, 0x3f8; mov al, ah; out dx, al; jmp next
    loop = bytes.fromhex(
        "ac 84 c0 74 14 88 c4 66 ba fd 03 ec a8 20 74 fb 66 ba f8 03 88 e0 ee eb e7"
    )
    body = loop + tail
    code = b"\x48\x8d\x35" + struct.pack("<i", len(body)) + body + message  # lea rsi, message
    return efi_program.build(code, {".cmdline": COMMAND_LINE.encode()})
