"""The heads that go out to targets."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.head import CHUNKED, Request
from shared.http.writer import RequestWriter
from shared.plan import FieldRules, HttpPlan
from tests.helpers import http_heads as heads
from tests.helpers.http_heads import named

ID = heads.REQUEST_ID
TRACE = f"00-{ID}-{ID[16:]}-01"
GOOD_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TARGET = "app2:9000"


def written(
    asked: Request, plan: HttpPlan | None = None, *, trusted: tuple[str, ...] = (),
    upgrade: bytes = b"", expects_continue: bool = False, length: int | None = None,
) -> bytes:  # fmt: skip
    """The head for the target; the same at the second time, when more is remembered."""
    writer = RequestWriter("web", plan or HttpPlan())
    origin = heads.origin()
    about = heads.about(asked, came=origin, trusted=trusted)
    first, second = (
        writer.head(
            asked, about, origin, TARGET, upgrade=upgrade, expects_continue=expects_continue,
            length=length,
        )
        for _ in range(2)
    )  # fmt: skip
    assert first == second
    return first


def test_the_usual_request() -> None:
    """First line, host, ids, the fields that cross, and who asks."""
    asked = heads.request("/a", ("Host", "example.com"), ("User-Agent", "x"), query="b=c")
    assert heads.lines_of(written(asked)) == [
        "GET /a?b=c HTTP/1.1",
        "Host: example.com",
        f"X-Request-ID: {ID}",
        f"traceparent: {TRACE}",
        "User-Agent: x",
        "X-Forwarded-For: 203.0.113.5",
        "X-Real-IP: 203.0.113.5",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: example.com",
        "Forwarded: for=203.0.113.5;host=example.com;proto=http",
    ]


@pytest.mark.parametrize(
    ("strip", "add", "path", "out"),
    [
        ("/api", "", "/api/x", "/x"),
        ("/api/", "", "/api/x", "/x"),
        ("/api", "", "/api", "/"),
        ("/api", "", "/api/", "/"),
        ("/api", "", "/apix", "/apix"),
        ("/api", "", "/other", "/other"),
        ("/api", "", "/API/x", "/API/x"),
        ("/", "", "/x", "/x"),
        ("", "/v2", "/x", "/v2/x"),
        ("", "/v2/", "/x", "/v2/x"),
        ("/api", "/v2", "/api", "/v2/"),
        ("/api", "/v2", "/api//x", "/v2//x"),
        ("/api", "/v2", "*", "*"),
    ],
)
@pytest.mark.parametrize("query", [None, "", "q=/api"])
def test_rewritten_paths(strip: str, add: str, path: str, out: str, query: str | None) -> None:
    """Whole segments are stripped, then the other prefix comes in front; the query stays."""
    head = written(heads.request(path, query=query), HttpPlan(strip_prefix=strip, add_prefix=add))
    wanted = out if query is None else f"{out}?{query}"
    assert heads.lines_of(head)[0] == f"GET {wanted} HTTP/1.1"


@pytest.mark.parametrize(
    ("setting", "authority", "host"),
    [
        ("preserve", "example.com:81", "example.com:81"),
        ("preserve", "", TARGET),
        ("target", "example.com", TARGET),
        ("inner.example", "example.com", "inner.example"),
    ],
)
def test_host(setting: str, authority: str, host: str) -> None:
    """As the client sent it, the target's or a fixed one; X-Forwarded-Host stays the client's."""
    head = written(heads.request("/", authority=authority), HttpPlan(host=setting))
    assert named(head, "host") == [host]
    assert named(head, "x-forwarded-host") == ([authority] if authority else [])


def test_a_unix_target_is_localhost() -> None:
    """A path is no host name."""
    asked, origin = heads.request(), heads.origin()
    writer = RequestWriter("web", HttpPlan(host="target"))
    head = writer.head(asked, heads.about(asked, came=origin), origin, "unix:/run/app.sock")
    assert named(head, "host") == ["localhost"]


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        ("GET", 0, {}),
        ("DELETE", 0, {}),
        ("POST", 0, {"content-length": ["0"]}),
        ("PUT", 0, {"content-length": ["0"]}),
        ("POST", 12, {"content-length": ["12"]}),
        ("GET", 3, {"content-length": ["3"]}),
        ("POST", CHUNKED, {"transfer-encoding": ["chunked"]}),
    ],
)
def test_framing_of_requests(method: str, length: int, framing: dict[str, list[str]]) -> None:
    """One way or the other, written anew; a POST without a body says so."""
    head = written(heads.request(method=method, length=length))
    for name in ("content-length", "transfer-encoding"):
        assert named(head, name) == framing.get(name, [])
    assert named(written(heads.request(method="POST"), length=7), "content-length") == ["7"]


def test_an_upgrade() -> None:
    """Asked for only where the caller says so."""
    asked = heads.request("/", ("Sec-WebSocket-Key", "k"), ("Upgrade", "websocket"))
    head = written(asked, upgrade=b"websocket")
    assert named(head, "connection") == ["upgrade"]
    assert named(head, "upgrade") == ["websocket"]
    assert named(head, "sec-websocket-key") == ["k"]
    assert named(written(asked), "upgrade") == named(written(asked), "connection") == []


def test_expect() -> None:
    """Passed on only where the caller says so."""
    assert named(written(heads.request(), expects_continue=True), "expect") == ["100-continue"]
    assert named(written(heads.request()), "expect") == []


RULES = FieldRules(
    remove=("x-old", "User-Agent"),
    set=(("X-Set", "fixed"), ("X-Ip", "{client_ip}"), ("X-Route", "{route}")),
    add=(("X-Add", "two"),),
)


def test_rules() -> None:
    """Removed and set by name in any case, all values of it; added behind what is there."""
    asked = heads.request(
        "/", ("X-Old", "1"), ("x-OLD", "2"), ("user-agent", "u"), ("x-set", "a"), ("X-SET", "b"),
        ("X-IP", "10.0.0.1"), ("X-Add", "one"), ("Accept", "*/*"),
    )  # fmt: skip
    head = written(asked, HttpPlan(request=RULES))
    assert named(head, "x-old") == named(head, "user-agent") == []
    assert named(head, "x-set") == ["fixed"]
    assert named(head, "x-ip") == ["203.0.113.5"]
    assert named(head, "x-route") == ["web"]
    assert named(head, "x-add") == ["one", "two"]
    assert named(head, "accept") == ["*/*"]


def test_rules_see_each_request() -> None:
    """Two requests with the same field block are rendered apart, and routes do not mix."""
    writer = RequestWriter("web", HttpPlan(request=FieldRules(set=(("X-Path", "{path}"),))))
    other = RequestWriter("web", HttpPlan(request=FieldRules(remove=("a",))))
    origin, first, second = heads.origin(), heads.request("/1", ("A", "b")), heads.request("/2")
    second.fields = first.fields
    for asked in (first, second, first):
        head = writer.head(asked, heads.about(asked, came=origin), origin, TARGET)
        assert named(head, "x-path") == [asked.path]
        assert named(head, "a") == ["b"]
        assert named(other.head(asked, heads.about(asked), origin, TARGET), "a") == []


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "X-Real-IP", "x-forwarded-proto", "Forwarded", "X-Request-Id",
             "traceparent"],
)  # fmt: skip
@pytest.mark.parametrize("trusted", [(), ("203.0.113.0/24",)])
def test_rules_rule_over_what_we_write(name: str, trusted: tuple[str, ...]) -> None:
    """A forwarding field can be set, added to and removed like any other."""
    asked = heads.request("/", (name, GOOD_TRACE))
    own = written(asked, trusted=trusted)
    assert len(named(own, name)) == 1
    removed = written(asked, HttpPlan(request=FieldRules(remove=(name,))), trusted=trusted)
    assert named(removed, name) == []
    assert len(heads.lines_of(removed)) == len(heads.lines_of(own)) - 1
    changed = written(asked, HttpPlan(request=FieldRules(set=((name, "v"),))), trusted=trusted)
    assert named(changed, name) == ["v"]
    added = written(asked, HttpPlan(request=FieldRules(add=((name, "v"),))), trusted=trusted)
    assert sorted(named(added, name)) == sorted([*named(own, name), "v"])


def test_what_a_client_says_of_itself_does_not_cross() -> None:
    """From a trusted forwarder it does."""
    asked = heads.request("/", ("X-Forwarded-For", "192.0.2.1"), ("X-Request-ID", "theirs"))
    assert b"192.0.2.1" not in written(asked)
    assert named(written(asked), "x-request-id") == [ID]
    believed = written(asked, trusted=("203.0.113.0/24",))
    assert named(believed, "x-forwarded-for") == ["192.0.2.1, 203.0.113.5"]
    assert named(believed, "x-request-id") == ["theirs"]


OTHERS = [
    "X-Forwarded", "X-Forwarded-By", "X-Forwarded-Prefix", "X-Forwarded-Protocol",
    "X-Forwarded-Scheme", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Client-IP",
    "X-Cluster-Client-IP", "X-Url-Scheme", "Front-End-Https", "True-Client-IP",
    "X-Original-Forwarded-For",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_forwarding_fields_that_we_do_not_write(name: str) -> None:
    """From a trusted forwarder they cross as they came, if no rule is for them; else never."""
    asked = heads.request("/", (name, "said, 1"), ("A", "b"), (name.lower(), "2"))
    trusted = ("203.0.113.0/24",)
    assert named(written(asked), name) == []
    assert named(written(asked), "a") == ["b"]
    assert named(written(asked, trusted=trusted), name) == ["said, 1", "2"]
    removed = HttpPlan(request=FieldRules(remove=(name,)))
    assert named(written(asked, removed, trusted=trusted), name) == []
    ours = HttpPlan(request=FieldRules(set=((name, "ours"),)))
    for forwarders in ((), trusted):
        assert named(written(asked, ours, trusted=forwarders), name) == ["ours"]
    of_one = heads.request("/", (name, "said"))
    of_one.fields.connection = frozenset({name.lower().encode()})
    assert named(written(of_one, trusted=trusted), name) == []
    underscored = heads.request("/", (name.replace("-", "_"), "said"))
    assert b"said" not in written(underscored, HttpPlan(underscores="pass"), trusted=trusted)


@pytest.mark.parametrize(
    "value",
    [GOOD_TRACE, GOOD_TRACE[:-2] + "00", "cc" + GOOD_TRACE[2:], "01" + GOOD_TRACE[2:] + "-later"],
)
def test_a_trace_goes_on(value: str) -> None:
    """What is valid is passed on with its state; later versions may say more."""
    head = written(heads.request("/", ("traceparent", value), ("tracestate", "a=b")))
    assert named(head, "traceparent") == [value]
    assert named(head, "tracestate") == ["a=b"]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["x"],
        [GOOD_TRACE.upper()],
        ["ff" + GOOD_TRACE[2:]],
        [GOOD_TRACE + "-later"],
        [GOOD_TRACE + "0"],
        ["00-" + "0" * 32 + GOOD_TRACE[35:]],
        [GOOD_TRACE[:36] + "0" * 16 + "-01"],
        [GOOD_TRACE, GOOD_TRACE],
    ],
)
def test_a_trace_begins(values: list[str]) -> None:
    """Without a valid one a new trace is made, and a state that belongs to none is dropped."""
    lines = [("traceparent", value) for value in values]
    head = written(heads.request("/", *lines, ("TraceState", "a=b"), ("A", "b")))
    assert named(head, "traceparent") == [TRACE]
    assert named(head, "tracestate") == []
    assert named(head, "a") == ["b"]


def test_names_with_underscores() -> None:
    """Passed on where the config says so, but never as another spelling of what we write."""
    asked = heads.request(
        "/", ("my_name", "1"), ("X_Forwarded_For", "6"), ("content_length", "6"), ("x_gone", "6"),
        ("hop_name", "6"),
    )  # fmt: skip
    asked.fields.connection = frozenset({b"hop_name"})
    assert b"_" not in written(asked)
    rules = FieldRules(remove=("X-Gone",))
    head = written(asked, HttpPlan(underscores="pass", request=rules))
    assert named(head, "my_name") == ["1"]
    assert b": 6\r\n" not in head


@given(
    lines=st.lists(
        st.tuples(
            st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True),
            st.from_regex(r"([!-~]([ -~]{0,12}[!-~])?)?", fullmatch=True),
        ).filter(lambda line: line[0].lower() not in ("expect", "te", "trailer", "keep-alive")),
        max_size=6,
    ),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    length=st.sampled_from([0, 4, CHUNKED]),
    is_ruled=st.booleans(),
)
def test_another_parser_reads_one_request(
    lines: list[heads.Line], method: str, length: int, is_ruled: bool
) -> None:
    """Whatever the fields, h11 sees the request that was meant, with its framing."""
    asked = heads.request("/p", *lines, method=method, length=length)
    head = written(asked, HttpPlan(request=RULES) if is_ruled else None)
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(head)
    event = reader.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (method.encode(), b"/p")
    seen = dict(event.headers)
    assert seen.get(b"transfer-encoding") == (b"chunked" if length == CHUNKED else None)
    if length > 0:
        assert seen[b"content-length"] == b"4"
    if not is_ruled:
        ours = [(name.lower().encode(), value.encode()) for name, value in lines]
        for line in ours:
            dropped = heads.fields((line[0].decode(), "")).kept == b""
            assert dropped or line[0] in (b"traceparent", b"tracestate") or line in event.headers
