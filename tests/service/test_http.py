"""What the service answers; nobody checks or trains here."""

import os
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from alto_runs.errors import UserError
from alto_runs.study import ExecutorSpec, load_study
from alto_service.front import Front
from alto_service.preparing import prepare_submitted
from tests.service.cases import STUDY, client_of, front, submission, token_file, write_data

TEAM, OTHER, OPERATOR = "t" * 20, "u" * 20, "v" * 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("root"))


@pytest.fixture
def alone(tmp_path: Path, root: Path) -> Front:
    return front(tmp_path / "service", root)


@pytest.fixture
def shared(tmp_path: Path, root: Path) -> Front:
    lines = f"team {TEAM}\nother {OTHER}\n* {OPERATOR}\n"
    return front(tmp_path / "service", root, token_file(tmp_path / "tokens", lines))


def refused(client: TestClient, **fields: object) -> str:
    answer = client.post("/studies", json=submission(**fields))  # type: ignore[arg-type]
    assert answer.status_code == 400, answer.text
    assert client.get("/studies").json()["studies"] == []
    line = answer.json()["error"]
    assert "\n" not in line
    return str(line)


def test_a_study_is_taken_and_found_again(alone: Front) -> None:
    client = client_of(alone)
    answer = client.post("/studies", json=submission(priority=3, tenant="team"))
    assert answer.status_code == 201
    study = answer.json()
    assert {key: study[key] for key in ("id", "name", "tenant", "priority", "state", "error")} == {
        "id": "s1",
        "name": "small",
        "tenant": "team",
        "priority": 3,
        "state": "submitted",
        "error": None,
    }
    assert client.get("/studies/s1").json() == study
    assert client.get("/studies").json() == {"studies": [study], "after": None}
    assert client.get("/studies/s1/log").json() == {"entries": [], "after": -1}


def test_a_key_is_taken_once(alone: Front) -> None:
    client, key = client_of(alone), {"Idempotency-Key": "k"}
    first = client.post("/studies", json=submission(), headers=key)
    again = client.post("/studies", json=submission(), headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    changed = client.post("/studies", json=submission(priority=1), headers=key)
    assert changed.status_code == 409
    elsewhere = client.post("/studies", json=submission(tenant="other"), headers=key)
    assert elsewhere.json()["id"] == "s2"
    assert client.post("/studies", json=submission()).json()["id"] == "s3"


def test_a_list_comes_in_pages(alone: Front) -> None:
    client = client_of(alone)
    for number in range(5):
        client.post("/studies", json=submission(tenant=("even", "odd")[number % 2]))
    page = client.get("/studies", params={"limit": 2}).json()
    assert ([study["id"] for study in page["studies"]], page["after"]) == (["s1", "s2"], 2)
    rest = client.get("/studies", params={"limit": 3, "after": 2}).json()
    assert ([study["id"] for study in rest["studies"]], rest["after"]) == (["s3", "s4", "s5"], None)
    odd = client.get("/studies", params={"tenant": "odd", "state": "submitted"}).json()
    assert [study["id"] for study in odd["studies"]] == ["s2", "s4"]
    assert client.get("/studies", params={"state": "done"}).json()["studies"] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("samples: 16", "samples: -1"),
        ("learning_rate", "learning_rat"),
        ("name: small", "name: ../small"),
        ("name: small", "name: small\nname: twice"),
        ("name: small", "name: !!python/object/apply:os.system [ls]"),
        ("name: small", "name: &a [*a, *a]"),
        ("rank: [2, 4]", "rank: [2, 4"),
        ("rank: [2, 4]", "rank: " + "[" * 50 + "]" * 50),
        ("samples: 16", "samples: 0x" + "f" * 50_000),
        ("samples: 16", "samples: " + "1:" * 400_000),
        ('["say red"]', "[" + "a, " * 200_000 + "]"),
        ('["say red"]', "[" + "a" * 900_000 + "]"),
        ("prompts:", "tasks: {" + ", ".join(f"t{n}: {{}}" for n in range(60_000)) + "}\nprompts:"),
    ],
    ids=lambda text: text[:30],
)
def test_a_mistake_is_told_in_the_line_of_the_command(
    old: str, new: str, alone: Front, root: Path, tmp_path: Path
) -> None:
    text = STUDY.format(name="small").replace(old, new)
    path = root / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as told:
        load_study(path)
    line = refused(client_of(alone), study=text)
    assert line == str(told.value).replace(str(path), "study")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("train.jsonl, v", "../../secret.jsonl, v", "data.train"),
        ("train.jsonl, v", "/etc/passwd, v", "data.train"),
        ("validation: validation.jsonl", "validation: way-out/secret.jsonl", "data.validation"),
        ("validation: validation.jsonl", "validation: pipe", "data.validation"),
        ("model: model", "model: ../model", "model"),
        ("model: model", "model: way-out/model", "model"),
        ("model: model", "model: model/../../there-or-not", "model"),
        ("model: model", "model: ~/model", "model"),
        ("model: model", "model: /proc/self/cwd", "model"),
    ],
)
def test_what_stands_elsewhere_is_not_read(
    old: str, new: str, field: str, alone: Front, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "model").mkdir(parents=True)
    link, pipe = root / "way-out", root / "pipe"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    if not pipe.exists():
        os.mkfifo(pipe)
    assert old in STUDY
    line = refused(client_of(alone), study=STUDY.format(name="small").replace(old, new))
    assert line.startswith(f"study: {field}: value ")
    told = "is no plain file" if new.endswith("pipe") else f"expected a file below {root}"
    assert line.endswith(told)


