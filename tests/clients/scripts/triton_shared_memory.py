"""tritonclient over HTTP and gRPC: tensors that lie in shared memory, registered, read, written and let go."""

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from simple import check, given
from tritonclient.utils import InferenceServerException, serialize_byte_tensor


class TestHttp:
    @pytest.fixture(scope="class")
    def client(self, http_address):
        with http.InferenceServerClient(http_address) as client:
            yield client

    def test_system_shared_memory(self, client, numbers, regions):
        total = numbers[0].nbytes
        with regions.made("http_in", 2 * total) as given_region, regions.made("http_out", 2 * total) as answer_region:
            client.unregister_system_shared_memory()
            client.register_system_shared_memory("http_in", regions.key("http_in"), 2 * total)
            client.register_system_shared_memory("http_out", regions.key("http_out"), 2 * total)
            status = {row["name"]: row for row in client.get_system_shared_memory_status()}
            assert status["http_in"] == {
                "name": "http_in", "key": regions.key("http_in"), "offset": 0, "byte_size": 2 * total
            }  # fmt: skip
            assert [row["name"] for row in client.get_system_shared_memory_status("http_out")] == ["http_out"]

            regions.write(given_region, numbers)
            inputs, outputs = [], []
            for place in range(2):
                inputs.append(http.InferInput(f"INPUT{place}", [2, 16], "INT32"))
                inputs[-1].set_shared_memory("http_in", total, offset=place * total)
                outputs.append(http.InferRequestedOutput(f"OUTPUT{place}"))
                outputs[-1].set_shared_memory("http_out", total, offset=place * total)
            result = client.infer("simple", inputs, outputs=outputs)
            spec = result.get_output("OUTPUT0")
            assert spec["shape"] == [2, 16] and "data" not in spec
            left, right = numbers
            np.testing.assert_array_equal(regions.read(answer_region, np.int32, (2, 16)), left + right)
            np.testing.assert_array_equal(regions.read(answer_region, np.int32, (2, 16), total), left - right)

            mixed = [inputs[0], given(http, numbers)[1]]
            check(client.infer("simple", mixed), numbers)
            outputs[0].unset_shared_memory()
            half = client.infer("simple", mixed, outputs=outputs)
            np.testing.assert_array_equal(half.as_numpy("OUTPUT0"), left + right)

            with pytest.raises(InferenceServerException):  # the name is taken
                client.register_system_shared_memory("http_in", regions.key("http_out"), total)
            inputs[0].set_shared_memory("http_in", total, offset=2 * total)
            with pytest.raises(InferenceServerException):  # beyond its end
                client.infer("simple", inputs, outputs=outputs)
            inputs[0].set_shared_memory("nowhere", total)
            with pytest.raises(InferenceServerException, match="nowhere"):
                client.infer("simple", inputs, outputs=outputs)

            client.unregister_system_shared_memory("http_in")
            assert [row["name"] for row in client.get_system_shared_memory_status()] == ["http_out"]
            client.unregister_system_shared_memory()
            assert client.get_system_shared_memory_status() == []
        for key in ("/nothing_is_here", "/../etc/passwd", "/a/b"):
            with pytest.raises(InferenceServerException):
                client.register_system_shared_memory("bad", key, 64)

    def test_strings_through_shared_memory(self, client, regions):
        words = np.array([[b"a", b"longer words", b""]], dtype=np.object_)
        packed = serialize_byte_tensor(words)
        size = len(packed.item())
        with regions.made("http_words", size) as given_region, regions.made("http_same", size) as answer_region:
            client.register_system_shared_memory("http_words", regions.key("http_words"), size)
            client.register_system_shared_memory("http_same", regions.key("http_same"), size)
            regions.write(given_region, [packed])
            one = http.InferInput("INPUT0", [1, 3], "BYTES")
            one.set_shared_memory("http_words", size)
            wanted = http.InferRequestedOutput("OUTPUT0")
            wanted.set_shared_memory("http_same", size)
            client.infer("simple_identity", [one], outputs=[wanted])
            assert regions.read(answer_region, np.object_, (1, 3)).tolist() == words.tolist()
            client.unregister_system_shared_memory("http_words")
            client.unregister_system_shared_memory("http_same")

    def test_cuda_shared_memory_is_answered(self, client):
        assert client.get_cuda_shared_memory_status() == []
        client.unregister_cuda_shared_memory()
        with pytest.raises(InferenceServerException):
            client.register_cuda_shared_memory("nothing", b"AAAA", 0, 64)


