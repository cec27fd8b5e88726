"""The reference of the config, made from the structs: ``python -m supervisor.config_reference``.

Prints docs/config.md; a test compares the two, so that the page cannot drift from the code.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, fields

from shared.access_format import FIELDS, REQUEST_FIELDS
from shared.config import Config, ConfigStruct
from shared.config.name_map import ByShape, NameMap
from shared.config.scalars import Seconds, Size, TextOrFields

_WIDTH: Final = 100
_INTRO: Final = """\
# Config reference

Made from the code by `python -m supervisor.config_reference`; do not edit by hand.
Whole files to start from are in [examples](examples/).

The format follows the suffix: `.yaml` or `.yml`, `.json`, `.toml`. All three hold the same keys.
YAML scalars are those of YAML 1.2 (`no` and `on` are text); duplicate keys, unknown keys, tags
and merge keys are errors. All errors of a file are reported at once, with line and column (TOML:
with the path of the key).

- **duration**: `"250ms"`, `"5s"`, `"2m"`, `"4h"`, or a number of seconds.
- **address**: `"host:port"`, `"[v6]:port"`, `"unix:/path"` (at most 107 bytes of path). A host
  name with other letters than ASCII is read as a domain is.
- **port**: a number, a range such as `"8000-8010"`, or `"unix:/path"`.
- **domain**: `example.com`, or a wildcard for one label or more: `*.example.com` (not `example.com`
  itself), `example.*`. Case and a dot at the end do not count; other letters (`bücher.example`)
  stand for their A-labels (IDNA 2008). An IP address (`10.0.0.1`, `"[::1]"`) takes requests that
  have it as their Host; TLS clients send no address as SNI.
- **size**: `"64KiB"`, `"1MiB"`, `"2GiB"`, or a number of bytes.
- **path**: of a file; a relative one starts at the directory of the config file.
- **who may connect**: an address, a CIDR, a range `"10.0.0.1-10.0.0.9"` (IPv6 too), a glob
  `"192.168.1.*"` (whole numbers at the end of an IPv4 address, `"10.*"` too), or
  `"file:lists/a.txt"`: a file with one of these a line, and comments after `#`.

Keys listed as *not available yet* belong to the format and are refused by name, so that no
setting is silently without effect.
"""

_OUTRO: Final = """\
## How the keys work together

- Of several routes on a port, the one with the higher `priority` wins; then the one with the more
  specific domain (exact, then the longer wildcard, then none); then the one with the more specific
  path (exact, then the longer literal prefix, then none); then the one whose `client_ips` hold the
  client by the longer prefix (a route without `client_ips` comes last); then the one with more
  other criteria; then a port that is written by itself before a range; then the order of the file.
- `tls_versions` and `alpn` are about the ClientHello, so a route with one of them, or with `tls` in
  its action, is for TLS clients only. Without `tls` in the action TLS stays closed. `domains` are
  about SNI, or about Host where the client's bytes can be read.
- A route speaks HTTP where one of its keys needs it (`paths`, `methods`, `headers`, `query` and
  `cookies` of its match; `headers`, `rewrite` and `host` of its action; `auth`; `http`; `type:
  redirect` and `respond`), and with `protocol: http`. So does one with domains and without `tls`,
  for clients without TLS; TLS of its clients passes as it is. `protocol: tcp` relays bytes.
- A route that reads HTTP and has no `tls` is for clients without TLS, unless its domains overlap
  with those of routes on its port that end TLS: then it takes their `tls`, which must be the same.
- In `headers`, `query` and `cookies` of a match, names of header fields have no case. A text, or a
  list of which one must match; `{regex: ...}` must match as a whole; `true`: it must be there.
