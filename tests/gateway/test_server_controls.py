"""Trace and log settings: kept, reported, and the log's really in force."""

from __future__ import annotations

import logging

import pytest

from gateway.errors import BadRequest, Unsupported
from gateway.logs import LOGGER
from gateway.server_controls import ServerControls


@pytest.fixture(autouse=True)
def level():
    before = LOGGER.level
    yield
    LOGGER.setLevel(before)


def test_log_settings_start_as_the_level_says():
    assert ServerControls("warning").log_settings() == {
        "log_file": "",
        "log_info": False,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({"log_verbose_level": 1}, logging.DEBUG),
        ({"log_info": False}, logging.WARNING),
        ({"log_info": False, "log_warning": False}, logging.ERROR),
        ({"log_info": False, "log_warning": False, "log_error": False}, logging.CRITICAL),
        ({"log_format": "ISO8601"}, logging.INFO),
    ],
)
def test_log_settings_change_what_is_logged(given, level):
    controls = ServerControls("info")
    assert controls.set_log(given).items() >= given.items()
    assert LOGGER.level == level


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"log_file": "x"}, Unsupported, "log file location can not be updated through network protocol"),
        ({"log_info": 1}, BadRequest, "'log_info' must be true or false"),
        ({"log_verbose_level": -1}, BadRequest, "whole number"),
        ({"log_verbose_level": True}, BadRequest, "whole number"),
        ({"log_format": "xml"}, BadRequest, "default, ISO8601"),
        ({"log_colour": 1}, BadRequest, "Unknown log setting 'log_colour'"),
    ],
)
def test_wrong_log_settings_change_nothing(given, kind, words):
    controls = ServerControls("info")
    before = controls.log_settings()
    with pytest.raises(kind, match=words):
        controls.set_log({"log_error": False, **given})
    assert controls.log_settings() == before


def test_trace_settings_of_a_model_lie_over_the_global_ones():
    controls = ServerControls("info")
    assert controls.trace_settings()["trace_level"] == ["OFF"]
    controls.set_trace({"trace_rate": 10, "trace_level": ["TIMESTAMPS", "TENSORS"]})
    assert controls.set_trace({"trace_rate": ["5"], "trace_count": "3"}, "m")["trace_level"] == [
        "TIMESTAMPS",
        "TENSORS",
    ]
    assert controls.trace_settings("m")["trace_rate"] == "5"
    assert controls.trace_settings()["trace_rate"] == "10"
    controls.set_trace({"trace_rate": "7", "trace_level": "OFF"})
    assert controls.set_trace({"trace_rate": None}, "m")["trace_rate"] == "7"
    assert controls.set_trace({"trace_rate": None})["trace_rate"] == "1000"
    assert controls.trace_settings("m")["trace_count"] == "3"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trace_level": ["LOUD"]}, "OFF, TIMESTAMPS, TENSORS"),
        ({"trace_level": []}, "must be a text"),
        ({"trace_rate": "0"}, "1 or more"),
        ({"trace_rate": "ten"}, "1 or more"),
        ({"trace_count": "-2"}, "-1 or more"),
        ({"trace_rate": True}, "must be a text"),
        ({"trace_rate": ["1", "2"]}, "one value, not 2"),
        ({"trace_mode": "opentelemetry"}, "must be 'triton'"),
        ({"trace_speed": "1"}, "Unknown trace setting 'trace_speed'"),
    ],
)
def test_wrong_trace_settings_change_nothing(given, words):
    controls = ServerControls("info")
    before = controls.trace_settings()
    with pytest.raises(BadRequest, match=words):
        controls.set_trace({"log_frequency": "4", **given})
    assert controls.trace_settings() == before
