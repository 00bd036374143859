# SPDX-License-Identifier: Apache-2.0
"""The log of runtime events where every report carries it, for want of a register (ADR 0040).

There is nothing that it could disagree with: it is written whole, or stays as it was.
"""

from cocos.attestation_agent.event_log import EventLog
from cocos.errors import FormatError, IntegrityError
from cocos.evidence.eventlog import parse_records
from cocos.host.files import write_atomic


class ReportedLog(EventLog):
    """Logs events; one call at a time."""

    async def open(self) -> None:
        """Make the log, or look at the one of an earlier start in this boot.

        Raises:
            ConfigError: it cannot be read or written.
            IntegrityError: it is damaged.
        """
        self._make()
        try:
            parse_records(self._read())
        except FormatError as error:
            raise IntegrityError(f"{self._path} is damaged: {error.message}") from error

    async def read(self) -> bytes:
        """Return the log: entries without a header, in order."""
        return self._read()

    async def append(self, event: bytes, register: int | None = None) -> None:
        """Log an event; see :meth:`EventLog.append`."""
        self._check(register)
        log = self._read()
        _, entry = self._entry(log, event)
        write_atomic(self._path, log + entry)
