"""Paths of routes, and the index over many of them."""

from __future__ import annotations

import pytest

from shared.path_index import NO_PATH, PathIndex, PathPattern, path_rank

MANY = 3000


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/", "/", {}),
        ("/a", "/a", {}),
        ("/a", "/a/", None),
        ("/a", "/A", None),
        ("/a/*", "/a/", {"*": ""}),
        ("/a/*", "/a/b//c", {"*": "b//c"}),
        ("/a/*", "/a", None),
        ("/a*", "/abc/d", {"*": "bc/d"}),
        ("/a**", "/abc", {"*": "bc"}),
        ("*", "*", {"*": "*"}),
        ("/*", "*", None),
        ("*.png", "/x/y.png", {}),
        ("*.png", ".png", {}),
        ("/a/*/c", "/a//c", {}),
        ("/a/*/c", "/a/c", None),
        ("/a*a", "/a", None),
        ("/a*a", "/aa", {}),
        ("/users/:id", "/users/a%2Db", {"id": "a%2Db"}),
        ("/users/:id", "/users/", None),
        ("/users/:id", "/users/1/", None),
        ("/users/:id/", "/users/1/", {"id": "1"}),
        ("/:a/:b-c/x", "/1/2/x", {"a": "1", "b-c": "2"}),
        ("/:a/:b", "/1//2", None),
        ("/:a/x/*", "/1/x/2/3", {"a": "1", "*": "2/3"}),
        ("/*/:id/x", "/a/b/7/x", {"id": "7"}),
        ("/*/:id/x/*", "/a/b/7/x/y/8/x/z", {"id": "7", "*": "y/8/x/z"}),
        ("/*/:id", "/a/b/c", {"id": "c"}),
        ("/v1/items:batch", "/v1/items:batch", {}),
        ("/v1/*:batch", "/v1/items:batch", {}),
        ("/a.c", "/abc", None),
    ],
)
def test_what_a_path_matches(pattern: str, path: str, params: dict[str, str] | None) -> None:
    """Stars stand for anything, parameters for a segment, all else for itself."""
    found = PathPattern(pattern).match(path)
    assert (None if found is None else dict(found)) == params


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with neither"),
        ("a", "begins with neither"),
        (":id", "begins with neither"),
        ("/:", "names no parameter"),
        ("/:1", "names no parameter"),
        ("/:id.json", "names no parameter"),
        ("/a/:id*", "names no parameter"),
        ("/:id/x/:id", "two parameters :id"),
    ],
)
def test_what_is_no_path(text: str, why: str) -> None:
    """The message names the path and what is wrong with it."""
    with pytest.raises(ValueError, match=why):
        PathPattern(text)


def test_ranks() -> None:
    """Exact, then the longer literal prefix, whatever comes behind it, then none."""
    order = ["/", "/a/b/*", "/a/:x/y/z/*", "/*", "*.long.suffix"]
    ranks = [*map(path_rank, order), NO_PATH]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)
    assert path_rank("/a/:x") == path_rank("/a/*") == path_rank("/a/*/b")


def test_time_is_linear_for_hostile_paths() -> None:
    """Many stars over a path that nearly matches: one pass for each, not one for each choice."""
    pattern = PathPattern("/" + "*a" * 30 + "*b/:x/*c")
    assert pattern.match("/" + "a" * 30_000) is None
    assert PathPattern("/*/:a/:b/:c/:d/x").match("/" + "a/" * 10_000) is None


@pytest.mark.parametrize(
    "form",
    ["/p{}", "/p{}/*", "/p{}*", "/:a/p{}", "/:a/p{}/:b", "/:a/:b/p{}/*", "/*/p{}", "*.p{}",
     "/x/*/:a/p{}"],
)  # fmt: skip
def test_few_places_of_many(form: str) -> None:
    """However thousands of paths differ, few of them are looked at."""
    index: PathIndex[list[str]] = PathIndex(list)
    texts = [form.format(number) for number in range(MANY)]
    for text in texts:
        index.at(PathPattern(text)).append(text)
    for number in (0, 7, MANY - 1):
        path = form.format(number).replace("*", "u/v").replace(":a", "s").replace(":b", "t")
        near = [text for place in index.over(path) for text in place]
        assert form.format(number) in near
        assert len(near) < 10
    assert sorted(text for place in index for text in place) == sorted(texts)
