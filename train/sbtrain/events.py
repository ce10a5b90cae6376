"""TensorBoard event files, written without TensorBoard: records of a length, a checksum and a protocol buffer.

The file is made anew from metrics.jsonl when a run begins or goes on, so no step is in it twice, and neither the name
nor the content says on which host or when a run was made: the time axis counts seconds of training.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

NAME = "events.out.tfevents.0.sbtrain"


class EventFile:
    """Scalars for TensorBoard, one record a metrics line.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._seconds = 0.0
        self._file.write(_record(_double(1, 0.0) + _text(3, b"brain.Event:2")))

    def append(self, line: dict[str, Any]) -> None:
        """Write one line of metrics.jsonl."""
        speed = line.get("speed", {})
        self._seconds += speed.get("seconds", 0.0)
        scalars = {name: value for name, value in line.items() if name not in ("step", "speed", "alarms")}
        if "alarms" in line:
            scalars["alarms"] = float(len(line["alarms"]))
        scalars |= {f"speed/{name}": value for name, value in speed.items()}
        summary = b"".join(
            _text(1, _text(1, name.encode()) + _float(2, value)) for name, value in scalars.items() if value is not None
        )
        self._file.write(_record(_double(1, self._seconds) + _integer(2, line["step"]) + _text(5, summary)))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _text(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()  # CRC-32C, Castagnoli's polynomial (RFC 3720, appendix B.4), reflected


def _masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    # The TFRecord format rotates and shifts each checksum, so that one of a record within a record is no fixed point.
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