@pytest.mark.parametrize("folder", ["/", "/etc", "..", "relative", "", "{root}/../x", "{root}\0"])
def test_a_folder_elsewhere_is_refused(folder: str, alone: Front, root: Path) -> None:
    line = refused(client_of(alone), folder=folder.format(root=root))
    assert line.startswith("folder: value ")


def test_paths_are_seen_from_the_folder(alone: Front, root: Path) -> None:
    (root / "below").mkdir(exist_ok=True)
    client = client_of(alone)
    text = STUDY.format(name="small").replace("validation: val", "validation: ../val")
    text = text.replace("train: train", "train: ../train").replace(
        "model: model", "model: ../model"
    )
    answer = client.post("/studies", json={"study": text, "folder": str(root / "below")})
    assert answer.status_code == 201, answer.text


def test_a_path_that_is_too_long_for_one_is_a_file_that_is_not_there(alone: Front) -> None:
    """Whoever reads it tells so, as of any other that is missing."""
    for name in ("a" * 300, "a/" * 3000):
        text = STUDY.format(name="small").replace("train: train", f"train: {name}")
        answer = client_of(alone).post("/studies", json={"study": text})
        assert answer.status_code == 201
        row = alone.store.study(int(answer.json()["id"][1:]))
        assert row is not None
        executor = ExecutorSpec(device="cpu", threads=1, gpus=1)
        with pytest.raises((UserError, OSError), match=r"no such file|File name too long"):
            prepare_submitted(row, alone.admission, alone.directory, executor)


def test_a_policy_of_its_own_is_refused(alone: Front) -> None:
    text = STUDY.format(name="small") + "policy: asha\n"
    assert refused(client_of(alone), study=text) == (
        "study: policy: a service decides by a policy of its own, leave this out"
    )


@pytest.mark.parametrize(
    ("content", "status", "line"),
    [
        (b"", 400, "body: Field required"),
        (b"{", 400, r".*JSON decode error"),
        (b"\xff\xfe", 400, r".*"),
        (b"[" * 100_000, 400, r".*"),
        (b'{"study": 7}', 400, r"study: value 7: Input should be a valid string"),
        (b'{"study": "\\ud800"}', 400, r".*"),
        (b'{"study": "a: b", "tenat": "x"}', 400, r"tenat: value 'x': Extra inputs .*"),
        (b'{"study": "a: b", "tenant": "../x"}', 400, r"tenant: value '../x': expected letters.*"),
        (b'{"study": "a: b", "priority": 1e9}', 400, r"priority: value 1000000000.0: .*"),
        (b'{"study": "a: b", "priority": 101}', 400, r"priority: value 101: .* 100"),
        (b'{"study": "' + b"a" * 1_000_001 + b'"}', 400, r"study: value 'a{59}: String should .*"),
        (b" " * 4_000_001, 413, r"the request has more than 4000000 bytes"),
    ],
    ids=range(12),
)
def test_what_is_no_submission(content: bytes, status: int, line: str, alone: Front) -> None:
    client = client_of(alone)
    headers = {"Content-Type": "application/json"}
    answer = client.post("/studies", content=content, headers=headers)
    assert answer.status_code == status
    assert re.fullmatch(line, answer.json()["error"])
    assert client.get("/studies").json()["studies"] == []


