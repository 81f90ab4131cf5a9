"""The page of the promises lists the tests that prove each promise, and no promise lacks tests."""

import importlib.util
from types import ModuleType
from typing import Any

import pytest
from pages import ROOT


def _script() -> ModuleType:
    """`scripts/promises.py`."""
    spec = importlib.util.spec_from_file_location("promises", ROOT / "scripts" / "promises.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT: Any = _script()


def test_the_promises_have_numbers() -> None:
    """From 1 to 9, in the headings of the page."""
    assert list(SCRIPT.promises()) == list(range(1, 10))


@pytest.mark.parametrize("kind", [SCRIPT.Kind.SIMULATOR, SCRIPT.Kind.PROCESSES])
@pytest.mark.parametrize("promise", SCRIPT.promises())
def test_every_promise_is_proved(promise: int, kind: Any) -> None:
    """By at least a test on the simulator, and at least a test with real processes."""
    found = [each.test for each in SCRIPT.proofs() if (each.promise, each.kind) == (promise, kind)]
    assert found, f"no test of the kind {kind.value!r} is marked with pytest.mark.promise({promise})"


def test_the_page_lists_the_tests() -> None:
    """The page has the lists that `scripts/promises.py` makes from the markers."""
    page = SCRIPT.PROMISES_PAGE.read_text(encoding="utf-8")
    assert page == SCRIPT.updated(page, SCRIPT.proofs()), "out of date: run `python scripts/promises.py`"


def test_the_script_reads_the_markers_as_pytest_does(request: pytest.FixtureRequest) -> None:
    """The script finds every marker that pytest finds on the tests of this run."""
    read = {(each.file, each.test, each.promise) for each in SCRIPT.proofs()}
    for item in request.session.items:
        file, name = item.path.relative_to(ROOT).as_posix(), getattr(item, "originalname", item.name)
        marked = {(file, name, number) for mark in item.iter_markers("promise") for number in mark.args}
        assert marked <= read, f"{item.nodeid}: scripts/promises.py does not see the marker"
