"""API keys: what an entry may look like, what is said of one that may not, and a file that changes under a running service."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import pickle
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app import keys as module
from app.keys import ADMIN, LONGEST, MOST_BYTES, MOST_KEYS, PREDICT, Keys, KeysError, new_key, parse
from app.settings import Settings, SettingsError
from tests.app.asgi import until

FIRST, SECOND, THIRD = "first-key-of-many", "second-key-of-many", "third-key-of-many"


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def holds(keys: Keys, *expected: str) -> bool:
    """Whether these are good, and no other of the three is."""
    return {key for key in (FIRST, SECOND, THIRD) if keys.find(key.encode())} == set(expected)


# entries


@pytest.mark.parametrize(
    ("entry", "name", "scopes"),
    [
        (FIRST, "key-1", {PREDICT}),
        (f"web:predict:{FIRST}", "web", {PREDICT}),
        (f"ops.1:admin:{FIRST}", "ops.1", {ADMIN}),
        (f"a_b-c:predict+admin:{FIRST}", "a_b-c", {PREDICT, ADMIN}),
        (f"x:admin+predict:{FIRST}", "x", {PREDICT, ADMIN}),
        (f"x:predict:sha256:{sha256(FIRST)}", "x", {PREDICT}),
        (f"x:predict:SHA256:{sha256(FIRST).upper()}", "x", {PREDICT}),
    ],
)
def test_an_entry(entry: str, name: str, scopes: set[str]) -> None:
    key = parse(entry, "key-1")
    assert (key.name, set(key.scopes), key.digest.hex()) == (name, scopes, sha256(FIRST))
    assert key.plain == ("sha256" not in entry.lower())


BAD = [
    ("0123456789abcde", "16 to 512 characters"), ("x" * (LONGEST + 1), "16 to 512 characters"), ("x:predict:short", "16 to"),
    ("sixteen chars ok?", "letters, digits"), ("sixteen-charactérs", "letters, digits"), ("a" * 16 + "=b", "letters, digits"),
    (f"web:{FIRST}", "an entry is"), (f"web:predict:md5:{sha256(FIRST)}", "an entry is"), (f"a:b:c:d:{FIRST}", "an entry is"),
    (f"web:predict:sha256:{sha256(FIRST)[:-1]}", "64 hexadecimal"), (f"web:predict:sha256:{'g' * 64}", "64 hexadecimal"),
    (f"web:predicts:{FIRST}", "scopes are"), (f"web::{FIRST}", "scopes are"), (f"web:predict+predict:{FIRST}", "scopes are"),
    (f":predict:{FIRST}", "a name has"), (f"a b:predict:{FIRST}", "a name has"), (f"{'n' * 65}:predict:{FIRST}", "a name has"),
    (f"{FIRST}\n:predict:{FIRST}", "a name has"), (f"{FIRST}:predict", "an entry is"), (f"predict:{FIRST}:web", "scopes are"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "says"), BAD)
def test_a_bad_entry_is_told_where_and_why_and_never_what(tmp_path: Path, entry: str, says: str) -> None:
    with pytest.raises(KeysError, match=re.escape(says)) as caught:
        Keys(f"{SECOND},{entry}", None)
    assert str(caught.value).startswith("SKNET_API_KEYS, entry 2: ")
    secrets = [part for part in re.split("[:+]", entry) if len(part) > 8 and part not in ("predict", "sha256")]
    assert not any(secret in str(caught.value) for secret in secrets)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    if "\n" not in entry:
        file = tmp_path / "keys"
        file.write_text(f"# a comment\n\n{entry}\n")
        with pytest.raises(SettingsError, match=re.escape(says)) as told:
            Keys.of(Settings(api_keys_file=file))
        assert str(told.value).startswith(f"SKNET_API_KEYS_FILE ({file}), line 3: ")
        assert "\n" not in str(told.value)


@given(st.text(max_size=200))
def test_any_text_is_a_key_or_a_fault(entry: str) -> None:
    try:
        key = parse(entry, "default")
    except KeysError:
        return
    assert key.scopes <= {PREDICT, ADMIN}
    assert len(key.digest) == 32


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (f"a:predict:{FIRST},a:predict:{SECOND}", "entry 2: its name is that of an entry before it"),
        (f"a:predict:{FIRST},b:admin:{FIRST}", "entry 2: its key is that of an entry before it"),
        (f"{FIRST}, b:admin:sha256:{sha256(FIRST)}", "entry 2: its key is that of an entry before it"),
        (f"key-2:predict:{FIRST},{SECOND}", "entry 2: its name is that of an entry before it"),
        (" , ,", "SKNET_API_KEYS holds no key"),
    ],
)
def test_keys_and_names_are_each_ones_own(entries: str, says: str) -> None:
    with pytest.raises(KeysError, match=re.escape(says)):
        Keys(entries, None)


def test_as_many_as_can_be_compared_with_at_every_request() -> None:
    entries = [f"k{i}:predict:sha256:{sha256(str(i))}" for i in range(MOST_KEYS + 1)]
    assert len(Keys(",".join(entries[:-1]), None)) == MOST_KEYS
    with pytest.raises(KeysError, match="at most 1000"):
        Keys(",".join(entries), None)


# what is held and compared


def test_only_digests_are_held_and_nothing_shows_them() -> None:
    keys = Keys(f"web:predict:{FIRST},ops:admin:sha256:{sha256(SECOND)}", None)
    assert FIRST.encode() not in pickle.dumps(keys._keys)
    assert sha256(FIRST)[:8] not in repr(keys._keys)
    assert FIRST not in repr(keys._keys)


def test_a_key_is_found_by_what_it_is() -> None:
    keys = Keys(f"web:predict:{FIRST},ops:admin:sha256:{sha256(SECOND)}", None)
    found = keys.find(FIRST.encode()), keys.find(SECOND.encode())
    assert [key and key.name for key in found] == ["web", "ops"]
    for wrong in (FIRST[:-1], FIRST + "x", FIRST.upper(), "", "web", sha256(SECOND), f"web:predict:{FIRST}", "x" * 70_000):
        assert keys.find(wrong.encode()) is None


def test_every_key_is_compared_with_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time each; and the first of them must not be answered sooner than the last."""
    keys = Keys(f"{FIRST},{SECOND},{THIRD}", None)
    compared: list[bytes] = []
    compare_digest = hmac.compare_digest

    def compare(held: bytes, presented: bytes) -> bool:
        compared.append(held)
        return compare_digest(held, presented)

    monkeypatch.setattr("app.keys.hmac.compare_digest", compare)
    for presented in (FIRST, SECOND, THIRD, "another-key-of-many"):
        compared.clear()
        keys.find(presented.encode())
        assert len(compared) == 3


