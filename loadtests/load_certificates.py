"""The certificates of a load run, and which one a client is shown."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509

from tests.helpers.certificates import Authority

ENDED: Final = ("term.test", "encr.test", "auth.test", "web.test")  # by the proxy
SHOWN: Final = 4  # clients that look: more than there are workers
LOOK_S: Final = 10.0


class Certificates:
    """Made at the start. ``written`` and ``served`` are serial numbers of the proxy's own one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = Authority(directory, "authority")
        self._authority.client("user", stem="client")
        self.target = self._authority.leaf("pass.test", stem="target").both
        self.authority = self._authority.cert
        self.written = self.served = 0
        self.renew()
        self.served = self.written

    @staticmethod
    def names(directory: Path) -> dict[str, str]:
        """The files that configs and clients name."""
        return {
            "authority": str(directory / "authority.ca.pem"),
            "client": str(directory / "client.both.pem"),
            "site": str(directory / "site.both.pem"),
        }

    def renew(self) -> None:
        """Write another certificate over the proxy's own."""
        self.written = self._authority.leaf(*ENDED, stem="site").certificate.serial_number


def shown(port: int, name: str, certificates: Certificates) -> list[int]:
    """Serial numbers of what some clients are shown, one after the other; 0 where one fails."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.authority)
    found = []
    for _ in range(SHOWN):
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=LOOK_S) as plain,
                context.wrap_socket(plain, server_hostname=name) as client,
            ):
                der = client.getpeercert(binary_form=True)
        except OSError:
            found.append(0)
            continue
        found.append(x509.load_der_x509_certificate(der).serial_number if der else 0)
    return found
