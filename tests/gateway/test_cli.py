"""The command as people and scripts meet it: exit codes, JSON alone on stdout, words on stderr."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.commands import app
from tests.gateways import RunningGateway
from tests.zoo import mlp, npz, random_inputs

POLICY = {"techniques": ["fusion"], "targets": ["ort-cpu"], "rows": [1], "budget_seconds": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    model = mlp(hidden=32)
    onnx.save(model, folder / "mlp.onnx")
    npz(folder / "mlp.npz", **random_inputs(model, 64), labels=np.zeros(64, np.int64))
    (folder / "policy.json").write_text(json.dumps(POLICY))
    return folder


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[RunningGateway]:
    with RunningGateway(folder / "data") as running:
        yield running


@pytest.fixture(scope="module")
def registered(folder: Path, gateway: RunningGateway) -> dict[str, Any]:
    done = forgeway(
        folder,
        gateway,
        "register",
        "mlp",
        "mlp.onnx",
        "--samples",
        "mlp.npz",
        "--policy",
        "policy.json",
        "--wait",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def forgeway(folder: Path, gateway: RunningGateway | None, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FORGEWAY_")}
    if gateway is not None:
        environment["FORGEWAY_URL"] = gateway.url
    command = [sys.executable, "-m", "gateway.cli", *args]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_register_waits_and_prints_the_version(registered: dict[str, Any]) -> None:
    assert (registered["name"], registered["version"], registered["status"]) == ("mlp", "1", "ready")


def asked(gateway: RunningGateway, *args: str) -> Result:
    """The command run in this process: for the many calls that only differ in their words."""
    return CliRunner().invoke(app, args, env={"FORGEWAY_URL": gateway.url}, prog_name="forgeway")


@pytest.mark.parametrize(
    "command",
    [("models",), ("show", "mlp"), ("show", "mlp", "--version", "1"), ("jobs",), ("jobs", "1"), ("targets",)],
)
def test_reading_commands_print_one_document(
    gateway: RunningGateway, registered: dict[str, Any], command: tuple[str, ...]
) -> None:
    done = asked(gateway, *command, "--json")
    assert done.exit_code == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    assert done.stderr == ""


def test_tables_are_for_people(folder: Path, gateway: RunningGateway, registered: dict[str, Any]) -> None:
    shown = forgeway(folder, gateway, "show", "mlp").stdout
    assert "reference" in shown and "serving" in shown and "\x1b[" not in shown
    assert "planned so because" in shown, "how what serves is run, and why"
    assert "KiB, 1.0x" in shown, "what each takes, and how many times less than the upload"
    assert "mlp" in forgeway(folder, gateway, "models").stdout


def test_predict_writes_arrays_and_leaves_labels_aside(
    folder: Path, gateway: RunningGateway, registered: dict[str, Any]
) -> None:
    done = forgeway(folder, gateway, "predict", "mlp", "mlp.npz", "--output", "out.npz", "--json")
    facts = json.loads(done.stdout)
    assert facts["outputs"]["y"]["shape"] == [64, 10]
    assert facts["variant"] in {variant["id"] for variant in registered["variants"]}
    np.testing.assert_allclose(np.load(folder / "out.npz")["y"], facts["outputs"]["y"]["data"], rtol=1e-5)
    pinned = forgeway(folder, gateway, "predict", "mlp", "mlp.npz", "--variant", "reference")
    assert "reference" in pinned.stderr and "y" in pinned.stdout


def test_bench_compares_with_the_reference(folder: Path, gateway: RunningGateway, registered: dict[str, Any]) -> None:
    done = forgeway(folder, gateway, "bench", "mlp", "--rows", "1", "--seconds", "0.3", "--json")
    (result,) = json.loads(done.stdout)["results"]
    assert result["speedup"] > 0 and result["calls"] > 0


def test_a_job_is_followed_to_its_end(folder: Path, gateway: RunningGateway, registered: dict[str, Any]) -> None:
    done = forgeway(folder, gateway, "jobs", "1", "--follow")
    assert done.returncode == 0 and "publish" in done.stderr


def test_an_alias_is_made_and_removed(gateway: RunningGateway, registered: dict[str, Any]) -> None:
    assert asked(gateway, "alias", "mlp", "champion", "1").exit_code == 0
    assert "champion=1" in asked(gateway, "models").stdout
    assert asked(gateway, "alias", "mlp", "champion", "--delete").exit_code == 0
    assert asked(gateway, "alias", "mlp", "champion").exit_code == 2


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("show", "nobody"), 3, "forgeway models"),
        (("show", "mlp", "--version", "9"), 3, "9"),
        (("predict", "nobody", "mlp.npz"), 3, "unknown model"),
        (("predict", "mlp", "missing.npz"), 2, "missing.npz"),
        (("predict", "mlp", "mlp.onnx"), 2, "not an npz"),
        (("register", "mlp", "missing.onnx"), 2, "missing.onnx"),
        (("register", "mlp", "mlp.npz"), 1, ""),
        (("register", "mlp", "mlp.onnx", "--policy", "mlp.onnx"), 2, "not a JSON policy"),
        (("jobs", "99999"), 3, "99999"),
        (("jobs", "--follow"), 2, "name the job"),
        (("no-such-command",), 2, ""),
        (("models", "--no-such-flag"), 2, ""),
    ],
)
def test_mistakes_have_their_exit_codes(
    folder: Path,
    gateway: RunningGateway,
    registered: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(folder)
    done = asked(gateway, *command)
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_there_says_how_to_start_one(folder: Path) -> None:
    done = forgeway(folder, None, "models", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1 and "forgeway serve" in done.stderr


def test_the_gate_can_fail_a_pipeline(folder: Path, gateway: RunningGateway, registered: dict[str, Any]) -> None:
    (folder / "strict.json").write_text(
        json.dumps(
            {**POLICY, "techniques": ["int8"], "search": {"effort": "off"}, "gate": {"cosine": 1.0, "sqnr_db": 199.0}}
        )
    )
    done = forgeway(
        folder,
        gateway,
        "register",
        "strict",
        "mlp.onnx",
        "--samples",
        "mlp.npz",
        "--policy",
        "strict.json",
        "--must-improve",
    )
    assert done.returncode == 5, done.stderr


def test_keys_close_the_gateway_for_those_without(folder: Path) -> None:
    data = ("--data", "keyed")
    made = forgeway(folder, None, "keys", "create", *data, "--scope", "read", "--note", "robot", "--json")
    key = json.loads(made.stdout)
    with RunningGateway(folder / "keyed", "--no-compile") as gateway:
        refused = asked(gateway, "models")
        assert refused.exit_code == 4 and "FORGEWAY_API_KEY" in refused.stderr
        assert asked(gateway, "models", "--key", key["secret"]).exit_code == 0
        assert asked(gateway, "delete", "x", "--yes", "--key", key["secret"]).exit_code == 4
        listed = forgeway(folder, None, "keys", "list", *data, "--json").stdout
        assert key["secret"] not in listed and json.loads(listed)["keys"][0]["note"] == "robot"
        assert forgeway(folder, None, "keys", "revoke", key["id"], *data).returncode == 0
    assert forgeway(folder, None, "keys", "revoke", key["id"], *data).returncode == 3
    assert forgeway(folder, None, "keys", "create", *data, "--scope", "reed").returncode == 2


def test_config_says_what_is_in_force_and_why(folder: Path) -> None:
    (folder / "forgeway.toml").write_text("max_inflight = 7\n")
    try:
        shown = json.loads(forgeway(folder, None, "config", "show", "--origin", "--json").stdout)
        assert shown["max_inflight"] == {"value": 7, "origin": "forgeway.toml"}
        (folder / "forgeway.toml").write_text("max_inflihgt = 7\n")
        wrong = forgeway(folder, None, "config", "show")
        assert wrong.returncode == 2 and "max_inflihgt" in wrong.stderr
    finally:
        (folder / "forgeway.toml").unlink()


def test_fsck_is_clean_and_doctor_has_findings(
    folder: Path, gateway: RunningGateway, registered: dict[str, Any]
) -> None:
    done = forgeway(folder, None, "fsck", "--data", "data", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["problems"] == []
    found = json.loads(forgeway(folder, gateway, "doctor", "--data", "data", "--json").stdout)
    checks = {check["name"]: check["ok"] for check in found["checks"]}
    assert checks["kernel"] and checks["data folder"] and checks["gateway"] and checks["catalog"]


def test_the_command_starts_quickly_enough_to_be_pleasant() -> None:
    code = (
        "import sys, gateway.cli; print([m for m in ('httpx', 'numpy', 'fastapi', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_proof_card_goes_to_stdout_or_a_file(
    gateway: RunningGateway, registered: dict[str, Any], tmp_path: Path
) -> None:
    assert "<!DOCTYPE html>" in asked(gateway, "report", "mlp").stdout
    facts = json.loads(asked(gateway, "report", "mlp", "--version", "1", "--json").stdout)
    assert (facts["name"], facts["complete"]) == ("mlp", True)
    file = tmp_path / "card.html"
    done = asked(gateway, "report", "mlp", "--out", str(file))
    assert done.exit_code == 0 and "<title>mlp version 1" in file.read_text()
    assert asked(gateway, "report", "nothing").exit_code == 3


@pytest.mark.timeout(300)  # its steps run at the lowest priority, as they did
def test_what_a_card_tells_to_repeat_can_be_repeated(
    folder: Path, gateway: RunningGateway, registered: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command in a clean folder with the owner's files; the script of every variant, byte for byte."""
    for placeholder, file in (("model.onnx", "mlp.onnx"), ("samples.npz", "mlp.npz"), ("policy.json", "policy.json")):
        shutil.copy(folder / file, tmp_path / placeholder)
    monkeypatch.chdir(tmp_path)
    card = json.loads(asked(gateway, "report", "mlp", "--version", "1", "--json").stdout)
    *commands, script = (command["line"] for command in card["commands"])
    assert [line.split()[1] for line in commands] == ["register", "compile", "report", "bench"]
    for line in commands:
        quick = ["--rows", "1", "--seconds", "0.2"] if " bench " in line else []
        done = asked(gateway, *shlex.split(line)[1:], *quick)
        assert done.exit_code == 0, (line, done.output)
    assert b"proof card" in (tmp_path / "card.html").read_bytes()

    assert script == "sh reproduce.sh DATA_FOLDER WORK_FOLDER"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for variant in card["variants"]:
        again = tmp_path / variant["id"]
        again.mkdir()
        (again / "reproduce.sh").write_text(variant["reproduce"]["text"])
        command = ["sh", "reproduce.sh", str(folder / "data"), str(again / "work")]
        ran = subprocess.run(command, cwd=again, env=environment, capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, (variant["id"], ran.stderr)
        assert "DIFFERS" not in ran.stderr
        if variant["id"] != "reference":
            assert "same: " in ran.stdout
