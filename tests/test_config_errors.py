"""Mistakes in `sevenfold.toml` and in settings are named in words, with line and key."""

from pathlib import Path

import pytest

from sevenfold.contracts.spelling import suggest
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import find_misspelt, load_settings
from sevenfold.runtime.config.toml_lines import find_line
from sevenfold.runtime.startup import StartupError

FILE = """# our gateway
default_agent = "support"
[agents.support]
kind = "python"
{}
[agents."with dot.s"]
kind = "builtin"
[[subscriptions]]
name = "first"
filter = {{ exact = {{ type = "a" }} }}
task = "t"
[[subscriptions]]
name = "second"
task = "t"
[brokers.main]
kind = "nats"
url = "nats://127.0.0.1"
[[brokers.main.consume]]
from = "a"
[[brokers.main.consume]]
from = "b"
concurrency = {}
"""


def mistakes(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "sevenfold.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StartupError) as raised:
        load_config(path)
    first, *lines = str(raised.value).splitlines()
    assert first == f"{path} has mistakes:"
    return [line.strip() for line in lines]


def test_every_mistake_has_its_line_and_key(tmp_path: Path) -> None:
    found = mistakes(tmp_path, FILE.format('taget = "support:answer"', '"many"'))
    assert found == [
        "line 3: agents.support.target: is missing",
        "line 5: agents.support.taget: there is no such key; did you mean target?",
        "line 6: agents.with dot.s: must be a name of letters, digits and . _ -",
        "line 12: subscriptions.1.filter: is missing",
        "line 22: brokers.main.consume.1.concurrency: must be a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[agents.a]\nkind = "pyton"\n', "line 1: agents.a: kind must be one of python, command, builtin, "),
        ('[agents.a]\nkind = "pyton"\n', "did you mean python?"),
        ('[agents.a]\ntarget = "a:b"\n', "line 1: agents.a: has no kind"),
        ("[agnets]\n", "line 1: agnets: there is no such key; did you mean agents?"),
        ("[metrics]\nxyz = 1\n", "line 2: metrics.xyz: there is no such key; there are: tasks, tenants"),
        ('metrics.tenants = "maybe"\n', "line 1: metrics.tenants: must be true or false"),
        ("agents = 3\n", "line 1: agents: must be a table"),
        ('[agents.a]\nkind = "http"\nurl = 5\n', "line 3: agents.a.url: must be text in quotes"),
        (
            '[agents.a]\nkind = "http"\nurl = "http://a"\nmax_concurrency = 0\n',
            "line 4: agents.a.max_concurrency: must be at least 1",
        ),
        ('default_agent = "suport"\n[agents.support]\nkind="builtin"\n', "did you mean support?"),
        ('[brokers.m]\nkind = "kafka"\n', "line 1: brokers.m: set either url or url_env"),
        ("[tenants.a.budget]\ntokens = -1\n", "line 2: tenants.a.budget.tokens: must be at least 0"),
    ],
)
def test_mistakes_are_named_in_words(tmp_path: Path, text: str, expected: str) -> None:
    found = "\n".join(mistakes(tmp_path, text))
    assert expected in found
    for pydantics in ("Input should", "Extra inputs", "Field required", "pydantic", "Value error"):
        assert pydantics not in found


def test_no_value_is_shown(tmp_path: Path) -> None:
    found = mistakes(tmp_path, '[agents.a]\nkind = "http"\nurl = ["sk-secret"]\ntoken = "sk-secret"\n')
    assert "sk-secret" not in str(found)


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (["agents", "support", "kind"], 4),
        (["subscriptions", 0, "task"], 11),
        (["subscriptions", 1, "task"], 14),
        (["brokers", "main", "consume", 1, "from"], 21),
        (["brokers", "other"], 15),
        (["webhooks"], None),
        ([], None),
    ],
)
def test_toml_keys_are_found_with_their_lines(location: list[int | str], line: int | None) -> None:
    assert find_line(FILE.format("", 1), location) == line


ODD = """# keys as TOML permits them, and text that looks like one
agents.a = {kind = "builtin"}
["agents" . 'b c']
"kin\\u0064" = \'\'\'
kind = 5
\'\'\'
[[subscriptions]]
tags = [
  1,
]
[[ "subscriptions" ]]
filter = {any = [{exact = {type = "a"}}]}
"""


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("agents", "a", "kind"), 2),
        (("agents", "b c"), 3),
        (("agents", "b c", "kind"), 4),
        (("agents", "b c", "target"), 3),
        (("subscriptions", 0, "tags", 0), 8),
        (("subscriptions", 1), 11),
        (("subscriptions", 1, "filter", "any", 0, "exact"), 12),
        (("brokers",), None),
    ],
)
def test_keys_are_found_however_they_are_written(location: tuple[int | str, ...], line: int | None) -> None:
    assert find_line(ODD, location) == line


def test_settings_are_named_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEVENFOLD_PORT", "many")
    monkeypatch.setenv("SEVENFOLD_GRACE_SECONDS", "-1")
    with pytest.raises(StartupError) as raised:
        load_settings()
    assert "SEVENFOLD_PORT: must be a whole number" in str(raised.value)
    assert "SEVENFOLD_GRACE_SECONDS: must be at least 0" in str(raised.value)


def test_a_misspelt_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEVENFOLD_DATADIR", "/data")
    monkeypatch.setenv("SEVENFOLD_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SEVENFOLD_PORT_8000_TCP", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("SEVENFOLD_OUR_WEBHOOK_SECRET", "whsec_x")
    assert find_misspelt() == ["SEVENFOLD_DATADIR is no setting; did you mean SEVENFOLD_DATA_DIR?"]


def test_only_close_names_are_suggested() -> None:
    assert suggest("suport", ["support", "builtin"]) == "; did you mean support?"
    assert suggest("weather", ["support", "builtin"]) == ""
