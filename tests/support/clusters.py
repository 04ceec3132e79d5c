"""A primary and its replicas: real replication, and its faults."""

import signal
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.processes import Daemon
from tests.support.proxy import Proxy
from tests.support.servers import (
    ACCESS,
    MariaDB,
    PostgreSQL,
    Server,
    binaries,
    certify,
    launchers,
    mysql_program,
)

# A query on a standby holds up for 30 s what it would replay.
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Node(Server):
    """A server whose processes are at hand."""

    daemon: Daemon

    @abstractmethod
    def is_ready(self) -> bool:
        """Tell whether it takes connections since it was launched."""

    def start(self) -> None:
        """Start it unless it runs, with what it had, and wait until it is ready."""
        if not self.daemon.is_running:
            self.daemon.launch()
            until(self.is_ready, f"{self.daemon.folder.name} takes connections")

    def kill(self) -> None:
        """End it at once, also when it is frozen, so that its connections break."""
        self.daemon.kill()

    def freeze(self) -> None:
        """Stop all its processes: clients that connect or ask hear nothing."""
        self.daemon.freeze()

    def thaw(self) -> None:
        self.daemon.thaw()


@dataclass(frozen=True)
class Replica(Node):
    """A server to read from, which repeats what is written to another."""

    primary: Server

    @abstractmethod
    def pause(self) -> None:
        """Receive what is written, but replay none of it."""

    @abstractmethod
    def resume(self) -> None: ...

    @abstractmethod
    def delay(self, milliseconds: int) -> None:
        """Replay what is written so long after it was, and not earlier."""

    @abstractmethod
    def catch_up(self) -> None:
        """Wait until it has replayed what had been written when this was called."""

    @abstractmethod
    def promote(self) -> None:
        """Replay what it has received, and take writes ever after."""


@dataclass(frozen=True)
class Cluster:
    primary: Node
    replicas: list[Replica]

    def database(self, name: str) -> tuple[str, list[str]]:
        """The verified URLs of an empty database: on the primary and the replicas."""
        primary = self.primary.database(name)
        for replica in self.replicas:
            replica.catch_up()
        return primary, [replica.verified_of(name) for replica in self.replicas]

    def heal(self) -> None:
        """Let all nodes run and replay at once; a promoted one cannot go back."""
        for node in (self.primary, *self.replicas):
            node.thaw()
            node.start()
        for replica in self.replicas:
            replica.delay(0)
            replica.resume()


class PostgreSQLNode(PostgreSQL, Node):
    def is_ready(self) -> bool:
        pid, lines = str(self.daemon.pid), [""]
        with suppress(OSError):  # there is no file yet
            lines = (self.daemon.folder / "postmaster.pid").read_text().splitlines()
        # The file may be that of one which was killed, or not complete.
        return lines[:1] == [pid] and lines[7:] == ["ready   "]


class PostgreSQLReplica(PostgreSQLNode, Replica):
    def pause(self) -> None:
        self.execute("SELECT pg_wal_replay_pause()")
        self._until("pg_get_wal_replay_pause_state() = 'paused'")

    def resume(self) -> None:
        self.execute("SELECT pg_wal_replay_resume()")

    def delay(self, milliseconds: int) -> None:
        self.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = {milliseconds}")
        self.execute("SELECT pg_reload_conf()")
        setting = "current_setting('recovery_min_apply_delay')::interval"
        self._until(f"{setting} = '{milliseconds} ms'::interval")

    def catch_up(self) -> None:
        (row,) = self.primary.execute("SELECT pg_current_wal_flush_lsn()::text AS lsn")
        self._until(f"pg_last_wal_replay_lsn() >= '{row['lsn']}'")

    def promote(self) -> None:
        self.execute("SELECT pg_promote()")
        self._until("NOT pg_is_in_recovery()")

    def _until(self, condition: str) -> None:
        statement = f"SELECT {condition} AS holds"
        until(lambda: self.execute(statement)[0]["holds"], condition)


class MariaDBNode(MariaDB, Node):
    def is_ready(self) -> bool:
        process = self.daemon.process
        return bool(launchers["mysql"]._answers(process, self.daemon.port))


