"""Run `scripts/test` on a fresh clone of the last commit, in surroundings that differ from this machine's.

    python scripts/elsewhere.py [NAME...] [--] [ARGUMENT OF scripts/test...]

Each NAME is one run, and without a NAME each surroundings has a run. `c-locale+no-root` is one run in both at once.
A run has an empty home, no variable of the caller (except those that lead pip to its registry), and Debian's Python
as the only Python, unless its name says otherwise. The last lines tell how each run ended. The status is 0 if at
least one run passed and none failed.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

OUR_CHECKOUT = Path(__file__).resolve().parent.parent

KNOWN_SURROUNDINGS = {
    "debian": "Debian's Python is the only Python",
    "python3.13": "Python 3.13 is the only Python",
    "c-locale": "LC_ALL=C",
    "auckland": "TZ=Pacific/Auckland",
    "odd-folder": "the path of the checkout has a space and an umlaut",
    "no-root": "the user is not root and has no sudo",
    "no-servers": "as no-root, and no server, shell or drawing program is installed",
}

SERVER_PROGRAMS = ("etcd*", "redis-*", "java", "zsh*", "fish*", "dot")
"""The programs that `no-servers` hides."""

SIGNALS_TO_LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SECONDS_TO_LEAVE = 60.0
"""Time that an interrupted run has to end what it started."""


class NotHereError(Exception):
    """This machine does not have what the surroundings need; the message names it."""


@dataclass
class Surroundings:
    """What one run of `scripts/test` finds."""

    names: frozenset[str]
    folder: Path
    """Empty and the run's own: it gets the clone, the home and the programs."""
    variables: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.checkout = self.folder / ("Über uns" if "odd-folder" in self.names else "checkout") / "smoothcluster"
        self.account = self._account()
        programs = self._programs()
        self.variables = {name: value for name, value in os.environ.items() if _leads_to_registry(name)}
        self.variables |= {"HOME": str(self.home), "PATH": programs, "LANG": "C.UTF-8"}
        if "c-locale" in self.names:
            self.variables["LC_ALL"] = "C"
        if "auckland" in self.names:
            self.variables["TZ"] = "Pacific/Auckland"

    def make(self) -> None:
        """Make the clone and the home."""
        self.home.mkdir()
        self.checkout.parent.mkdir(exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(OUR_CHECKOUT), str(self.checkout)], check=True)
        if self.account is not None:
            for path in (self.home, self.checkout, *self.checkout.rglob("*")):
                os.chown(path, self.account.pw_uid, self.account.pw_gid, follow_symlinks=False)

    def start(self, command: Sequence[str]) -> "subprocess.Popen[str]":
        """Start *command* in them, in a process group of its own."""
        account = self.account
        return subprocess.Popen(
            command,
            cwd=self.checkout,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            text=True,
            process_group=0,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
        )

    def _account(self) -> pwd.struct_passwd | None:
        """The user for the run, or None for the caller."""
        if os.geteuid() != 0 or not self.names & {"no-root", "no-servers"}:
            return None
        try:
            return pwd.getpwnam("nobody")
        except KeyError:
            raise NotHereError("there is no user called nobody") from None

    def _programs(self) -> str:
        """The PATH. To hide programs, make a folder with links to all others."""
        hidden = ["sudo"] if self.names & {"no-root", "no-servers"} else []
        if "no-servers" in self.names:
            hidden += SERVER_PROGRAMS
        python = _newer_python() if "python3.13" in self.names else None
        if python is not None:
            hidden.append("python*")
        elif not Path("/usr/bin/python3").exists():
            raise NotHereError("there is no /usr/bin/python3")
        if not hidden:
            return "/usr/bin:/bin"
        programs = self.folder / "bin"
        programs.mkdir()
        for path in [*Path("/usr/bin").iterdir(), *Path("/bin").iterdir()]:
            link = programs / path.name
            if not any(path.match(pattern) for pattern in hidden) and not link.is_symlink():
                link.symlink_to(path)
        if python is not None:
            for name in ("python", "python3", "python3.13"):
                (programs / name).symlink_to(python)
        return str(programs)


