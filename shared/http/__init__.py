"""HTTP/1.1 without IO: heads, bodies and paths in, decisions and bytes out (RFC 9110, RFC 9112)."""

from shared import source_only

source_only.heed(__path__)