@dataclass(frozen=True)
class MariaDBReplica(MariaDBNode, Replica):
    link: Proxy  # between it and the primary

    RUNNING = ("Slave_SQL_Running", "Replica_SQL_Running")
    SOURCE = (
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_USER = 'root',"
        " MASTER_PORT = {}, MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = slave_pos"
    )
    DELAY = "CHANGE MASTER TO MASTER_DELAY = {}"
    WRITTEN = "@@gtid_binlog_pos"
    RECEIVED = "Gtid_IO_Pos"
    WAIT = "MASTER_GTID_WAIT('{}', {})"

    @property
    def status(self) -> dict[str, Any]:
        (row,) = self.execute("SHOW REPLICA STATUS")
        return dict(row)

    @property
    def is_paused(self) -> bool:
        return "No" in {self.status.get(name) for name in self.RUNNING}

    def follow(self) -> None:
        """Repeat all that the primary has written and writes."""
        self.execute(self.SOURCE.format(self.link.port))
        self.execute("START REPLICA")

    def pause(self) -> None:
        self.execute("STOP REPLICA SQL_THREAD")

    def resume(self) -> None:
        self.execute("START REPLICA SQL_THREAD")

    def delay(self, milliseconds: int) -> None:
        """Replay it so long after it was written, or from a second on up to 2 s later.

        The server itself delays by whole seconds and from the start of the second in
        which something was written. Only its own delay shows in its status, but the
        many answers of a primary to a replica that connects would need as long each.
        """
        seconds = ceil(milliseconds / 1000) + 1 if milliseconds >= 1000 else 0
        self.link.delay_answers(0 if seconds else milliseconds / 1000)
        if self.status["SQL_Delay"] != seconds:
            is_paused = self.is_paused
            self.execute("STOP REPLICA")
            self.execute(self.DELAY.format(seconds))
            self.execute("START REPLICA IO_THREAD" if is_paused else "START REPLICA")

    def catch_up(self) -> None:
        (row,) = self.primary.execute(f"SELECT {self.WRITTEN} AS position")
        self._replay(row["position"])

    def promote(self) -> None:
        # In this order: the first thread that starts discards what was received.
        self.resume()
        self.execute("STOP REPLICA IO_THREAD")
        self._replay(self.status[self.RECEIVED])
        self.execute("STOP REPLICA")
        self.execute("RESET REPLICA ALL")
        self.execute("SET GLOBAL read_only = 0")
        self.daemon.command.remove(READ_ONLY)

    def _replay(self, position: str) -> None:
        wait = self.WAIT.format(position, PATIENCE_SECONDS)
        (row,) = self.execute(f"SELECT {wait} AS result")
        assert row["result"] == 0, f"{wait} is {row['result']}"


class MySQLReplica(MariaDBReplica):
    SOURCE = (
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_USER = 'root',"
        " SOURCE_PORT = {}, SOURCE_CONNECT_RETRY = 1, SOURCE_AUTO_POSITION = 1,"
        " GET_SOURCE_PUBLIC_KEY = 1"
    )
    DELAY = "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = {}"
    WRITTEN = "@@GLOBAL.gtid_executed"
    RECEIVED = "Retrieved_Gtid_Set"
    WAIT = "WAIT_FOR_EXECUTED_GTID_SET('{}', {})"


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within {PATIENCE_SECONDS} s: {what}")
        time.sleep(0.01)


@contextmanager
def postgresql_cluster(folder: Path, standbys: int = 2) -> Iterator[Cluster]:
    """A primary and streaming standbys, with one certificate for `localhost`."""
    certify(folder, "postgres")
    access = f"{ACCESS}host replication all all trust\n"
    (folder / "pg_hba.conf").write_text(access)
    with ExitStack() as stack:
        first, *others = (
            stack.enter_context(postgresql_daemon(folder, number))
            for number in range(1 + standbys)
        )
        first.prepare(
            *(binaries() / "initdb", "--pgdata=.", "--no-sync"),
            *("--username=postgres", "--auth=trust"),
        )
        url = "postgresql://postgres@127.0.0.1:{}/postgres"
        primary = PostgreSQLNode(url.format(first.port), folder / "ca.pem", first)
        primary.start()
        replicas = [
            PostgreSQLReplica(url.format(other.port), primary.ca, other, primary)
            for other in others
        ]
        at_once(partial(start_copy, replica) for replica in replicas)
        yield Cluster(primary, [*replicas])


def postgresql_daemon(folder: Path, number: int) -> Daemon:
    home = folder / f"node-{number}"
    command = [
        *(str(binaries() / "postgres"), "-D", str(home)),
        "--listen_addresses=127.0.0.1",
        "--unix_socket_directories=",
        f"--hba_file={folder}/pg_hba.conf",
        "--ssl=on",
        f"--ssl_cert_file={folder}/server.pem",
        f"--ssl_key_file={folder}/server.key",
        "--max_connections=300",
        "--fsync=off",
        "--jit=off",
        "--wal_level=replica",
        "--wal_keep_size=256MB",  # for a standby that has been down
        "--wal_retrieve_retry_interval=100ms",  # after the primary has been
    ]
    # It ends as fast as by SIGKILL, but leaves no shared memory behind.
    return Daemon(command, home, user="postgres", last_signal=signal.SIGQUIT)