def _leads_to_registry(variable: str) -> bool:
    lowered = variable.lower()
    return lowered.startswith("pip_") or lowered.endswith("_proxy") or variable in {"SSL_CERT_FILE", "SSL_CERT_DIR"}


def _newer_python() -> Path:
    """The executable of Python 3.13 itself: what is called so on the PATH may be a script that chooses a Python."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = shutil.which("python3.13")
    for candidate in ([found] if found else []) + [str(path) for path in kept.glob("3.13.*/bin/python3.13")]:
        asked = [candidate, "-c", "import sys; print(sys.executable)"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return Path(done.stdout.strip()).resolve()
    raise NotHereError("there is no python3.13")


def run(names: str, arguments: Sequence[str]) -> tuple[bool | None, str]:
    """Run `scripts/test` in *names*; return whether the tests passed, or None if they did not run, and the reason."""
    folder = Path(tempfile.mkdtemp(prefix="elsewhere-"))
    folder.chmod(0o755)
    try:
        surroundings = Surroundings(frozenset(names.split("+")), folder)
        surroundings.make()
        if surroundings.start(["python3", "--version"]).wait():
            raise NotHereError("that user may not run this machine's Python")
        passed = ended(surroundings.start(["scripts/test", *arguments])) == 0
        return passed, counted(surroundings.checkout / ".tox" / "counts")
    except NotHereError as error:
        return None, str(error)
    finally:
        shutil.rmtree(folder)


def ended(tests: "subprocess.Popen[str]") -> int:
    """Wait for the end of *tests* and return the exit status. Pass an interrupt on to the whole group of *tests*."""
    try:
        return tests.wait()
    except KeyboardInterrupt:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(tests.pid, signal.SIGINT)
            tests.wait(SECONDS_TO_LEAVE)
        with suppress(ProcessLookupError):
            os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()
        raise


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Leave, whatever the signal; the next signals must not disturb that."""
    for number in SIGNALS_TO_LEAVE:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def counted(folder: Path) -> str:
    """The sum of the tests whose results lie in *folder*."""
    if not folder.is_dir():
        return "no tests"
    tally = [sys.executable, str(OUR_CHECKOUT / "scripts" / "tally.py"), str(folder)]
    return subprocess.run(tally, capture_output=True, text=True, check=False).stdout.splitlines()[-1]


def parsed(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of the runs, and the arguments of `scripts/test`. Exit if a name is unknown."""
    begin = next((number for number, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    names, others = list(arguments[:begin]), list(arguments[begin:])
    for name in "+".join(names).split("+") if names else []:
        if name not in KNOWN_SURROUNDINGS:
            sys.exit(f"unknown surroundings: {name!r}. There are: {', '.join(KNOWN_SURROUNDINGS)}")
    return names or list(KNOWN_SURROUNDINGS), others[1:] if others[:1] == ["--"] else others


def main(arguments: Sequence[str]) -> int:
    """Do what the module says, and return the exit status."""
    if arguments[:1] in (["-h"], ["--help"]):
        described = "\n".join(f"{name:12} {text}" for name, text in KNOWN_SURROUNDINGS.items())
        print(f"{__doc__}\n{described}")
        return 0
    names, others = parsed(arguments)
    if subprocess.run(
        ["git", "-C", str(OUR_CHECKOUT), "status", "--porcelain"], capture_output=True, check=False
    ).stdout:
        print("== the last commit is tested, without the changes of the checkout", flush=True)
    os.umask(0o022)  # Another user must be able to read the clone.
    for number in SIGNALS_TO_LEAVE:
        signal.signal(number, interrupt)
    ends: dict[str, tuple[bool | None, str]] = {}
    try:
        for name in names:
            print(f"== elsewhere: {name}", flush=True)
            ends[name] = run(name, others)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        for name, (passed, text) in ends.items():
            word = {True: "passed", False: "FAILED", None: "not run"}[passed]
            print(f"{name}: {word}: {text}", flush=True)
    passes = {passed for passed, _ in ends.values()}
    return 0 if True in passes and False not in passes else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
