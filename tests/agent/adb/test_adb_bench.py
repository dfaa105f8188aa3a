"""Visits on made-up phones: what is called there, what is reported, what goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from latlas_agent.adb import Adb
from latlas_agent.adb_phones import AdbPhone, find_phones
from latlas_agent.lease import DeviceGoneError
from latlas_agent.phone_bench import PhoneBench
from latlas_agent.phone_conditions import PhoneWatch, list_cores, parse_children_ns, parse_files
from latlas_agent.supervisor import Job
from latlas_agent.tasks import Failure, Task
from latlas_latency.measurement import Target, Visit
from latlas_ops.errors import InvalidInputError, MeasurementError, RuntimeUnavailableError

MakeTask = Callable[..., Job]


@pytest.fixture
def found(adb: Adb, phone: Any, tool: Path, tmp_path: Path) -> AdbPhone:
    (one,) = asyncio.run(find_phones(adb, tmp_path, "agent-1", "shelf", tool))
    return one


@pytest.fixture
def bench(adb: Adb, found: AdbPhone) -> PhoneBench:
    return PhoneBench(
        adb,
        found.serial,
        device_id=found.device.device_id,
        tool=found.tool,
        cores=found.device.cores,
    )


@pytest.fixture
def make_job(tmp_path: Path, found: AdbPhone, tflite_model: Callable[..., bytes]) -> MakeTask:
    """`make_job(task_id, *operators, **fields)`: a task whose target is the phone."""

    def make(task_id: str, *operators: str, data: bytes | None = None, **fields: Any) -> Job:
        model = data or tflite_model(*(operators or ("RELU",)))
        path = tmp_path / hashlib.sha256(model).hexdigest()
        path.write_bytes(model)
        target = Target(
            name="rocket",
            device_model=found.device.device_model,
            runtime="tflite-benchmark-builtin",
            runtime_version=found.tool.version,
            provider="builtin",
        )
        for field in {one.name for one in dataclasses.fields(Target)} & fields.keys():
            target = dataclasses.replace(target, **{field: fields.pop(field)})
        values = {
            "task_id": task_id,
            "program_sha256": path.name,
            "program_format": "tflite",
            "program_bytes": len(model),
            "target": target,
            "mode": "plain",
            "rounds": (0,),
            "warmup_runs": 2,
            "min_runs": 7,
            "min_duration_ns": 250_000_000,
            "timeout_ns": 20_000_000_000,
            **fields,
        }
        return Job(Task(**values), path)

    return make


def outcomes_of(bench: PhoneBench, *jobs: Job) -> list[Visit | Failure]:
    async def run() -> list[Visit | Failure]:
        return [outcome async for outcome in bench.measure(jobs, seed=1)]

    return asyncio.run(run())


def test_a_phone_is_described_by_what_it_says(found: AdbPhone, tool: Path, phone: Any) -> None:
    device = found.device
    assert device.device_model == "Acme Rocket 3 (AC100)"
    assert device.operating_system == "Android 14, kernel 6.1.0-android"
    assert device.host_name == f"shelf {phone.serial}"
    assert (device.architecture, device.n_cores, device.cores) == ("aarch64", 8, tuple(range(8)))
    assert device.memory_bytes == 8_000_000 * 1024
    version = hashlib.sha256(tool.read_bytes()).hexdigest()[:12]
    assert [(one.runtime, one.version, one.per_node_times) for one in device.runtimes] == [
        ("tflite-benchmark", version, False),
        ("tflite-benchmark-builtin", version, True),
    ]
    assert (phone.home / f"benchmark_model-{version}").read_bytes() == tool.read_bytes()


def test_a_plain_visit_holds_one_sample_and_the_phone_s_conditions(
    bench: PhoneBench, make_job: MakeTask, phone: Any
) -> None:
    (visit,) = outcomes_of(bench, make_job("t1", cores=(4, 7), threads=2))
    assert isinstance(visit, Visit)
    assert visit.network_ns.tolist() == [1_020_000]
    assert visit.nodes == ()
    assert visit.duration_ns == 7 * 1_104_500
    assert visit.warmup_runs == 2
    assert visit.opening is not None
    assert visit.opening.load_ns == 1_500_000
    assert visit.opening.first_run_ns == 2_100_000
    assert visit.opening.memory_bytes == 4 << 20
    conditions = visit.conditions
    assert conditions.clock_mhz == pytest.approx((2300 + 2800) / 2)
    assert conditions.max_clock_mhz == pytest.approx((2400 + 2900) / 2)
    assert conditions.governor == "walt"
    assert conditions.temperature_celsius == 51.5
    assert conditions.throttled is False
    assert conditions.load_1min == 0.5
    assert conditions.available_memory_bytes == 4_000_000 * 1024
    assert conditions.power_mode == "plugged in"
    (call,) = phone.calls
    assert call.split()[1:] == [
        *("--num_threads=2", "--warmup_runs=2", "--warmup_min_secs=0", "--num_runs=7"),
        *("--min_secs=0.25", "--max_secs=20", "--use_xnnpack=false"),
    ]
    assert (phone.home / "masks").read_text() == "90\n"


def test_a_profiled_visit_names_the_nodes_by_their_tensors(
    bench: PhoneBench, make_job: MakeTask, phone: Any
) -> None:
    (visit,) = outcomes_of(bench, make_job("t1", mode="profiled"))
    assert isinstance(visit, Visit)
    assert visit.network_ns.tolist() == [1_104_500]
    assert [(node.label, node.samples_ns.tolist()) for node in visit.nodes] == [
        ("t1", [880_320]),
        ("t2", [220_080]),
    ]
    assert "--enable_op_profiling=true" in phone.calls[0]
    assert not (phone.home / "masks").exists()


def test_programs_are_copied_once_and_removed_when_others_come(
    bench: PhoneBench, make_job: MakeTask, phone: Any
) -> None:
    first, second = make_job("t1", "RELU", rounds=(0, 1)), make_job("t2", "TANH", rounds=(0, 1))
    visits = outcomes_of(bench, first, second)
    assert sorted((visit.task_id, getattr(visit, "round", -1)) for visit in visits) == [
        ("t1", 0),
        ("t1", 1),
        ("t2", 0),
        ("t2", 1),
    ]
    assert {path.name for path in phone.home.glob("*.tflite*")} == {
        f"{job.program.name}.tflite" for job in (first, second)
    }
    kept = phone.home / f"{second.program.name}.tflite"
    (phone.home / f"{'0' * 64}.tflite.part").touch()
    before = kept.stat().st_mtime_ns
    outcomes_of(bench, second)
    assert list(phone.home.glob("*.tflite*")) == [kept]
    assert kept.stat().st_mtime_ns == before


def test_a_delegate_must_take_the_whole_program_unless_it_need_not(
    bench: PhoneBench, make_job: MakeTask, phone: Any
) -> None:
    xnnpack = {"runtime": "tflite-benchmark", "provider": "xnnpack"}
    (visit,) = outcomes_of(bench, make_job("t1", **xnnpack))
    assert isinstance(visit, Visit)
    assert "--use_xnnpack=true --require_full_delegation=true" in phone.calls[-1]
    phone.behave("taken=partially")
    (failure,) = outcomes_of(bench, make_job("t1", **xnnpack))
    assert isinstance(failure, Failure)
    assert failure.error_code == "RuntimeUnavailableError"
    assert "xnnpack does not take the whole program" in failure.reason
    assert "--allow-fallback" in failure.reason
    (visit,) = outcomes_of(bench, make_job("t1", allow_fallback=True, **xnnpack))
    assert isinstance(visit, Visit)
    assert "--require_full_delegation" not in phone.calls[-1]
    (failure,) = outcomes_of(bench, make_job("t1", **{**xnnpack, "provider": "gpu"}))
    assert isinstance(failure, Failure)
    assert "does not say whether gpu took the whole program" in failure.reason


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("kill -SEGV $$", "benchmark_model was killed by signal 11"),
        ("echo 'ERROR: no such op'; exit 1", "ended with status 1 .*ERROR: no such op"),
        ("exit 0", "did not come to its end: it printed nothing"),
        ("runs=3", "timed 3 of 7 runs before its time limit"),
    ],
)
def test_a_program_that_fails_costs_itself_alone(
    bench: PhoneBench, make_job: MakeTask, phone: Any, behaviour: str, reason: str
) -> None:
    bad, good = make_job("bad", "RELU", rounds=(0, 1)), make_job("good", "TANH", rounds=(0, 1))
    phone.behave(f'[ "$graph" != {bad.program.name}.tflite ] || {{ {behaviour}; }}')
    outcomes = outcomes_of(bench, bad, good)
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert failure.task_id == "bad"
    assert failure.error_code == "MeasurementError"
    assert re.search(reason, failure.reason)
    assert [one.round for one in outcomes if isinstance(one, Visit)] == [0, 1]


def test_a_file_that_is_no_model_never_reaches_the_phone(
    bench: PhoneBench, make_job: MakeTask, phone: Any
) -> None:
    (failure,) = outcomes_of(bench, make_job("t1", data=b"no model at all"))
    assert isinstance(failure, Failure)
    assert failure.error_code == "CorruptProgramError"
    assert list(phone.home.glob("*.tflite*")) == []


def test_a_free_first_axis_takes_the_target_s_batch_and_another_batch_is_refused(
    bench: PhoneBench, make_job: MakeTask, phone: Any, tflite_model: Callable[..., bytes]
) -> None:
    free = tflite_model("RELU", shape=(1, 4, 4, 2), signature=(-1, 4, 4, 2))
    (visit,) = outcomes_of(bench, make_job("t1", data=free, batch=8))
    assert isinstance(visit, Visit)
    assert "--input_layer=input0 --input_layer_shape=8,4,4,2" in phone.calls[-1]
    (failure,) = outcomes_of(bench, make_job("t1", batch=8))
    assert isinstance(failure, Failure)
    assert failure.error_code == "InvalidInputError"
    assert "has batch 1, target 'rocket' wants 8" in failure.reason
    axes = tflite_model("RELU", shape=(1, 4, 4, 2), signature=(-1, -1, -1, 2))
    (failure,) = outcomes_of(bench, make_job("t1", data=axes))
    assert isinstance(failure, Failure)
    assert "has free axes" in failure.reason
    (visit,) = outcomes_of(bench, make_job("t1", data=axes, shapes=(("t0", (1, 6, 6, 2)),)))
    assert isinstance(visit, Visit)
    assert "--input_layer_shape=1,6,6,2" in phone.calls[-1]


def test_a_program_that_hangs_is_ended_on_the_phone(
    bench: PhoneBench, make_job: MakeTask, phone: Any
) -> None:
    phone.behave('echo $$ >"$here/running"; exec sleep 60')
    (failure,) = outcomes_of(bench, make_job("t1", timeout_ns=1_000_000_000))
    assert isinstance(failure, Failure)
    assert "not done within 1 s" in failure.reason
    pid = (phone.home / "running").read_text().strip()
    status = Path(f"/proc/{pid}/stat")
    assert not status.exists() or ") Z " in status.read_text()


def test_a_phone_that_is_unplugged_costs_the_program_in_flight(
    bench: PhoneBench, make_job: MakeTask, phone: Any
) -> None:
    jobs = [make_job("t1", "RELU"), make_job("t2", "TANH")]
    phone.behave('touch "$here/running"; sleep 60')

    async def run() -> tuple[list[Visit | Failure], str]:
        outcomes: list[Visit | Failure] = []

        async def collect(stream: AsyncGenerator[Visit | Failure, None]) -> None:
            async with aclosing(stream):
                async for outcome in stream:
                    outcomes.append(outcome)

        collecting = asyncio.create_task(collect(bench.measure(jobs, seed=1)))
        await asyncio.to_thread(phone.await_file, "running")
        phone.unplug()
        with pytest.raises(DeviceGoneError) as caught:
            await asyncio.wait_for(collecting, 30)
        return outcomes, str(caught.value)

    outcomes, reason = asyncio.run(run())
    (failure,) = outcomes
    assert isinstance(failure, Failure)
    assert failure.error_code == "MeasurementError"
    assert failure.reason == reason
    assert f"phone {phone.serial} is gone" in reason
    phone.plug()
    phone.behave("")
    assert all(isinstance(outcome, Visit) for outcome in outcomes_of(bench, *jobs))


def test_a_phone_that_is_away_at_the_start_costs_nothing(
    bench: PhoneBench, make_job: MakeTask, phone: Any
) -> None:
    job = make_job("t1")
    phone.unplug()
    with pytest.raises(DeviceGoneError):
        outcomes_of(bench, job)


def test_a_phone_that_answers_nothing_fails_every_task(
    bench: PhoneBench, make_job: MakeTask, adb: Adb, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> str:
        raise MeasurementError("not done within 30 s")

    monkeypatch.setattr(adb, "run", hang)
    outcomes = outcomes_of(bench, make_job("t1", "RELU"), make_job("t2", "TANH"))
    assert [outcome.task_id for outcome in outcomes] == ["t1", "t2"]
    assert all(isinstance(outcome, Failure) for outcome in outcomes)


def test_a_phone_keeps_its_identity_and_one_that_comes_twice_is_served_once(
    adb: Adb, make_phone: Callable[..., Any], tool: Path, tmp_path: Path
) -> None:
    first, other, again = (make_phone(name, "shell_v2") for name in ("A1", "B2", "A1"))

    def find() -> dict[str, str]:
        phones = asyncio.run(find_phones(adb, tmp_path, "agent-1", "shelf", tool))
        return {phone.serial: phone.device.device_id for phone in phones}

    served = find()
    assert len(served) == 2
    assert other.serial in served
    assert len({first.serial, again.serial} & served.keys()) == 1
    assert find() == served
    assert "A1" not in (tmp_path / "phones.json").read_text()


def test_phones_that_cannot_be_served_say_why(
    adb: Adb, make_phone: Callable[..., Any], tool: Path, tmp_path: Path
) -> None:
    def find(tool: Path | None) -> None:
        asyncio.run(find_phones(adb, tmp_path, "agent-1", "shelf", tool))

    with pytest.raises(RuntimeUnavailableError, match="no phone is attached: plug one in"):
        find(tool)
    make_phone("A1")
    with pytest.raises(RuntimeUnavailableError, match="has no /data/local/tmp/benchmark_model: gi"):
        find(None)
    with pytest.raises(InvalidInputError, match=r"nowhere cannot be read: No such file"):
        find(tmp_path / "nowhere")
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x7fELF\x02\x01\x01")
    with pytest.raises(RuntimeUnavailableError, match="was built for its processor"):
        find(foreign)


def test_a_clock_below_what_it_once_might_reach_is_throttling() -> None:
    path = "/sys/devices/system/cpu/cpu4/cpufreq/scaling_max_freq"
    watch = PhoneWatch(range(8))

    def capped(khz: int, used: tuple[int, ...]) -> bool | None:
        return watch.snapshot(parse_files(f"{path}:{khz}\n"), 0, 0, used).clock_capped

    assert capped(2_400_000, ()) is False
    assert capped(1_900_000, (4,)) is True
    assert capped(1_900_000, (0,)) is None


def test_what_others_used_is_known_only_where_the_own_time_is() -> None:
    files = {"/proc/stat": "cpu 100 0 100 800 0 0 0 0\n"}
    watch = PhoneWatch(range(8))
    assert watch.snapshot(files, 10, 0, ()).busy_ticks == 200
    assert watch.snapshot(files, None, 0, ()).busy_ticks is None


@pytest.mark.parametrize(
    ("text", "children_ns"),
    [
        ("0m0.01s 0m0.02s\n0m1.50s 0m0.25s\n", 1_750_000_000),
        ("0m0.010s 0m0.020s\n2m1.500s 0m0.250s\n", 121_750_000_000),
        ("sh: times: not found\n", None),
    ],
)
def test_the_time_of_a_shell_s_children_is_its_second_line(
    text: str, children_ns: int | None
) -> None:
    assert parse_children_ns(text) == children_ns


def test_cores_are_listed_as_the_kernel_lists_them() -> None:
    assert list_cores("0-3,6\n") == (0, 1, 2, 3, 6)
    assert list_cores("") == ()


def test_files_are_told_apart_by_their_paths() -> None:
    found = parse_files("/proc/stat:cpu 1 2\n/proc/stat:cpu0 1 2\n/etc/x:1\n/proc/../etc/y:2\nx\n")
    assert found == {"/proc/stat": "cpu 1 2\ncpu0 1 2\n"}