def test_a_new_key_is_let_in_by_its_line_and_its_line_does_not_hold_it() -> None:
    key, line = new_key("web", "predict+admin")
    assert key not in line
    assert len(key) > 43  # 256 bits, six to a character
    found = Keys(line, None).find(key.encode())
    assert found is not None
    assert (found.name, set(found.scopes), found.plain) == ("web", {PREDICT, ADMIN}, False)
    assert new_key("web", "predict")[0] != key


# where they come from


def test_without_any_there_are_none(tmp_path: Path) -> None:
    assert Keys.of(Settings()) is None
    file = tmp_path / "keys"
    file.write_text(SECOND)
    both = Keys.of(Settings(api_keys=SecretStr(FIRST), api_keys_file=file))
    assert both is not None
    assert holds(both, FIRST, SECOND)


def test_a_file_has_comments_and_empty_lines_and_may_begin_with_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(f"\ufeff# ours\r\n\r\n  {FIRST}  # the page\r\nops:admin:{SECOND}\t#\n#{THIRD}".encode())
    keys = Keys(None, file)
    assert holds(keys, FIRST, SECOND)
    first = keys.find(FIRST.encode())
    assert first is not None
    assert first.name == "line-3"


def test_a_hash_within_a_key_does_not_cut_it_short(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{FIRST}#and-the-rest-of-it")
    with pytest.raises(KeysError, match="letters, digits"):
        Keys(None, file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory"), (b"", "holds no key"), (b"# nobody\n", "holds no key"),
        (b"\xff\xfe" + b"x" * 20, "is no text in UTF-8"), (b"#" * (MOST_BYTES + 1), "has more than 1000000 bytes"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_does_not_start(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(KeysError, match=says):
        Keys(FIRST, file)  # the variable's keys do not make up for it


def test_only_a_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # a reader would wait for a writer
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(KeysError, match="is no file"):
            Keys(None, path)


def test_keys_in_plain_sight_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"web:predict:{FIRST}")
    file.chmod(0o644)
    assert Keys(None, file).file_gives_keys_away
    file.chmod(0o640)
    assert not Keys(None, file).file_gives_keys_away
    file.chmod(0o644)
    file.write_text(f"web:predict:sha256:{sha256(FIRST)}")
    assert not Keys(None, file).file_gives_keys_away
    assert not Keys(SECOND, file).file_gives_keys_away
    assert not Keys(SECOND, None).file_gives_keys_away


# a file that changes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(FIRST + "\n")
    return path


def replace(file: Path, text: str) -> None:
    """As careful programs do: written beside it, then put in its place."""
    beside = file.with_name("new")
    beside.write_text(text)
    beside.replace(file)


def look(keys: Keys) -> None:
    """As often as it takes to see a change that is over."""
    keys.look()
    keys.look()


def test_a_change_is_seen_and_logged_without_a_key(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sknet.keys")
    keys = Keys(None, file)
    look(keys)
    assert (holds(keys, FIRST), caplog.messages) == (True, [])
    replace(file, f"{FIRST}\n{SECOND}\n")
    look(keys)
    assert holds(keys, FIRST, SECOND)
    with file.open("a") as more:  # in its place, as an editor may
        more.write(THIRD)
    look(keys)
    assert holds(keys, FIRST, SECOND, THIRD)
    replace(file, SECOND)
    look(keys)
    assert holds(keys, SECOND)
    assert caplog.messages == [f"keys were read again; there are {n} now" for n in (2, 3, 1)]


def test_a_file_that_is_being_written_is_not_read_half_way(file: Path) -> None:
    file.write_text(f"{FIRST}\n{SECOND}\n")
    keys = Keys(None, file)
    with file.open("w") as written:  # in its place, a line at a time
        for key in (FIRST, SECOND, THIRD):
            print(key, file=written, flush=True)
            keys.look()
            assert holds(keys, FIRST, SECOND)
    keys.look()
    assert holds(keys, FIRST, SECOND, THIRD)


def test_a_file_that_changes_while_it_is_read_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(None, file)
    replace(file, SECOND)
    read = keys._read

    def slow() -> tuple[module.Key, ...]:
        found = read()
        replace(file, THIRD)
        return found

    monkeypatch.setattr(keys, "_read", slow)
    look(keys)
    assert holds(keys, FIRST)
    monkeypatch.undo()
    look(keys)
    assert holds(keys, THIRD)


def test_a_link_that_is_turned_to_another_file_is_seen(file: Path) -> None:
    """How Kubernetes renews what it mounts."""
    link = file.with_name("link")
    link.symlink_to(file)
    keys = Keys(None, link)
    other = file.with_name("other")
    other.write_text(THIRD)
    turned = file.with_name("turned")
    turned.symlink_to(other)
    turned.replace(link)
    look(keys)
    assert holds(keys, THIRD)


@pytest.mark.parametrize("bad", ["", f"{SECOND}\nshort\n", f"{SECOND}\n{SECOND}", "x:y", None, "\udcff"])
def test_what_cannot_be_used_leaves_the_keys_as_they_were(file: Path, bad: str | None, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys(None, file)
    if bad is None:
        file.unlink()
    else:
        file.write_bytes(bad.encode("utf-8", "surrogateescape"))
    for _ in range(3):
        look(keys)
    assert holds(keys, FIRST)
    (record,) = caplog.records  # once, not at every look
    assert (record.name, record.levelname) == ("sknet.keys", "ERROR")
    assert "the keys stay as they were: SKNET_API_KEYS_FILE" in record.getMessage()
    assert SECOND not in caplog.text
    replace(file, THIRD)
    look(keys)
    assert holds(keys, THIRD)


async def test_the_file_is_watched_while_it_should_be(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    keys = Keys(None, file)
    for key in (SECOND, THIRD):  # an application may be started again
        keys.start()
        try:
            replace(file, key)
            await until(lambda key=key: holds(keys, key))
        finally:
            keys.stop()
    await until(lambda: "keys" not in {thread.name for thread in threading.enumerate()})


def test_asking_touches_no_file(file: Path) -> None:
    keys = Keys(None, file)
    file.unlink()
    assert holds(keys, FIRST)
