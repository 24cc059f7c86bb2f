"""Rules of the house that a machine can hold: documentation that cannot rot, rooms that have a name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from gateway.settings import Settings
from model_store.policy import Gate, Policy

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()


def test_every_setting_is_documented():
    assert [name for name in Settings.model_fields if f"`FORGEWAY_{name.upper()}`" not in README] == []


def test_every_policy_key_is_documented():
    assert [key for key in (*Policy.model_fields, *Gate.model_fields) if f"`{key}`" not in README] == []


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_every_link_inside_the_project_leads_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def test_no_room_is_called_after_nothing():
    nameless = re.compile(r"(^|/)(utils?|helpers?|common|misc|managers?)(\.py|/)")
    assert [path for path in TRACKED if nameless.search(path)] == []


def test_locks_carry_hashes_and_no_addresses():
    for lock in (ROOT / "lock").rglob("*.txt"):
        text = lock.read_text()
        assert "--hash=sha256:" in text, lock.name
        assert not re.search(r"https?://|--index-url|--extra-index-url", text), lock.name
