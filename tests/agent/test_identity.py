from __future__ import annotations

import json
from pathlib import Path

import pytest

from latlas_agent.identity import (
    claim_state_dir,
    load_identity,
    load_phone_identities,
    next_epoch,
    read_fingerprint,
)
from latlas_ops.errors import ConflictError, StorageError


def board(root: Path, *, address: str = "", serial: str = "", machine_id: str = "m") -> Path:
    """A root directory with what tells one board from another."""
    (root / "etc").mkdir(parents=True)
    (root / "etc/machine-id").write_text(machine_id + "\n")
    if serial:
        (root / "proc/device-tree").mkdir(parents=True)
        (root / "proc/device-tree/serial-number").write_bytes(serial.encode() + b"\0")
    if address:
        add_interface(root, "eth0", address)
    return root


def add_interface(root: Path, name: str, address: str, *, bus: str = "pci0", kind: int = 0) -> None:
    device = root / "sys/devices" / bus / name
    device.mkdir(parents=True)
    interface = root / "sys/class/net" / name
    interface.mkdir(parents=True)
    (interface / "address").write_text(address + "\n")
    (interface / "addr_assign_type").write_text(f"{kind}\n")
    (interface / "device").symlink_to(device)


def test_the_identity_of_a_board_is_minted_once(tmp_path: Path) -> None:
    root = board(tmp_path / "root", address="b8:27:eb:00:00:01")
    first = load_identity(tmp_path, read_fingerprint(root))
    assert load_identity(tmp_path, read_fingerprint(root)) == first
    assert first.device_id.startswith("device-")
    assert first.agent_id.startswith("agent-")


@pytest.mark.parametrize("source", ["serial", "address"])
def test_a_board_cloned_from_the_image_of_another_gets_its_own_identity(
    tmp_path: Path, source: str
) -> None:
    original = board(tmp_path / "original", **{source: "b8:27:eb:00:00:01"})
    clone = board(tmp_path / "clone", **{source: "b8:27:eb:00:00:02"})
    first = load_identity(tmp_path, read_fingerprint(original))
    second = load_identity(tmp_path, read_fingerprint(clone))
    assert first.device_id != second.device_id
    assert first.agent_id != second.agent_id
    assert first.fingerprint != second.fingerprint


def test_the_serial_number_decides_where_there_is_one(tmp_path: Path) -> None:
    before = board(tmp_path / "before", serial="10000000abc", address="b8:27:eb:00:00:01")
    after = board(tmp_path / "after", serial="10000000abc", address="b8:27:eb:00:00:99")
    first = load_identity(tmp_path, read_fingerprint(before))
    assert load_identity(tmp_path, read_fingerprint(after)) == first


def test_an_interface_whose_driver_loads_late_does_not_make_a_new_board(tmp_path: Path) -> None:
    root = board(tmp_path / "root", address="b8:27:eb:00:00:01")
    first = load_identity(tmp_path, read_fingerprint(root))
    early = board(tmp_path / "early")
    assert load_identity(tmp_path, read_fingerprint(early)) == first
    assert load_identity(tmp_path, read_fingerprint(root)) == first


def test_what_is_plugged_in_or_virtual_or_random_is_not_part_of_the_board(tmp_path: Path) -> None:
    root = board(tmp_path / "root", address="b8:27:eb:00:00:01")
    plain = read_fingerprint(root)
    add_interface(root, "usb0", "00:11:22:33:44:55", bus="usb1")
    add_interface(root, "wlan0", "02:11:22:33:44:55", kind=1)
    veth = root / "sys/class/net/veth0"
    veth.mkdir()
    (veth / "address").write_text("02:42:ac:11:00:02\n")
    (veth / "addr_assign_type").write_text("0\n")
    assert read_fingerprint(root) == plain


def test_a_serial_of_zeros_is_none(tmp_path: Path) -> None:
    assert read_fingerprint(board(tmp_path, serial="0000000000000000")).serial is None


def test_no_serial_or_address_is_kept_in_the_clear(tmp_path: Path) -> None:
    root = board(tmp_path / "root", serial="10000000abc", address="b8:27:eb:00:00:01")
    identity = load_identity(tmp_path, read_fingerprint(root))
    kept = (tmp_path / "identity.json").read_text()
    for secret in ("10000000abc", "b8:27:eb"):
        assert secret not in kept
        assert secret not in repr(identity)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"format": 99})])
def test_a_damaged_identity_file_is_reported_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "identity.json"
    path.write_text(text)
    with pytest.raises(StorageError, match=r"identity\.json is damaged .* delete it"):
        load_identity(tmp_path, read_fingerprint(board(tmp_path / "root")))
    assert path.read_text() == text


def test_an_identity_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        load_identity(tmp_path / "missing", read_fingerprint(board(tmp_path / "root")))


def test_the_epoch_grows_even_if_the_clock_goes_back(tmp_path: Path) -> None:
    epochs = [next_epoch(tmp_path, now_ns) for now_ns in (1000, 1000, 10, 5000)]
    assert epochs == [1000, 1001, 1002, 5000]


def test_two_agents_cannot_share_a_state_folder(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        claim_state_dir(state),
        pytest.raises(ConflictError, match="--state-dir"),
        claim_state_dir(state),
    ):
        pytest.fail("claimed twice")
    with claim_state_dir(state):
        pass


def test_a_state_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="state folder"), claim_state_dir(tmp_path / "file"):
        pytest.fail("claimed a file")


def test_phones_keep_the_identity_that_they_got_first(tmp_path: Path) -> None:
    words = iter("abc")
    first = load_phone_identities(tmp_path, "agent-1", ["S1", "S2"], words.__next__)
    assert [first[serial].device_id for serial in ("S1", "S2")] == ["device-a", "device-b"]
    assert first["S1"].agent_id == "agent-1"
    assert first["S1"].fingerprint != first["S2"].fingerprint
    later = load_phone_identities(tmp_path, "agent-1", ["S3", "S2"], words.__next__)
    assert later["S2"] == first["S2"]
    assert later["S3"].device_id == "device-c"
    assert load_phone_identities(tmp_path, "agent-1", ["S1"])["S1"] == first["S1"]
    assert "S1" not in (tmp_path / "phones.json").read_text()


@pytest.mark.parametrize("text", ["", "[]", '{"format": 9}', '{"format": 1, "phones": []}'])
def test_a_damaged_file_of_phones_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "phones.json").write_text(text)
    with pytest.raises(StorageError, match=r"phones\.json is damaged .*delete it"):
        load_phone_identities(tmp_path, "agent-1", ["S1"])
