"""The form of API keys."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevenfold.contracts.access.api_keys import generate_key, parse_key


def test_a_key_is_one_word_of_letters_digits_and_underscores() -> None:
    for _ in range(200):
        assert re.fullmatch(r"sf_[0-9a-z]{12}_[0-9A-Za-z]{49}", generate_key().text)


def test_a_key_is_parsed_to_its_id_and_hash() -> None:
    new = generate_key()
    presented = parse_key(new.text)
    assert presented is not None
    assert (presented.key_id, presented.hash) == (new.key_id, new.hash)
    assert new.text not in new.hash


@given(st.integers(3, 64), st.sampled_from(string.ascii_letters + string.digits + "_"))
def test_one_wrong_character_is_found_without_a_lookup(position: int, character: str) -> None:
    text = generate_key().text
    wrong = text[:position] + character + text[position + 1 :]
    assert wrong == text or parse_key(wrong) is None


@given(st.integers(3, 63))
def test_two_exchanged_characters_are_found_without_a_lookup(position: int) -> None:
    text = generate_key().text
    wrong = text[:position] + text[position + 1] + text[position] + text[position + 2 :]
    assert wrong == text or parse_key(wrong) is None


@pytest.mark.parametrize("cut", [1, 6, 20, 49, 60])
def test_a_truncated_key_is_refused(cut: int) -> None:
    assert parse_key(generate_key().text[:-cut]) is None


@given(st.text(max_size=100))
def test_no_text_makes_the_parser_fail(text: str) -> None:
    assert parse_key(text) is None
    assert parse_key(f"sf_{text}") is None


def test_a_secret_beyond_32_bytes_is_refused() -> None:
    from sevenfold.contracts.access.api_keys import _checksum  # noqa: PLC0415  (the only way to a right checksum)

    body = "sf_" + "a" * 12 + "_" + "z" * 43
    assert parse_key(body + _checksum(body)) is None