def start_copy(replica: PostgreSQLReplica) -> None:
    replica.daemon.prepare(
        *(binaries() / "pg_basebackup", f"--dbname={replica.primary.url}"),
        *("--pgdata=.", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
    )
    replica.start()


# All rights but those on the server, by which one could write on a replica. Each node
# is told so itself, and logs nothing of it that would be replicated.
APPLICATION = """\
SET sql_log_bin = 0;
CREATE DATABASE IF NOT EXISTS app;
CREATE USER IF NOT EXISTS app@localhost, app@'%';
GRANT ALL PRIVILEGES ON `%`.* TO app@localhost, app@'%';
"""
READ_ONLY = "--read-only"


@contextmanager
def mariadb_cluster(folder: Path, replicas: int = 1) -> Iterator[Cluster]:
    program = binaries("mysql")
    options = ("--log-slave-updates", "--gtid-strict-mode")
    with gtid_cluster(folder, replicas, program, options, MariaDBReplica) as cluster:
        yield cluster


@contextmanager
def mysql_cluster(folder: Path, replicas: int = 1) -> Iterator[Cluster]:
    program = mysql_program(folder)
    options = ("--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--sync-binlog=0")
    with gtid_cluster(folder, replicas, program, options, MySQLReplica) as cluster:
        yield cluster


@contextmanager
def gtid_cluster(
    folder: Path,
    replicas: int,
    program: Path,
    options: tuple[str, ...],
    kind: type[MariaDBReplica],
) -> Iterator[Cluster]:
    """A primary and replicas by GTID, with one certificate for `localhost`.

    Their URLs are those of a user who may do all to each database and no more.
    """
    certify(folder, "mysql")
    (folder / "start.sql").write_text(APPLICATION)
    with ExitStack() as stack:

        def daemon(number: int) -> Daemon:
            return stack.enter_context(gtid_daemon(folder, number, program, options))

        first = daemon(0)
        files, url = first.folder / "files", "mysql://app@127.0.0.1:{}/app"
        launchers["mysql"]._install(program, files, first.user)
        (files / "auto.cnf").unlink(missing_ok=True)  # each has an id of its own
        primary = MariaDBNode(url.format(first.port), folder / "ca.pem", first)

        def copy(number: int) -> MariaDBReplica:
            link = stack.enter_context(Proxy("127.0.0.1", first.port))
            other = daemon(number)
            other.prepare("cp", "-r", files, other.folder)
            other.command.append(READ_ONLY)
            return kind(url.format(other.port), primary.ca, other, primary, link)

        copies = [copy(number) for number in range(1, 1 + replicas)]
        at_once(node.start for node in (primary, *copies))
        for replica in copies:
            replica.follow()
        yield Cluster(primary, [*copies])


def gtid_daemon(
    folder: Path, number: int, program: Path, options: tuple[str, ...]
) -> Daemon:
    home = folder / f"node-{number}"
    command = [
        *(str(program), "--no-defaults", f"--datadir={home}/files"),
        f"--tmpdir={home}",  # in /tmp it would remove the temporary tables of others
        *launchers["mysql"].OPTIONS,
        f"--init-file={folder}/start.sql",
        f"--ssl-cert={folder}/server.pem",
        f"--ssl-key={folder}/server.key",
        "--max-connections=300",
        "--performance-schema=ON",
        f"--server-id={1 + number}",
        "--log-bin=binlog",
        "--relay-log=relay",
        "--innodb-flush-log-at-trx-commit=2",  # else what it committed dies with it
        *options,
    ]
    return Daemon(command, home, user="mysql", last_signal=signal.SIGKILL)


def at_once(actions: Iterable[Callable[[], None]]) -> None:
    with ThreadPoolExecutor() as pool:
        started = [pool.submit(action) for action in actions]
    for each in started:
        each.result()


# By name, as SERVERS.
CLUSTERS = {
    "mariadb": mariadb_cluster,
    "mysql": mysql_cluster,
    "postgresql": postgresql_cluster,
}


@contextmanager
def own_cluster(name: str) -> Iterator[Cluster]:
    """For a test that promotes a replica, or else leaves no cluster behind."""
    with TemporaryDirectory() as folder, CLUSTERS[name](Path(folder)) as cluster:
        yield cluster