class TestGrpc:
    @pytest.fixture(scope="class")
    def client(self, grpc_address):
        with grpc.InferenceServerClient(grpc_address) as client:
            yield client

    def test_system_shared_memory(self, client, numbers, regions):
        total = numbers[0].nbytes
        with regions.made("grpc_in", 2 * total) as given_region, regions.made("grpc_out", 2 * total) as answer_region:
            client.register_system_shared_memory("grpc_in", regions.key("grpc_in"), 2 * total)
            client.register_system_shared_memory("grpc_out", regions.key("grpc_out"), 2 * total)
            status = client.get_system_shared_memory_status().regions
            assert {"grpc_in", "grpc_out"} <= set(status)
            assert (status["grpc_in"].key, status["grpc_in"].byte_size) == (regions.key("grpc_in"), 2 * total)
            assert list(client.get_system_shared_memory_status("grpc_out").regions) == ["grpc_out"]
            regions.write(given_region, numbers)
            inputs, outputs = [], []
            for place in range(2):
                inputs.append(grpc.InferInput(f"INPUT{place}", [2, 16], "INT32"))
                inputs[-1].set_shared_memory("grpc_in", total, offset=place * total)
                outputs.append(grpc.InferRequestedOutput(f"OUTPUT{place}"))
                outputs[-1].set_shared_memory("grpc_out", total, offset=place * total)
            result = client.infer("simple", inputs, outputs=outputs)
            assert list(result.get_output("OUTPUT0").shape) == [2, 16]
            left, right = numbers
            np.testing.assert_array_equal(regions.read(answer_region, np.int32, (2, 16)), left + right)
            np.testing.assert_array_equal(regions.read(answer_region, np.int32, (2, 16), total), left - right)
            check(client.infer("simple", [inputs[0], given(grpc, numbers)[1]]), numbers)
            check(client.infer("simple", [given(grpc, numbers)[0], inputs[1]]), numbers)
            inputs[0].set_shared_memory("nowhere", total)
            with pytest.raises(InferenceServerException, match="nowhere"):
                client.infer("simple", inputs, outputs=outputs)
            client.unregister_system_shared_memory("grpc_in")
            client.unregister_system_shared_memory("grpc_out")
            assert not {"grpc_in", "grpc_out"} & set(client.get_system_shared_memory_status().regions)
        with pytest.raises(InferenceServerException):
            client.register_system_shared_memory("bad", "/nothing_is_here", 64)

    def test_strings_through_shared_memory(self, client, regions):
        words = np.array([[b"a", b"longer words", b""]], dtype=np.object_)
        packed = serialize_byte_tensor(words)
        size = len(packed.item())
        with regions.made("grpc_words", size) as region:
            client.register_system_shared_memory("grpc_words", regions.key("grpc_words"), size)
            regions.write(region, [packed])
            one = grpc.InferInput("INPUT0", [1, 3], "BYTES")
            one.set_shared_memory("grpc_words", size)
            assert client.infer("simple_identity", [one]).as_numpy("OUTPUT0").tolist() == words.tolist()
            client.unregister_system_shared_memory("grpc_words")

    def test_cuda_shared_memory_is_answered(self, client):
        assert not client.get_cuda_shared_memory_status().regions
        client.unregister_cuda_shared_memory()
        with pytest.raises(InferenceServerException):
            client.register_cuda_shared_memory("nothing", b"AAAA", 0, 64)
