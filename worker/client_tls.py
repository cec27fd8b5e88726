"""What is known of a client's TLS, for rules, for PROXY headers and for the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.identity import Identity, identity_of
from worker.tls_tlvs import ClientCertificate, alpn_value, authority_value, ssl_value

if TYPE_CHECKING:
    from shared.client_hello import ClientHello
    from shared.plan import CertificatePlan, TlsPlan
    from worker.tls_material import TlsObject


class ClientTls:
    """The ClientHello; where TLS is ended here, from its handshake on, the rest."""

    __slots__ = ("_identity", "began_at", "certificate", "hello", "is_resumed", "object", "plan")

    def __init__(self, hello: ClientHello, began_at: float) -> None:
        """``began_at``: when its first byte was read."""
        self.hello = hello
        self.began_at = began_at
        self.object: TlsObject | None = None  # None: TLS passes through
        self.certificate: CertificatePlan | None = None  # ours
        self.is_resumed = False
        self.plan: TlsPlan | None = None  # under which hands are shaken, for HTTP
        self._identity: Identity | None = None

    def shaken(self, object_: TlsObject, certificate: CertificatePlan) -> None:
        """The handshake is done."""
        self.object = object_
        self.certificate = certificate
        self.is_resumed = object_.session_reused

    def identity(self) -> Identity | None:
        """Who the client is by its certificate; None: it has shown none. OSError as identity_of."""
        if self._identity is None and self.object is not None:
            self._identity = identity_of(self.object)
        return self._identity

    def authority_tlv(self) -> bytes | None:
        """The name that the client asked for (PROXY protocol, section 2.2.2)."""
        name = self.hello.sent_name
        return authority_value(name) if name else None

    def alpn_tlv(self) -> bytes | None:
        """The protocol that was agreed on (section 2.2.1)."""
        chosen = None if self.object is None else self.object.selected_alpn_protocol()
        return alpn_value(chosen) if chosen else None

    def ssl_tlv(self) -> bytes | None:
        """Version, cipher and certificates (section 2.2.6)."""
        object_, own = self.object, self.certificate
        if object_ is None or own is None:
            return None
        cipher, identity = object_.cipher(), self.identity()
        shown = None
        if identity is not None:
            shown = ClientCertificate(
                is_new=not self.is_resumed, is_verified=True, common_name=identity.cn
            )
        return ssl_value(
            version=object_.version() or "",
            cipher=cipher[0] if cipher is not None else "",
            key_algorithm=own.key_algorithm,
            signature_algorithm=own.signature_algorithm,
            client_certificate=shown,
        )
