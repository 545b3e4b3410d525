"""Two hundred submissions at once, wrong and hostile ones among them, and none is lost."""

import json
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.service.cases import STUDY, client_of, front, submission, token_file, write_data

TEAM = "t" * 20
COUNT = 200
GOOD = json.dumps(submission()).encode()


def hostile(marker: Path) -> list[tuple[bytes, str, int]]:
    """What is sent, with which token, and the answer."""
    text = STUDY.format(name="small")
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    run = text.replace("name: small", f"name: !!python/object/apply:os.system ['touch {marker}']")
    climbing = text.replace("train: train.jsonl", "train: ../../../etc/passwd")
    number = text.replace("samples: 16", "samples: 0x" + "f" * 50_000)
    prompts = text.replace('["say red"]', "[" + "a, " * 200_000 + "]")
    tasks = text + f"tasks: {{{', '.join(f't{n}: {{}}' for n in range(2000))}}}"
    studies = [bomb, run, climbing, "", "- a", text.replace("model: model", "model: /etc")]
    studies += [number, prompts, tasks]
    refused = [(json.dumps({"study": each}).encode(), TEAM, 400) for each in studies]
    return [
        *refused,
        (b"{", TEAM, 400),
        (b"[" * 50_000, TEAM, 400),
        (b" " * 4_000_001, TEAM, 413),
        (GOOD, "x" * 20, 401),
    ]


def test_each_gets_its_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    root, marker = write_data(tmp_path / "root"), tmp_path / "executed"
    tokens = token_file(tmp_path / "tokens", f"team {TEAM}\n")
    service = front(tmp_path / "service", root, tokens)
    client, wrong = client_of(service), hostile(marker)
    capfd.readouterr()

    def send(number: int) -> tuple[int, int, str]:
        content, token, status = (
            (GOOD, TEAM, 201) if number % 2 else wrong[number // 2 % len(wrong)]
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        headers["Idempotency-Key"] = f"k{number}"
        answer = client.post("/studies", content=content, headers=headers)
        return status, answer.status_code, answer.text

    with caplog.at_level(logging.WARNING), client, ThreadPoolExecutor(COUNT) as pool:
        answers = list(pool.map(send, range(COUNT)))
    assert [told for _, told, _ in answers] == [status for status, _, _ in answers]
    assert Counter(told for _, told, _ in answers)[201] == COUNT // 2
    for _, told, text in answers:
        assert "Traceback" not in text
        assert told == 201 or list(json.loads(text)) == ["error"]
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err + caplog.text
    kept = service.store.studies(tenant=None, state=None, after=0, limit=1000)
    assert sorted(row.key for row in kept) == sorted(f"k{n}" for n in range(1, COUNT, 2))
    assert not marker.exists()
    assert not os.path.lexists(tmp_path / "service" / "studies")