def test_what_is_not_there_is_named(alone: Front) -> None:
    answer = client_of(alone).get("/studies/..%2Fx")
    assert (answer.status_code, answer.json()["error"]) == (404, "/studies/../x: nothing is there")


def test_a_page_of_the_web_cannot_post_here(alone: Front) -> None:
    """Forms and scripts of other sites send no JSON unasked, and the name of their own host."""
    client = client_of(alone)
    content = client.build_request("POST", "/studies", json=submission()).content
    plain = client.post("/studies", content=content, headers={"Content-Type": "text/plain"})
    assert plain.status_code in (400, 415)
    assert client.get("/studies", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "name", ["s2", "s0", "s01", "S1", "1", "s1x", "..%2fs1", "s" + "9" * 30, "%00"]
)
def test_what_is_no_study(name: str, alone: Front) -> None:
    client = client_of(alone)
    client.post("/studies", json=submission())
    for method, path in (("GET", ""), ("GET", "/log"), ("GET", "/events"), ("POST", "/cancel")):
        answer = client.request(method, f"/studies/{name}{path}")
        assert answer.status_code == 404
        assert set(answer.json()) == {"error"}


def test_without_a_token_nothing_is_told(shared: Front) -> None:
    client_of(shared, TEAM).post("/studies", json=submission())
    for token in (None, "", "x" * 20, TEAM[:-1], TEAM + "t", "\xe9" * 20):
        headers = {} if token is None else {b"Authorization": b"Bearer " + token.encode("latin-1")}
        for method, path in (
            ("POST", "/studies"),
            ("GET", "/studies"),
            ("GET", "/studies/s1"),
            ("POST", "/studies/s1/cancel"),
            ("GET", "/studies/s1/events"),
        ):
            body = submission() if path == "/studies" and method == "POST" else None
            answer = client_of(shared).request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, (token, path)
    basic = {"Authorization": f"Basic {TEAM}"}
    assert client_of(shared).get("/studies", headers=basic).status_code == 401
    assert len(client_of(shared, OPERATOR).get("/studies").json()["studies"]) == 1


def test_tenants_do_not_see_each_other(shared: Front) -> None:
    team, other, operator = (client_of(shared, token) for token in (TEAM, OTHER, OPERATOR))
    assert team.post("/studies", json=submission()).json()["tenant"] == "team"
    assert other.post("/studies", json=submission()).json()["id"] == "s2"
    assert operator.post("/studies", json=submission(tenant="team")).json()["tenant"] == "team"
    assert [s["id"] for s in team.get("/studies").json()["studies"]] == ["s1", "s3"]
    assert [s["id"] for s in other.get("/studies").json()["studies"]] == ["s2"]
    assert len(operator.get("/studies").json()["studies"]) == 3
    assert other.get("/studies/s1").status_code == 404
    assert other.post("/studies/s1/cancel").status_code == 404
    row = shared.store.study(1)
    assert row is not None
    assert not row.cancelled
    assert other.post("/studies", json=submission(tenant="team")).status_code == 403
    assert other.get("/studies", params={"tenant": "team"}).status_code == 403


def test_a_cancelled_one_is_marked(alone: Front) -> None:
    client = client_of(alone)
    client.post("/studies", json=submission())
    assert client.post("/studies/s1/cancel").status_code == 202
    row = alone.store.study(1)
    assert row is not None
    assert row.cancelled
    assert client.get("/studies/s1/leaderboard").status_code == 409


def test_it_describes_itself_and_loads_nothing_from_elsewhere(alone: Front) -> None:
    client = client_of(alone)
    description = client.get("/openapi.json").json()
    assert set(description["paths"]) == {
        "/studies",
        "/studies/{study}",
        "/studies/{study}/cancel",
        "/studies/{study}/leaderboard",
        "/studies/{study}/log",
        "/studies/{study}/events",
        "/health",
    }
    page = client.get("/").text
    for path in description["paths"]:
        assert path in page
    assert not re.search(r"<script|https?://|src=", page)
    assert client.get("/docs").status_code == 404
    assert client.get("/health").json() == {"status": "ok", "checker": True, "trainer": True}