- `headers` of a forward action are rules, in the order remove, set, add; of `redirect` and
  `respond` the fields of the answer. Fields that are of one connection (Connection, Upgrade, ...)
  or say how long a body is cannot be written. In their values and in `to` these stand for
  something: `{client_ip} {client_port} {scheme} {host} {port} {path} {query} {path_and_query} {sni}
  {route} {request_id} {param.NAME} {header.NAME}`; `{{` and `}}` are braces.
- Pages (`file`, `error_pages`) are read when the config is, so again at each reload: by the
  supervisor only, 1 MiB at most. Their Content-Type follows the suffix, text is UTF-8.
- `upstream_tls` without `tls` in the action is for plain clients: their bytes go to the target over
  TLS. `terminate-and-reencrypt` is `terminate` with `upstream_tls`, whose keys all have defaults.
- Certificates, keys and password files are PEM and text, and are read and checked when the config
  is, so again at each reload: by the supervisor only. Those of disabled routes are not looked at.
- Of several certificates, the one for the name that the client asks for is shown, else the first.
  Routes on a port that end TLS for the same names (`*.example.com` covers `a.example.com`) must
  have the same `tls`.
- Versions below TLS 1.2 are not spoken (RFC 8996). `tls_versions` and `passthrough` route them.
- `identities` see the client's certificate after it was verified, so they need a `client_auth` that
  asks for one; `sni` needs a route that is for TLS clients only. The first entry whose fields all
  match rules, by its `block` and `allow`; whom none matches is refused.
- A target is checked by `upstream_tls` against `server_name`, else against its host; an IP address
  must be among the addresses of its certificate, and no name is asked for.
- `keep_alive: extended` multiplies `idle` by 6; `immortal` means no idle timeout. An `idle` of 0
  stays 0.
- `half_open: true` switches the `half_closed` timer off.
- `proxy_protocol.required: false`: bytes that cannot begin a header mean that there is none;
  silence means that until `header_timeout`. The specification warns of such guessing: it is your
  choice, and for trusted sources only.
- `0.0.0.0/0` or `::/0` in `trusted` or `trusted_forwarders` is accepted with a warning: then any
  client can claim any address.
- A host name in `targets` or `trusted` is resolved again every `dns_refresh`. One that does not
  resolve is a target that is down; the last good addresses stay in use while DNS fails.
- Access rules and limits see the client's address: the PROXY header's where one was believed, else
  the peer's; IPv4-mapped IPv6 counts as IPv4. `block` beats `allow`. The global `security` is asked
  first, then that of the route that was chosen; it never decides which route that is. A client on
  a Unix socket has no address: it is in no list, so any `allow` refuses it, and it meets no limit
  per address.
- List files are read when the config is checked, so again at each reload: by the supervisor only,
  64 MiB and a million entries at most. A file that goes on changing while it is read is refused;
  write it under another name and rename it.
- Limits hold over all workers together. `connection_rate_per_ip: "300/1m"`: within any minute, 300
  new connections of one address (IPv6: of its /64 network).
- A template of `log.access.format` is text with fields; `{{` and `}}` are braces. The fields, as in
  the JSON: FIELDS.
  [access-log.md](access-log.md) says what they mean; the last nine are of HTTP requests.
- TLVs need `send_proxy: v2`. Families that differ go out as IPv4-mapped IPv6.
- The ports of all routes, times the addresses of `listen`, times `max_workers`, may need 4,096
  listening sockets. Beyond that, ports that only ranges name get one shared socket each; if that
  does not fit either, the config is refused with the number needed.
