"""The supervisor, with workers that are a few lines of Python: starts, deaths, and ends. The real ones are in tests/e2e."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from asyncio.subprocess import Process, create_subprocess_exec
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app import conductor, workers
from app.handover import listen
from app.settings import Settings
from app.workers import Supervisor, supervise
from tests.app.asgi import until

# Answers every connection with its slot and process id, until it is told to end.
WORKER = """
import json, os, signal, socket, sys, time
order = json.loads(sys.argv[1])
channel = socket.socket(fileno=order["channel"])
{start}
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
signal.signal(signal.SIGTERM, lambda *_: ({end}))
while True:
    data, fds, _, _ = socket.recv_fds(channel, 1, 1)
    if not data:
        sys.exit(0)
    with socket.socket(fileno=fds[0]) as connection:
        connection.sendall(f"{{order['slot']}} {{os.getpid()}}".encode())
"""
READY = 'channel.sendall(b"ready")'


def program(start: str = READY, end: str = "sys.exit(0)") -> tuple[str, ...]:
    return (sys.executable, "-c", WORKER.format(start=start, end=end))


class Running:
    """A supervisor at work, and questions to its workers."""

    def __init__(self, supervisor: Supervisor, address: tuple[str, int]) -> None:
        self.supervisor = supervisor
        self.done = asyncio.ensure_future(supervisor.run())
        self._address = address

    async def ask(self) -> tuple[int, int]:
        """Slot and process id of whoever answers."""
        async with asyncio.timeout(10):
            while True:
                reader, writer = await asyncio.open_connection(*self._address)
                answer = await reader.read()
                writer.close()
                if answer:
                    slot, pid = answer.split()
                    return int(slot), int(pid)

    async def ask_both(self) -> dict[int, int]:
        found: dict[int, int] = {}
        async with asyncio.timeout(20):
            while len(found) < 2:
                found.update([await self.ask()])
        return found

    async def end(self) -> str | None:
        async with asyncio.timeout(20):
            return await self.done


@asynccontextmanager
async def running(folder: Path, command: Sequence[str], **settings: Any) -> AsyncIterator[Running]:
    listeners = listen("127.0.0.1", 0)
    defaults: dict[str, Any] = {"workers": 2, "drain_s": 1}
    given = Settings(**defaults | settings)
    service = Running(Supervisor(given, {}, listeners, folder, command), listeners[0].getsockname())
    try:
        yield service
    finally:
        service.done.cancel()
        await asyncio.gather(service.done, return_exceptions=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
        for listener in listeners:
            listener.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_both_serve_in_turn_until_a_signal_ends_them(tmp_path: Path, number: int) -> None:
    async with running(tmp_path, program()) as service:
        pids = await service.ask_both()
        assert set(pids) == {0, 1}
        assert [(await service.ask())[0] for _ in range(4)] in ([0, 1, 0, 1], [1, 0, 1, 0])
        os.kill(os.getpid(), number)
        assert await service.end() is None
        assert not any(map(alive, pids.values()))


TELLS = "signal.signal(signal.SIGUSR1, lambda *_: open({!r}, 'a').write(str(order['slot'])))\n" + READY


async def test_in_the_grace_all_are_told_and_serve_on(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with running(tmp_path, program(TELLS.format(str(told))), grace_s=0.5) as service:
        pids = await service.ask_both()
        started = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: told.exists() and sorted(told.read_text()) == ["0", "1"])
        assert set(await service.ask_both()) == {0, 1}
        assert await service.end() is None
        assert time.monotonic() - started >= 0.5
        assert not any(map(alive, pids.values()))


async def test_who_is_still_being_made_in_the_grace_is_told_once_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, real = tmp_path / "told", create_subprocess_exec

    async def slowly(*arguments: Any, **options: Any) -> Process:
        made = await real(*arguments, **options)
        if json.loads(arguments[-1])["slot"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.2)  # the supervisor hears the signal, and knows nothing of this one yet
        return made

    monkeypatch.setattr(workers, "create_subprocess_exec", slowly)
    start = "if order['slot']: time.sleep(0.5)\n" + TELLS.format(str(told))
    async with running(tmp_path, program(start), grace_s=60) as service:
        await until(lambda: told.exists() and sorted(told.read_text()) == ["0", "1"], 10)
        assert set(await service.ask_both()) == {0, 1}
        os.kill(os.getpid(), signal.SIGTERM)
        assert await service.end() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_grace(tmp_path: Path, number: int) -> None:
    told = tmp_path / "told"
    async with running(tmp_path, program(TELLS.format(str(told))), grace_s=60) as service:
        await service.ask_both()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(told.exists)
        os.kill(os.getpid(), number)
        assert await service.end() is None


async def test_what_ends_in_the_grace_is_not_replaced(tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = f"open({str(started)!r}, 'a').write(str(order['slot']))\n{READY}"  # ends by the signal that tells it
    async with running(tmp_path, program(script), grace_s=60) as service:
        await service.ask_both()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await service.end() is None
        assert sorted(started.read_text()) == ["0", "1"]


async def test_the_second_starts_when_the_first_is_ready(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    start = f"""
open({str(log)!r}, "a").write(str(order["slot"]))
while order["slot"] == 0 and not os.path.exists({str(gate)!r}): time.sleep(0.01)
{READY}"""
    async with running(tmp_path, program(start)) as service:
        await until(log.exists, 10)
        await asyncio.sleep(0.3)
        assert log.read_text() == "0"
        gate.touch()
        await service.ask_both()
        assert log.read_text() == "01"


async def test_what_dies_comes_back_in_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FIRST_DELAY_S", 0.05)
    caplog.set_level(logging.INFO, "sknet.workers")
    async with running(tmp_path, program()) as service:
        before = await service.ask_both()
        (tmp_path / "gauge_livesum_1.db").touch()
        (tmp_path / "counter_1.db").touch()
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: caplog.messages.count("worker 1 is ready") == 2, 10)
        after = await service.ask_both()
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert not (tmp_path / "gauge_livesum_1.db").exists()
        assert (tmp_path / "counter_1.db").exists()
    assert f"worker 1: process {before[1]} ended by signal 9; it is started again in 0.1 s" in caplog.messages


async def test_what_does_not_answer_is_killed_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(conductor, "ANSWER_S", 0.1)
    async with running(tmp_path, program(end="None")) as service:  # hears of no change, and no polite signal
        before = await service.ask_both()
        async with asyncio.timeout(10):
            await service.supervisor._conductor.unload()
        with monkeypatch.context() as answers:
            answers.setattr(conductor.Member, "ask", done)
            after = await service.ask_both()
        assert not set(before.values()) & set(after.values())


async def done(*_: object) -> None:
    """What was asked for."""


async def test_what_is_told_to_end_and_does_not_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(workers, "PATIENCE_S", 0.1)
    async with running(tmp_path, program(end="None"), drain_s=0) as service:
        before = await service.ask_both()
        conducting = service.supervisor._conductor
        for member in list(conducting._members):
            conducting._drop(member)
        assert not set(before.values()) & set((await service.ask_both()).values())


async def test_deaths_in_a_row_are_answered_ever_more_slowly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(workers, "LONGEST_DELAY_S", 0.04)
    monkeypatch.setattr(workers, "_in_words", lambda _: "so")
    async with running(tmp_path, program(f'{READY}\nif order["slot"]: sys.exit(5)')) as service:
        deaths = [0.01, 0.02, 0.04, 0.04]
        await until(lambda: len([m for m in caplog.messages if "started again" in m]) >= len(deaths), 20)
        assert (await service.ask())[0] == 0  # the other one serves on
    said = [record.args for record in caplog.records if "started again" in record.msg]
    assert [args[2] for args in said if isinstance(args, tuple)][: len(deaths)] == deaths


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ('channel.sendall(b"no such weights")\nsys.exit(1)', "no such weights"),
        ("sys.exit(3)", "with status 3"),
        ("os.kill(os.getpid(), 9)", "by signal 9"),
        (f'if order["slot"]: sys.exit(4)\n{READY}', "with status 4"),
    ],
    ids=["told", "status", "signal", "second"],
)
async def test_a_first_start_that_cannot_work_ends_all(tmp_path: Path, start: str, says: str) -> None:
    async with running(tmp_path, program(start)) as service:
        assert says in (await service.end() or "")


async def test_a_later_start_that_cannot_work_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FIRST_DELAY_S", 0.05)
    gone = tmp_path / "gone"
    start = f'if os.path.exists({str(gone)!r}):\n    channel.sendall(b"no weights")\n    sys.exit(1)\n{READY}'
    async with running(tmp_path, program(start)) as service:
        before = await service.ask_both()
        gone.touch()
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: any(m.startswith("worker 1: no weights; it is") for m in caplog.messages), 10)
        gone.unlink()
        assert (await service.ask_both())[1] != before[1]


async def test_a_stop_while_the_first_still_loads(tmp_path: Path) -> None:
    async with running(tmp_path, program("time.sleep(60)")) as service:
        await asyncio.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await service.end() is None


async def test_a_stop_while_a_worker_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Process] = []
    real = create_subprocess_exec

    async def stopped_meanwhile(*arguments: Any, **options: Any) -> Process:
        made.append(await real(*arguments, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)  # the supervisor hears the signal
        return made[-1]

    monkeypatch.setattr(workers, "create_subprocess_exec", stopped_meanwhile)
    async with running(tmp_path, program("time.sleep(60)")) as service:
        assert await service.end() is None
    assert [process.returncode for process in made] == [-signal.SIGTERM]


def refused(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize("gently", [True, False])
async def test_how_one_ended_is_known_though_it_is_told_to_end_at_once(
    gently: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lines close before asyncio has waited for it, and who then waits first, the other never learns how it ended."""
    may_wait, real = threading.Event(), os.waitpid

    def late(pid: int, options: int) -> tuple[int, int]:  # as asyncio calls it; subprocess keeps a reference of its own
        may_wait.wait(20)
        return real(pid, options)

    monkeypatch.setattr(os, "waitpid", late)
    async with running(tmp_path, program()) as service:
        try:
            pid = (await service.ask_both())[0]
            (member,) = (member for member in service.supervisor._conductor._members if member.slot == 0)
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - dead, and the loop did not run since
            member.end(gently)
        finally:
            may_wait.set()
        await until(lambda: any(f"worker 0: process {pid} ended by signal 9;" in message for message in caplog.messages))
    assert not [record for record in caplog.records if record.name == "asyncio" and str(pid) in record.getMessage()]


