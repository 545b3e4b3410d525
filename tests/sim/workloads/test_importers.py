"""Traces in the forms of their publishers; the fixtures are made by hand after their documents."""

import gzip
import json
from pathlib import Path

import pytest

from alto_policy.types import JobId
from alto_runs.errors import UserError
from alto_sim.importers import is_cluster_trace, read_trace
from alto_sim.workloads.loading import load_workload
from alto_sim.workloads.rigid import AT_ONCE, rigid

CANONICAL = "job_id,submit_s,duration_s,num_gpus,tenant,model,batch_size,iterations\n"
HELIOS = (
    "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue\n"
)
ACME = (
    "job_id,user,node_num,gpu_num,cpu_num,type,state,"
    "submit_time,start_time,end_time,duration,queue,gpu_time\n"
)
PAI_2023 = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,"
    "creation_time,deletion_time,scheduled_time\n"
)
Found = tuple[str, float, float | None, int, str]  # id, seconds since the first, duration, width


def found(path: Path) -> list[Found]:
    trace = read_trace(path)
    start = trace.start
    return [(j.id, j.submitted - start, j.duration, j.num_gpus, j.tenant) for j in trace.jobs]


def test_canonical(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(CANONICAL + "b,5,10.5,2,x,,,\na,3,7,1,y,LM,10,100\nc,9,,4,,LM,5,20\n")
    assert found(path) == [("a", 0, 7, 1, "y"), ("b", 2, 10.5, 2, "x"), ("c", 6, None, 4, "")]
    last = read_trace(path).jobs[2]
    assert (last.model, last.batch_size, last.iterations) == ("LM", 5, 20)


def test_helios(tmp_path: Path) -> None:
    path = tmp_path / "cluster_log.csv"
    path.write_text(
        HELIOS
        + "2,u1,vcA,4,16,1,FAILED,2020-06-09 18:41:27,2020-06-09 18:41:30,2020-06-09 18:45:36,,\n"
        + "1,u2,vcB,1,1,1,COMPLETED,2020-06-09 18:41:01,2020-06-09 18:41:01,2020-06-09 18:41:11,,\n"
        + "3,u3,vcB,0,8,1,COMPLETED,2020-06-09 18:42:01,2020-06-09 18:42:01,2020-06-09 18:43:01,,\n"
        + "4,u3,vcB,1,8,1,CANCELLED,2020-06-09 18:42:01,,2020-06-09 18:43:01,,\n"
    )
    assert found(path) == [("1", 0, 10, 1, "vcB"), ("2", 26, 246, 4, "vcA")]
    assert read_trace(path).dropped == {"asked for no GPU": 1, "no start or end": 1}


def test_acme_with_time_zones(tmp_path: Path) -> None:
    path = tmp_path / "trace_seren.csv"
    times = "2023-03-01 00:18:22+08:00,2023-03-01 00:18:54+08:00,2023-02-28 16:20:51+00:00"
    path.write_text(ACME + f"5778432,u5907,1,8,128,Pretrain,FAILED,{times},117,32,936.0\n")
    assert found(path) == [("5778432", 0, 117, 8, "u5907")]
    assert read_trace(path).jobs[0].model == "Pretrain"


def test_alibaba_2023(tmp_path: Path) -> None:
    path = tmp_path / "openb_pod_list_default.csv"
    path.write_text(
        PAI_2023
        + "pod-1,88000,327680,8,1000,nan,Burstable,Succeeded,9437497,10769854,9437500\n"
        + "pod-2,4000,15258,1,220,nan,BE,Running,9679175,9973826,nan\n"
    )
    assert found(path) == [("pod-1", 0, 1332354, 8, "Burstable")]
    assert read_trace(path).dropped == {"no start or end": 1}


def test_alibaba_2020(tmp_path: Path) -> None:
    (tmp_path / "pai_job_table.csv").write_text(
        "one,i1,u1,Terminated,100.0,900.0\ntwo,i2,u2,Failed,50.0,80.0\nno,i3,u3,Waiting,60.0,\n"
    )
    (tmp_path / "pai_task_table.csv").write_text(
        "one,ps,1.0,Terminated,120.0,900.0,600.0,29.0,,\n"
        "one,worker,3.0,Terminated,130.0,800.0,600.0,29.0,50.0,MISC\n"
        "one,evaluator,1.0,Terminated,140.0,850.0,600.0,29.0,100.0,MISC\n"
        "two,worker,2.0,Failed,55.0,75.0,600.0,29.0,200.0,V100\n"
        "no,worker,1.0,Waiting,,,600.0,29.0,100.0,T4\n"
    )
    assert is_cluster_trace(tmp_path)
    assert found(tmp_path) == [("two", 0, 20, 4, "u2"), ("one", 50, 720, 3, "u1")]
    assert read_trace(tmp_path).dropped == {"no start or end": 1}


def attempt(start: str | None, end: str | None, gpus: int) -> dict[str, object]:
    detail = [{"ip": "m1", "gpus": [f"gpu{i}" for i in range(gpus)]}]
    return {"start_time": start, "end_time": end, "detail": detail}


def philly(name: str, *attempts: dict[str, object]) -> dict[str, object]:
    submitted = "2017-10-07 01:11:39"
    return {
        "status": "Pass",
        "vc": "ee9e8c",
        "jobid": name,
        "attempts": attempts,
        "submitted_time": submitted,
        "user": "u",
    }


def test_philly(tmp_path: Path) -> None:
    path = tmp_path / "cluster_job_log.json"
    first = attempt("2017-10-07 01:12:00", "2017-10-07 01:13:00", 4)
    second = attempt("2017-10-07 01:13:30", "2017-10-07 01:14:00", 8)
    unended = attempt("2017-10-07 01:12:00", None, 1)
    jobs = [philly("a", first, second), philly("b"), philly("c", unended)]
    path.write_text(json.dumps(jobs))
    assert found(path) == [("a", 0, 90, 8, "ee9e8c")]
    assert read_trace(path).dropped == {"no start or end": 2}
    published = path.rename(tmp_path / "cluster_job_log")
    assert is_cluster_trace(published)
    assert found(published) == [("a", 0, 90, 8, "ee9e8c")]
    other = published.rename(tmp_path / "jobs")
    with pytest.raises(UserError, match=r"jobs: line 1: expected an object, got \[{.{75}\.\.\.$"):
        load_workload(other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "the file is empty, expected a table", id="empty"),
        pytest.param("a,b\n1,2\n", "line 1: columns a, b: expected those of", id="unknown"),
        pytest.param(CANONICAL + "a,0,1\n", "line 2: 3 values, expected 8", id="short line"),
        pytest.param(
            CANONICAL + "a,0,1,1,,,,\nb,0,x,1,,,,\n",
            "line 3: field duration_s: value 'x': expected a number",
            id="text",
        ),
        pytest.param(CANONICAL + "a,inf,1,1,,,,\n", "field submit_s: value 'inf'", id="infinite"),
        pytest.param(CANONICAL + "a,,1,1,,,,\n", "field submit_s: value ''", id="no submission"),
        pytest.param(CANONICAL + "a,0,1,1.5,,,,\n", "field num_gpus: value '1.5'", id="half"),
        pytest.param(CANONICAL + "a,0,1,-2,,,,\n", "field num_gpus: value '-2'", id="negative"),
        pytest.param(
            HELIOS + "1,u,v,1,1,1,X,yesterday,,,,\n",
            "line 2: field submit_time: value 'yesterday': expected a time",
            id="time",
        ),
        pytest.param(
            CANONICAL + "a,0,1,1,,,,\npod/b,0,1,1,,,,\n",
            "id of a job: name 'pod/b': expected letters, digits",
            id="no name of a file",
        ),
        pytest.param(CANONICAL + ",0,1,1,,,,\n", "id of a job: name ''", id="no name"),
        pytest.param(
            CANONICAL + "a,0,0,1,,,,\nb,0,1,0,,,,\nc,0,,1,,,,\n",
            "no job to simulate, left out: 1 asked for no GPU, 1 did not run, "
            "1 neither duration nor iterations",
            id="nothing left",
        ),
    ],
)
def test_a_trace_at_fault_is_named_with_line_and_field(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"trace\.csv: .*{message}"):
        read_trace(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trace.csv.gz", b"no gzip", "not a CSV file"),
        ("trace.csv", b"\xff\xfe\x00", "not a CSV file"),
        ("log.json", b"{", "not a JSON file"),
        ("log.json", b"{}", "expected a list of jobs, got dict"),
        ("log.json", b'[{"jobid": "a"}]', "job 0: no field 'submitted_time'"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_trace(path)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: cannot read this trace: No such file"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"no file pai_job_table\.csv"):
        read_trace(tmp_path)


def test_the_declared_duration_is_not_the_true_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(CANONICAL + "".join(f"{i},0,1000.5,1,,,,\n" for i in range(200)))
    exact = rigid(read_trace(path), AT_ONCE)
    wrong = rigid(read_trace(path), AT_ONCE, misprediction=0.5, seed=1)
    assert set(exact.durations.values()) == set(wrong.durations.values()) == {1000.5}
    assert {arrival.task.jobs[0].steps for arrival in exact.arrivals} == {1001}
    declared = sorted(arrival.task.jobs[0].steps for arrival in wrong.arrivals)
    assert declared[100] == pytest.approx(1000, rel=0.15)
    assert declared[30] < 700 < 1400 < declared[-30]
    again = rigid(read_trace(path), AT_ONCE, misprediction=0.5, seed=1)
    assert again.arrivals == wrong.arrivals


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(CANONICAL + "a,0,1,1,,,,\na,0,1,1,,,,\nb,0,,2,,,,30\n")
    workload = load_workload(path).workload
    assert workload.durations == {JobId("a"): 1.0, JobId("b"): 3.0}
    assert caplog.messages == [f"{path}: jobs left out: 1, id stands twice"]
