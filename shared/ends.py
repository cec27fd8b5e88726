"""Why a connection ended: exactly one reason each, the label ``end`` of counters and logs."""

from __future__ import annotations

from enum import StrEnum


class End(StrEnum):
    """The end reasons (design section 5). ``*_closed`` names the side that sent FIN first."""

    # Ends are keys of counters, and Enum's own hash is a Python function.
    __hash__ = str.__hash__

    CLIENT_CLOSED = "client_closed"
    TARGET_CLOSED = "target_closed"
    CLIENT_RESET = "client_reset"
    TARGET_RESET = "target_reset"
    CLIENT_GONE = "client_gone"  # before the target was connected
    PROXY_HEADER_INVALID = "proxy_header_invalid"
    PROXY_HEADER_MISSING = "proxy_header_missing"
    PROXY_HEADER_TIMEOUT = "proxy_header_timeout"
    PROXY_HEADER_UNTRUSTED = "proxy_header_untrusted"
    PROXY_LOCAL = "proxy_local"
    NO_ROUTE = "no_route"
    BLOCKED = "blocked"
    LIMIT = "limit"
    RATE = "rate"
    PREFACE_TIMEOUT = "preface_timeout"  # a ClientHello began and was not whole in time
    TLS_FAILED = "tls_failed"
    TLS_TIMEOUT = "tls_timeout"
    TLS_ON_PLAIN = "tls_on_plain"  # a ClientHello where every route is for others
    PLAIN_ON_TLS = "plain_on_tls"  # no ClientHello where every route is for TLS clients
    BAD_REQUEST = "bad_request"  # what could be read in two ways, RFC 9112 section 11.2
    HEAD_TIMEOUT = "head_timeout"
    BAD_ANSWER = "bad_answer"  # of a target, to an HTTP request
    RESPONSE_TIMEOUT = "response_timeout"
    AUTH = "auth"
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    HALF_CLOSED_TIMEOUT = "half_closed_timeout"
    LIFETIME = "lifetime"
    ROUTE_REMOVED = "route_removed"
    DRAIN_DEADLINE = "drain_deadline"
    DRAINED = "drained"  # an HTTP connection, between two requests or behind the last answer
    STOPPED = "stopped"
    KILLED = "killed"
    OVERLOAD = "overload"
    INTERNAL_ERROR = "internal_error"
