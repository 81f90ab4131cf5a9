"""`connect` finds the backend a URL asks for, or says what to do, and never repeats a secret."""

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest

from smoothcluster.errors import MissingDriverError, UnknownSchemeError, UsageError
from smoothcluster.registry import BACKEND_VARIABLE, connect, masked, schemes

ADAPTER = """
class Backend:
    def __init__(self, url, options):
        self.url, self.options = url, options

    @classmethod
    def from_url(cls, url, *, timeout=10.0, **more):
        return cls(url, {"timeout": timeout, **more})
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one adapter on the path, as pip would."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def put(scheme: str, code: str = ADAPTER, *, requires: tuple[str, ...] = (), dist: str = "acme") -> None:
        module = f"smoothcluster_{scheme}_{dist}"
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(dedent(code))
        info = tmp_path / f"{dist}_{scheme}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {dist}-{scheme}", "Version: 1.0"]
        (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {line}" for line in requires), ""]))
        (info / "entry_points.txt").write_text(f"[smoothcluster.backends]\n{scheme} = {module}:Backend\n")
        importlib.invalidate_caches()

    return put


def test_url_and_options_reach_the_adapter(install: Install) -> None:
    """The adapter gets the whole URL and every option."""
    install("acme")
    backend = connect("acme://h1:1,h2:2/chroot", timeout=3.0)
    assert vars(backend) == {"url": "acme://h1:1,h2:2/chroot", "options": {"timeout": 3.0}}


def test_scheme_is_found_in_any_case(install: Install) -> None:
    """Schemes are the same in capitals and small letters; the adapter sees the latter."""
    install("acme")
    assert connect("ACME://Host").url == "acme://Host"


def test_environment_names_the_default(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL, the environment's is used."""
    install("acme")
    monkeypatch.setenv(BACKEND_VARIABLE, "acme://from-environment")
    assert connect().url == "acme://from-environment"


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_given_is_a_file_of_the_users_own(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With neither URL nor environment there is a default that needs no server; it is not made before it is used."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(BACKEND_VARIABLE, value)
    assert connect().url == f"sqlite:///{tmp_path}/smoothcluster/cluster.db"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["", "127.0.0.1:2181", "://h", "h:1/chroot", "1a://h", "zookeeper:h"])
def test_url_without_a_scheme_is_refused(url: str) -> None:
    """What does not begin with a scheme is no URL; the error shows how one looks."""
    with pytest.raises(UsageError, match="must begin with a scheme, as in zookeeper://"):
        connect(url)


def test_unknown_scheme_names_the_known_and_the_nearest() -> None:
    """A slip of the pen is answered with the scheme that was meant."""
    says = r"zookeper://: the known schemes are .*memory://.*; did you mean zookeeper://\?"
    with pytest.raises(UnknownSchemeError, match=says):
        connect("zookeper://h")


def test_scheme_of_a_package_not_installed_says_so() -> None:
    """A scheme like no other is taken for one that some other package would bring."""
    with pytest.raises(UnknownSchemeError, match="install the package of the backend first"):
        connect("carrier-pigeon://h")


def test_no_backend_at_all_means_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any entry point, even our own, the library is not installed; the error says that."""
    monkeypatch.setattr(sys, "path", [])
    importlib.invalidate_caches()
    with pytest.raises(UnknownSchemeError, match="a checkout on the path is not enough"):
        connect("memory://")


def test_missing_driver_of_an_extra_names_the_extra(install: Install) -> None:
    """A driver that an extra would bring is asked for by the extra's name."""
    install("acme", "import acme_driver", requires=('acme-driver>=2; extra == "acme_acme"', "other; extra == 'all'"))
    with pytest.raises(MissingDriverError, match=r"\(acme_driver\): pip install 'acme-acme\[acme_acme\]'"):
        connect("acme://h")


def test_missing_driver_of_another_package_names_the_driver(install: Install) -> None:
    """An adapter from elsewhere whose plain requirement has gone is told by that requirement."""
    install("acme", "import acme_driver.client", requires=("pytest", "acme-driver (>=2)"))
    with pytest.raises(MissingDriverError, match=r"\(acme_driver\): pip install 'acme-driver'"):
        connect("acme://h")


