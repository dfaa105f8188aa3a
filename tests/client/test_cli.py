"""The command line without a coordinator: usage, errors, spaces, doctor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latlas import __version__
from latlas.cli import main as cli
from latlas.cli.doctor import installed_extras, read_governors
from latlas.cli.options import cores, duration_ns, percentage, sampling
from latlas.records import CAREFUL, SIDE_BY_SIDE, TAILED, Sampling
from latlas_ops import SPACE_NAMES


def test_the_version_is_told_without_loading_grpc(latlas):
    ended = latlas("--version", PYTHONPROFILEIMPORTTIME="1")
    assert (ended.code, ended.out) == (0, f"latlas {__version__}\n")
    assert "grpc" not in ended.err


def test_without_a_command_the_commands_are_listed(capsys):
    assert cli.main([]) == 0
    listed = capsys.readouterr().out
    for command in ("quickstart", "serve", "doctor", "campaign", "predict", "measure"):
        assert f"\n    {command}" in listed


@pytest.mark.parametrize(
    ("line", "culprit"),
    [
        ("frobnicate", "invalid choice: 'frobnicate'"),
        ("space", "COMMAND; see `latlas space --help`"),
        ("space list --loud", "unrecognized arguments: --loud"),
        ("space list --js", "unrecognized arguments: --js"),
        ("predict --model m", "one of the arguments --arch --sample is required"),
        ("predict --model m --sample 0", "argument --sample: '0' is not at least 1"),
        ("predict --model m --sample 1 --level 90", "argument --level: '90' is no number between"),
        ("campaign start c --target t --space s --min-duration 3", "'3' is no duration above zero"),
        ("campaign start c --target t --space s --target-error 0.5", "'0.5' is no percentage"),
        ("campaign start c --target t --space s --target-error 0%", "'0%' is no percentage"),
        ("measure m.onnx --target t --rounds 99999999999", "'99999999999' is too large"),
        ("measure m.onnx --target t --timeout 99999999999s", "is no duration above zero"),
        ("target add t --cores 0,x", "'0,x' is no list of cores such as 0,2-3"),
        ("target add t --cores 3-1", "'3-1' is no list of cores"),
        ("target add t --cores 0-9999", "'0-9999' is no list of cores"),
        ("target add t --graph-level best", "invalid choice: 'best'"),
        ("serve --port 99999", "'99999' is not at most 65535"),
        ("device list --coordinator http://lab", "coordinator address 'http://lab' is not"),
        ("measure model.pt --target t", "model.pt: a program ends in .onnx or .tflite"),
        ("measure none.onnx --target t", "cannot read none.onnx: No such file"),
        ("table import t none.latlas", "cannot read none.latlas: No such file"),
        ("space count moon", "no search space 'moon'; there are digits"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_the_culprit(line, culprit, capsys, tmp_path):
    assert cli.main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("latlas: ")
    assert captured.err.count("\n") == 1
    assert culprit in captured.err
    assert not captured.out


@pytest.mark.parametrize(
    ("line", "usual"),
    [
        ("campaign start c --target t --space s", Sampling()),
        ("measure m.onnx --target t", TAILED),
        ("compare m.onnx --targets t", SIDE_BY_SIDE),
        ("table validate t", CAREFUL),
        ("table revalidate t", CAREFUL),
    ],
)
def test_a_program_is_timed_as_from_python_unless_the_user_says_otherwise(line, usual):
    assert sampling(cli.build_parser().parse_args(line.split())) == usual


def test_a_coordinator_that_is_not_there_is_one_line(latlas, tmp_path):
    ended = latlas("table", "export", "digits", "--coordinator", "127.0.0.1:1")
    assert ended.code == 2
    assert ended.err == (
        "latlas: no coordinator answers at 127.0.0.1:1; start one with `latlas serve`, or give "
        "the address of one that runs\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_environment_names_the_coordinator(latlas):
    assert "127.0.0.1:2" in latlas("target", "list", LATLAS_COORDINATOR="127.0.0.1:2").err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("not json", "not an architecture; expected"),
        ("[1]", "not an architecture; expected"),
        ('{"space": 3}', "the name of a space is a string, not 3"),
        ('{"space": "moon"}', "no search space 'moon'"),
        ('{"space": "digits", "version": 2}', "malformed architecture"),
        ('{"space": "digits", "version": 2, "genes": [0]}', "architecture with 1 genes"),
        ('{"space": "digits", "version": 9, "genes": []}', "version 9 given to space 'digits'"),
        ("[" * 100_000, "not an architecture"),
    ],
)
def test_a_malformed_architecture_file_is_named(content, complaint, capsys, tmp_path):
    path = tmp_path / "arch.json"
    path.write_text(content)
    assert cli.main(["predict", "--model", "m", "--arch", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"latlas: {path}: ")
    assert captured.err.count("\n") == 1
    assert complaint in captured.err


def test_spaces_are_counted_exactly_and_the_text_says_which_number_is_which(capsys):
    assert cli.main(["space", "count", "course"]) == 0
    text = capsys.readouterr().out
    assert "3,470,494,144,278,528" in text
    assert "3.5e15" in text
    assert "inactive layers counted once" in text
    assert cli.main(["space", "count", "ofa-mobilenetv3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {
        "space": "ofa-mobilenetv3",
        "version": 1,
        "flat": 4 * 3**5 * 3**40,
        "distinct": 4 * (9**2 + 9**3 + 9**4) ** 5,
        "distinct_per_resolution": (9**2 + 9**3 + 9**4) ** 5,
    }


def test_a_space_is_shown_with_its_choices(capsys):
    assert cli.main(["space", "show", "digits"]) == 0
    text = capsys.readouterr().out
    assert "stage0.layer2.kernel" in text
    assert "stage0.depth >= 3" in text
    assert cli.main(["space", "show", "digits", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["resolutions_px"] == [32, 40, 48]
    assert record["genes"][0] == {
        "name": "resolution",
        "choices": [32, 40, 48],
        "matters_when": "",
    }


def test_choices_that_are_operations_are_shown_by_name(capsys):
    assert cli.main(["space", "show", "nas-bench-201"]) == 0
    text = capsys.readouterr().out
    assert "edge0-1.op" in text
    assert "none, skip_connect, avg_pool_3x3, nor_conv_1x1, nor_conv_3x3" in text
    assert "40 distinct" in text
    assert cli.main(["space", "show", "darts", "--json"]) == 0
    genes = {gene["name"]: gene for gene in json.loads(capsys.readouterr().out)["genes"]}
    assert genes["normal.node1.sources"]["choices"] == ["0+1", "0+2", "1+2"]
    assert genes["reduction.node3.op1"]["choices"][-1] == "sep_conv_5x5"


@pytest.mark.parametrize(
    ("name", "count"), [("nas-bench-201", 15_625), ("darts", (1 * 3 * 6 * 10 * 7**8) ** 2)]
)
def test_spaces_of_cells_are_counted_exactly(capsys, name, count):
    assert cli.main(["space", "count", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["distinct"] == count
    assert cli.main(["space", "count", name]) == 0
    assert f"{count:,}" in capsys.readouterr().out


def test_every_space_is_listed(capsys):
    assert cli.main(["space", "list", "--json"]) == 0
    names = [record["space"] for record in json.loads(capsys.readouterr().out)]
    assert names == list(SPACE_NAMES)


def test_doctor_finds_out_without_a_coordinator(latlas):
    ended = latlas("doctor", "--json", "--coordinator", "127.0.0.1:1")
    assert ended.code == 0
    record = json.loads(ended.out)
    assert record["latlas"] == __version__
    assert record["usable_cores"]
    assert not record["coordinator"]["reachable"]
    assert "no coordinator answers at 127.0.0.1:1" in record["coordinator"]["error"]
    assert all({"target", "about", "text"} == set(advice) for advice in record["advice"])
    assert record["noise"] is None


def test_doctor_estimates_the_noise_when_asked(latlas):
    ended = latlas("doctor", "--json", "--noise", "--coordinator", "127.0.0.1:1")
    [noise] = json.loads(ended.out)["noise"]
    assert (noise["cores"], noise["targets"], noise["error"]) == ([], [], "")
    assert noise["estimate"]["n_visits"] > 0


def test_doctor_says_that_measuring_the_noise_is_left_to_the_user(latlas):
    assert "not measured; --noise takes" in latlas("doctor", "--coordinator", "127.0.0.1:1").out


def test_doctor_reads_the_extras_of_the_project():
    tomllib = pytest.importorskip("tomllib")
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    requirements = ["numpy>=1.26", "no-such-package; extra == 'onnx'"]
    for extra, packages in extras.items():
        requirements += [f'{package}; extra == "{extra}"' for package in packages]
    found = installed_extras(requirements)
    assert set(found) == {"base", *extras} - {"all", "dev"}
    assert found["base"]["numpy"] is not None
    assert found["onnx"]["onnxruntime"] is not None
    assert found["onnx"]["no-such-package"] is None


def test_doctor_reads_the_governors_of_all_cores(tmp_path):
    for core, governor in enumerate(["powersave", "performance", "powersave"]):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
    assert read_governors(tmp_path) == ["performance", "powersave"]
    assert read_governors(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("text", "ns"), [("30ms", 30_000_000), ("1.5 s", 1_500_000_000), ("2min", 120_000_000_000)]
)
def test_durations_carry_their_unit(text, ns):
    assert duration_ns(text) == ns


@pytest.mark.parametrize(("text", "value"), [("0.5%", 0.005), ("2 %", 0.02), ("99.9%", 0.999)])
def test_percentages_carry_their_sign(text, value):
    assert percentage(text) == pytest.approx(value)


def test_cores_are_numbers_and_ranges():
    assert cores("3") == (3,)
    assert cores("5, 0,2-3,3") == (0, 2, 3, 5)


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    command = [sys.executable, "-m", "latlas.cli.main", "space", "show", "ofa-mobilenetv3"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert ended.stderr == b""
    assert ended.returncode == 141


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("latlas.cli.space.get_space", interrupted)
    assert cli.main(["space", "count", "digits"]) == 130
    assert capsys.readouterr().err == "\nlatlas: interrupted; run the same command again\n"


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "latlas_coordinator.server", None)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    for module in [name for name in sys.modules if name.startswith("latlas_coordinator")]:
        monkeypatch.delitem(sys.modules, module)
    assert cli.main(["serve", "--port", "0"]) == 2
    assert capsys.readouterr().err == (
        "latlas: this needs sqlalchemy; install it with pip install 'latlas[coordinator]'\n"
    )
