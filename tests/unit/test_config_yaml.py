"""The two readers of YAML: the fast one gives up where the other one has something to say."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigError
from supervisor.config_file import load
from supervisor.config_positions import Positions
from supervisor.config_yaml import _NotPlainError, _read_all, _read_plain

YAML = "routes: [{match: {ports: [80]}, name: a, action: {type: forward, targets: ['[::1]:1']}}]"


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n", "a: !!str 1\n", "a: 1\na: 2\n", "<<: {a: 1}\n", "? [a]\n: 1\n",
        "a: 1\n---\nb: 2\n", "a: [1\n", "", "# nothing\n", "[" * 33 + "]" * 33, "? !!str a\n: 1\n",
        "? &k a\n: 1\nb: *k\n", "*x\n", "\x01", "'<<': {a: 1}\n",
    ],
)  # fmt: skip
def test_the_fast_reader_of_yaml_gives_up_on_what_it_must_not_judge(text: str) -> None:
    """Everything that has a problem, or a meaning beyond plain data, is for the other one."""
    with pytest.raises((_NotPlainError, yaml.YAMLError)):
        _read_plain(text)


_PLAIN_YAML = st.recursive(
    st.sampled_from(
        ["1", "-2.5", "0x1F", "true", "~", "no", "-", "'1'", '"~"', "a b", ".inf", "é"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(["a", "b c", "'1'", "1", "~"]), inner, max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {one}" for key, one in pairs.items()) + "}"
        )
    ),
    max_leaves=12,
)


@given(_PLAIN_YAML)
def test_both_readers_of_yaml_agree(text: str) -> None:
    """Where the fast one reads a text, the other one reads the same, without a problem."""
    try:
        data = _read_plain(text)
    except (_NotPlainError, yaml.YAMLError):
        return
    assert repr(_read_all(text, Positions("f"))) == repr((data, []))


def test_the_collector_is_on_again_after_a_config_was_read(tmp_path: Path) -> None:
    """A sound one or a broken one."""
    path = tmp_path / "c.yaml"
    for text in (YAML, "routes: nothing\n"):
        path.write_text(text)
        with contextlib.suppress(ConfigError):
            load(path)
        assert gc.isenabled()
