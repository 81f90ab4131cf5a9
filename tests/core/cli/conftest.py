"""A store for each test of a command, and a way to run commands on it."""

import secrets

import pytest
from cli_kit import Invoke, invoke_on


@pytest.fixture
def url() -> str:
    """A store of this process that no other test uses."""
    return f"memory://{secrets.token_hex(8)}"


@pytest.fixture
def invoke(url: str) -> Invoke:
    """Run a command on the store at *url*."""
    return invoke_on(url)
