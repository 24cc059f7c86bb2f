"""tritonclient over HTTP and gRPC: models loaded and unloaded, settings of traces and logs."""

import json

import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from simple import check, given
from tritonclient.utils import InferenceServerException


class TestHttp:
    @pytest.fixture(scope="class")
    def client(self, http_address):
        with http.InferenceServerClient(http_address) as client:
            yield client

    def test_repository(self, client, numbers, model_bytes):
        def row():
            (found,) = [row for row in client.get_model_repository_index() if row["name"] == "come_and_go"]
            return found

        assert row()["state"] == "READY"
        client.unload_model("come_and_go")
        assert not client.is_model_ready("come_and_go")
        with pytest.raises(InferenceServerException):
            client.infer("come_and_go", given(http, numbers))
        client.unload_model("come_and_go")
        client.load_model("come_and_go")
        assert client.is_model_ready("come_and_go") and row()["state"] == "READY"
        check(client.infer("come_and_go", given(http, numbers)), numbers)
        with pytest.raises(InferenceServerException, match="failed to load 'nobody'"):
            client.load_model("nobody")

    def test_load_with_a_configuration(self, client):
        for wrong in ('"parameters": {"config": {{"max_batch_size": "16"}}}', "[]", '{"max_batch_size": "many"}'):
            with pytest.raises(InferenceServerException, match="failed to load 'come_and_go'"):
                client.load_model("come_and_go", config=wrong)
        client.load_model("come_and_go", config=json.dumps({"max_batch_size": "16"}))
        assert client.get_model_config("come_and_go")["max_batch_size"] == 16
        client.load_model("come_and_go")

    def test_load_from_bytes(self, client, numbers, model_bytes):
        client.load_model(
            "from_bytes_http", config='{"backend":"onnxruntime"}', files={"file:1/model.onnx": model_bytes}
        )
        assert client.is_model_ready("from_bytes_http")
        check(client.infer("from_bytes_http", given(http, numbers)), numbers)
        client.unload_model("from_bytes_http")
        assert not client.is_model_ready("from_bytes_http")

    def test_trace_settings(self, client):
        facts = client.get_trace_settings()
        assert {"trace_level", "trace_rate", "trace_count", "log_frequency", "trace_file"} <= set(facts)
        changed = client.update_trace_settings(settings={"trace_rate": "7", "trace_level": ["TIMESTAMPS"]})
        assert changed["trace_rate"] == "7" and changed["trace_level"] == ["TIMESTAMPS"]
        assert client.update_trace_settings("simple", {"trace_rate": "9"})["trace_rate"] == "9"
        assert client.get_trace_settings("simple")["trace_rate"] == "9"
        assert client.get_trace_settings()["trace_rate"] == "7"
        assert client.update_trace_settings("simple", {"trace_rate": None})["trace_rate"] == "7"
        cleared = client.update_trace_settings(settings={"trace_rate": None, "trace_level": None})
        assert cleared["trace_rate"] == facts["trace_rate"]

    def test_log_settings(self, client):
        facts = client.get_log_settings()
        assert {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"} <= set(facts)
        assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
        assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0


class TestGrpc:
    @pytest.fixture(scope="class")
    def client(self, grpc_address):
        with grpc.InferenceServerClient(grpc_address) as client:
            yield client

    def test_repository(self, client, numbers):
        def row():
            (found,) = [row for row in client.get_model_repository_index().models if row.name == "come_and_go"]
            return found

        assert row().state == "READY"
        client.unload_model("come_and_go")
        assert not client.is_model_ready("come_and_go")
        with pytest.raises(InferenceServerException):
            client.infer("come_and_go", given(grpc, numbers))
        client.unload_model("come_and_go")
        client.load_model("come_and_go")
        assert client.is_model_ready("come_and_go") and row().state == "READY"
        check(client.infer("come_and_go", given(grpc, numbers)), numbers)
        with pytest.raises(InferenceServerException, match="failed to load 'nobody'") as caught:
            client.load_model("nobody")
        assert caught.value.status() == "StatusCode.INTERNAL"

    def test_load_with_a_configuration(self, client):
        for wrong in ('"parameters": {"config": {{"max_batch_size": "16"}}}', "[]", '{"max_batch_size": "many"}'):
            with pytest.raises(InferenceServerException, match="failed to load 'come_and_go'"):
                client.load_model("come_and_go", config=wrong)
        client.load_model("come_and_go", config=json.dumps({"max_batch_size": "16"}))
        assert client.get_model_config("come_and_go").config.max_batch_size == 16
        client.load_model("come_and_go")

    def test_load_from_bytes(self, client, numbers, model_bytes):
        client.load_model(
            "from_bytes_grpc", config='{"backend":"onnxruntime"}', files={"file:1/model.onnx": model_bytes}
        )
        assert client.is_model_ready("from_bytes_grpc")
        check(client.infer("from_bytes_grpc", given(grpc, numbers)), numbers)
        client.unload_model("from_bytes_grpc")
        assert not client.is_model_ready("from_bytes_grpc")

    def test_trace_settings(self, client):
        facts = client.get_trace_settings().settings
        assert {"trace_level", "trace_rate", "trace_count", "log_frequency", "trace_file"} <= set(facts)
        changed = client.update_trace_settings(settings={"trace_rate": "7", "trace_level": ["TIMESTAMPS"]}).settings
        assert list(changed["trace_rate"].value) == ["7"] and list(changed["trace_level"].value) == ["TIMESTAMPS"]
        changed = client.update_trace_settings("simple", {"trace_rate": "9"}, as_json=True)
        assert changed["settings"]["trace_rate"]["value"] == ["9"]
        assert list(client.get_trace_settings("simple").settings["trace_rate"].value) == ["9"]
        client.update_trace_settings("simple", {"trace_rate": None})
        cleared = client.update_trace_settings(settings={"trace_rate": None, "trace_level": None}).settings
        assert cleared["trace_rate"] == facts["trace_rate"]

    def test_log_settings(self, client):
        facts = client.get_log_settings().settings
        assert {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"} <= set(facts)
        changed = client.update_log_settings({"log_verbose_level": 1, "log_info": True}).settings
        assert changed["log_verbose_level"].uint32_param == 1 and changed["log_info"].bool_param
        assert client.update_log_settings({"log_verbose_level": 0}).settings["log_verbose_level"].uint32_param == 0