def test_driver_is_not_blamed_when_it_is_installed(install: Install) -> None:
    """If all that the adapter asks for is there, a module not found is its own mistake."""
    install("acme", "import pytset", requires=("pytest; extra == 'acme_acme'",))
    with pytest.raises(ModuleNotFoundError, match="pytset"):
        connect("acme://h")


def test_driver_is_not_blamed_for_our_own_modules(install: Install) -> None:
    """A module of the core or of the adapter that is not found is a mistake, driver or no driver."""
    install("acme", "import smoothcluster.no_such_module", requires=("acme-driver; extra == 'acme_acme'",))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        connect("acme://h")


def test_adapters_own_import_error_is_left_alone(install: Install) -> None:
    """A name that a module lacks is not a missing driver."""
    install("acme", "from json import no_such_name", requires=("acme-driver; extra == 'acme_acme'",))
    with pytest.raises(ImportError, match="no_such_name"):
        connect("acme://h")


def test_requirement_for_other_circumstances_is_no_missing_driver(install: Install) -> None:
    """What is asked for on other systems only does not count as missing here."""
    install("acme", "import pytset", requires=("acme-driver; sys_platform == 'plan9'", "???"))
    with pytest.raises(ModuleNotFoundError, match="pytset"):
        connect("acme://h")


def test_adapter_without_from_url_is_named(install: Install) -> None:
    """An entry point that names something else is a fault of its package, which is named."""
    install("acme", "class Backend: pass")
    with pytest.raises(TypeError, match="acme-acme, has no from_url"):
        connect("acme://h")


def test_two_backends_for_one_scheme_are_refused(install: Install) -> None:
    """Which of two is used is not left to chance."""
    install("acme")
    install("acme", dist="other")
    with pytest.raises(UsageError, match=r"more than one .* \(acme-acme\) and .* \(other-acme\)"):
        connect("acme://h")


def test_unknown_option_is_refused_with_the_known_ones(install: Install) -> None:
    """A misspelt option is an error before anything is connected."""
    install("acme", ADAPTER.replace(", **more", ""))
    with pytest.raises(
        UsageError, match="unexpected keyword argument 'timeoot'; the options of the backend are: timeout"
    ):
        connect("acme://h", timeoot=1)


def test_adapters_own_type_error_is_left_alone(install: Install) -> None:
    """A TypeError from inside the adapter is not taken for a wrong option."""
    install("acme", "class Backend:\n    from_url = staticmethod(lambda url: len(0))")
    with pytest.raises(TypeError, match="has no len"):
        connect("acme://h")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:secret@h:6379/0", "redis://***@h:6379/0"),
        ("redis://user:se/cr@et@h1,h2/0", "redis://***@h1,h2/0"),
        ("redis://user:secr?t@h", "redis://***@h"),
        ("user:secret@h:1", "***@h:1"),
        ("user:se://cret@h:1", "***@h:1"),
        ("etcd://h?password=secret", "etcd://h?***"),
    ],
)
def test_masked_shows_no_secret(url: str, shown: str) -> None:
    """Credentials are masked wherever they stand; the rest is shown."""
    assert masked(url) == shown


def test_errors_show_no_secret() -> None:
    """A URL that is refused is shown without its credentials."""
    with pytest.raises(UsageError) as caught:
        connect("user:secret@h:2181")
    assert "secret" not in str(caught.value)
    assert "h:2181" in str(caught.value)


def test_our_own_backends_are_registered() -> None:
    """The distribution registers every backend it ships."""
    assert {"memory", "zookeeper"} <= set(schemes())


@pytest.mark.skipif(find_spec("kazoo") is not None, reason="the driver is installed")
def test_zookeeper_without_its_driver_says_what_to_install() -> None:
    """The core installs without drivers, and says which extra brings one."""
    with pytest.raises(MissingDriverError, match=r"pip install 'smoothcluster\[zookeeper\]'"):
        connect("zookeeper://127.0.0.1:2181")
