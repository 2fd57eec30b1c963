"""A sample of the broken files through every entrance of a real service; `python -m benchmarks.soak.corpus` sends all of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.corpus import Broken, corpus, sources
from tests.corpus.entrances import ENTRANCES, ask, ranked, read
from tests.e2e.bad_inputs import BODY_LIMIT
from tests.e2e.server import Server

pytestmark = pytest.mark.e2e

FILES = 120


def test_broken_files_are_told_the_same_everywhere_and_good_ones_are_answered_beside_them(server: Server) -> None:
    good = next(source.data for source in sources() if source.format == "PNG")
    files = [file for file in corpus() if len(file.data) < BODY_LIMIT // 2][:FILES]
    with server.client() as client, ThreadPoolExecutor(4) as pool:
        expected = ranked(client.post("/classify", content=good, headers={"content-type": "image/png"}).json())

        def send(turn: int, file: Broken) -> set[int]:
            told = {}
            for i in range(len(ENTRANCES)):
                entrance = ENTRANCES[(turn + i) % len(ENTRANCES)]
                asked = ask(entrance, file.data, good)
                answer = client.post(asked.path, content=asked.body, headers={"content-type": asked.media})
                told[entrance], neighbour = read(entrance, answer.status_code, answer.content)
                if entrance == "batch":
                    assert expected.agrees(neighbour), (file.name, neighbour)
            assert len(set(told.values())) == 1, (file.name, told)
            return {one.status for one in told.values()}

        found = set().union(*pool.map(send, range(FILES), files))
    assert found == {200, 400, 422} or found == {200, 422}
    assert server.process.poll() is None