"""


def reference() -> str:
    """The page, as Markdown."""
    parts = [_INTRO]
    parts += [_section(path, struct) for path, struct in _structs("", Config)]
    parts.append(_OUTRO.replace("FIELDS", _access_fields()))
    return "\n".join(parts)


def _access_fields() -> str:
    """The names, broken into lines that follow on from "  the JSON: "."""
    text = ", ".join(f"`{{{name}}}`" for name in FIELDS + REQUEST_FIELDS)
    return textwrap.fill("  the JSON: " + text, _WIDTH, subsequent_indent="  ")[12:]


def _structs(path: str, struct: type[ConfigStruct]) -> Iterator[tuple[str, type[ConfigStruct]]]:
    """Every struct below one, with the path of its key; each before its inner ones."""
    yield path, struct
    for item in fields(struct):
        inner_path = f"{path}.{item.encode_name}" if path else item.encode_name
        for inner, is_list in _inner(item.type):
            by_name = ".NAME" if _is_map(item.type) else ""
            yield from _structs(inner_path + by_name + ("[]" if is_list else ""), inner)


def _is_map(kind: Any) -> bool:
    """Whether the value is a mapping with names of the operator's own."""
    if get_origin(kind) is Annotated:
        return _is_map(get_args(kind)[0])
    return isinstance(kind, type) and issubclass(kind, NameMap)


def _inner(kind: Any, is_list: bool = False) -> Iterator[tuple[type[ConfigStruct], bool]]:
    if isinstance(kind, type):
        if issubclass(kind, ConfigStruct):
            yield kind, is_list
        elif issubclass(kind, ByShape):
            for shape in kind.shapes:
                yield from _inner(shape, is_list)
        elif issubclass(kind, NameMap):
            for inner, _ in _inner(kind.value):
                yield inner, is_list
        elif issubclass(kind, TextOrFields) and issubclass(kind.fields, ConfigStruct):
            yield kind.fields, is_list
        return
    for part in get_args(kind):
        yield from _inner(part, is_list or get_origin(kind) is list)


def _section(path: str, struct: type[ConfigStruct]) -> str:
    lines = [f"## `{path}`" if path else "## The file", ""]
    lines += [" ".join((struct.__doc__ or "").split()), ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for item in fields(struct):
        row = (f"`{item.encode_name}`", _type(item.type), _default(item), _meaning(item.type))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    lines.append("")
    if struct.not_yet:
        names = ", ".join(f"`{name}`" for name in sorted(struct.not_yet))
        lines += [f"Not available yet: {names}.", ""]
    for name, values in struct.not_yet_values.items():
        words = ", ".join(f"`{value}`" for value in sorted(values))
        lines += [f"Not available yet in `{name}`: {words}.", ""]
    return "\n".join(lines)


def _type(kind: Any) -> str:
    """The type in words of the config."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(args[0]) + _limits(args[1:])
    if origin is list:
        return f"list of: {_type(args[0])}"
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in args)
    if args:
        return " or ".join(_type(part) for part in args)
    if kind is type(None):
        return "null"
    if isinstance(kind, type) and issubclass(kind, Struct):
        return "mapping"
    words = {str: "text", int: "number", bool: "true or false"}
    return str(words.get(kind) or kind.kind)


def _limits(metas: tuple[Any, ...]) -> str:
    for meta in metas:
        if isinstance(meta, Meta) and meta.ge is not None:
            return f" {meta.ge} to {meta.le}"
        if isinstance(meta, Meta) and meta.min_length is not None:
            return ", not empty"
    return ""


def _default(item: FieldInfo) -> str:
    if item.required:
        return "required"
    default = item.default
    if default is msgspec.NODEFAULT:
        default = item.default_factory()
    return "" if isinstance(default, Struct) else f"`{_plain_text(default)}`"


def _plain_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, NameMap):
        return "{" + ", ".join(f"{name}: {each}" for name, each in value) + "}"
    if isinstance(value, Size):
        return _size(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Seconds):
        return _duration(float(value))
    if isinstance(value, list):
        return "[" + ", ".join(f'"{part}"' for part in value) + "]"
    return str(value) or '""'


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _size(size: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def _meaning(kind: Any) -> str:
    return next(
        meta.description
        for meta in get_args(kind)[1:]
        if isinstance(meta, Meta) and meta.description
    )


if __name__ == "__main__":
    sys.stdout.write(reference())