@pytest.mark.parametrize("where", ["create_subprocess_exec", "socket.socketpair"])
async def test_a_restart_that_the_system_has_no_room_for_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(workers, "FIRST_DELAY_S", 0.05)
    async with running(tmp_path, program()) as service:
        before = await service.ask_both()
        with monkeypatch.context() as full:
            full.setattr(f"app.workers.{where}", refused)
            os.kill(before[1], signal.SIGKILL)
            await until(lambda: any(m.startswith("worker 1: it cannot be started: Cannot allocate") for m in caplog.messages), 10)
        after = await service.ask_both()
        assert after[0] == before[0]
        assert after[1] != before[1]


async def test_a_first_start_that_the_system_has_no_room_for_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "create_subprocess_exec", refused)
    async with running(tmp_path, program()) as service:
        assert await service.end() == "it cannot be started: Cannot allocate memory"


def test_workers_are_not_looked_for_in_the_current_folder() -> None:
    assert workers.PROGRAM[1:] == ("-P", "-m", "app.process")


async def test_what_does_not_end_is_killed_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE_S", 0.1)
    async with running(tmp_path, program(f"{READY}", end="None"), drain_s=0) as service:
        pids = await service.ask_both()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await service.end() == "workers that did not end in time were killed"
        assert not any(map(alive, pids.values()))


def test_an_address_that_cannot_be_had_is_one_line() -> None:
    said = supervise(Settings(workers=2, host="203.0.113.5", port=80), {})
    assert said is not None
    assert said.startswith("cannot listen on 203.0.113.5, port 80: ")
