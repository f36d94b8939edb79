"""Ten thousand requests that are wrong leave a real Triton serving, and its answers right."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from served_models import servable

from sml_kernel import serving

COUNT = 10_000
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Service]:
    try:
        serving.install_triton()
    except serving.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Triton: {error}")
    folder: Path = tmp_path_factory.mktemp("malformed") / "run"
    with serving.start(
        {"twice": servable("twice", "honest")}, folder=folder, progress=False
    ) as started:
        yield started


def http_request(random: np.random.Generator) -> bytes:
    """A request that no server should take, by HTTP."""
    shape = random.integers(-3, 5, random.integers(0, 4)).tolist()
    kind = random.choice(["FP32", "INT64", "BYTES", "NONE", ""])
    data = random.normal(size=random.integers(0, 9)).tolist()
    if (shape, kind) == ([len(data) // 3, 3], "FP32"):
        shape = [*shape, 1]
    body = json.dumps(
        {"inputs": [{"name": "input_0", "shape": shape, "datatype": kind, "data": data}]}
    ).encode()
    how = random.integers(5)
    declared = len(body)
    if how == 1:
        body = body[: random.integers(len(body))]  # truncated JSON of an honest length
        declared = len(body)
    if how == 2:
        body = random.bytes(random.integers(1, 200))
        declared = len(body)
    if how == 3:
        declared = int(random.integers(1 << 30, 1 << 62))  # huge, and it never comes
    headers = f"Host: x\r\nContent-Length: {declared}\r\n"
    if how == 4:
        headers += f"Inference-Header-Content-Length: {random.integers(-5, 1 << 40)}\r\n"
    return f"POST /v2/models/twice/infer HTTP/1.1\r\n{headers}\r\n".encode() + body


def ask_http(address: tuple[str, int], message: bytes) -> str:
    with socket.create_connection(address, timeout=0.02) as connection:
        connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        try:
            said = connection.recv(64)
        except (TimeoutError, ConnectionError):
            return "no answer"
    return said.split(b" ")[1].decode() if said.startswith(b"HTTP/1.1 ") else "closed"


def ask_grpc(stub, random: np.random.Generator) -> str:
    import grpc
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest(
        model_name=str(random.choice(["twice", "", "other", "../twice"])),
        model_version=str(random.choice(["", "1", "9", "x"])),
    )
    for name in random.choice(["input_0", "y", ""], random.integers(0, 3)):
        shape = random.integers(-(1 << 40), 1 << 40, random.integers(0, 4)).tolist()
        kind = str(random.choice(["FP32", "BYTES", "BOOL", "?"]))
        message.inputs.add(name=str(name), datatype=kind, shape=shape)
        message.raw_input_contents.append(random.bytes(random.integers(0, 64)))
    try:
        stub.ModelInfer(message, timeout=5)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def test_what_is_malformed_is_refused_and_the_server_goes_on(service: serving.Service) -> None:
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    before = service.infer("twice", X)
    pid, random = service.server.pid, np.random.default_rng(0)
    host, _, port = service.server.place.http.partition(":")
    with grpc.insecure_channel(service.server.place.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        ways: list[Callable[[], str]] = [
            lambda: ask_http((host, int(port)), http_request(random)),
            lambda: ask_grpc(stub, random),
        ]
        ends = Counter(ways[each % 2]() for each in range(COUNT))
    assert sum(ends.values()) == COUNT
    assert not ends["OK"]
    assert not ends["200"]
    assert ends["400"] > COUNT / 8
    assert ends["INVALID_ARGUMENT"] > COUNT / 8
    for transport in ("grpc", "http"):
        np.testing.assert_array_equal(service.infer("twice", X, transport=transport), before)
    assert service.server.pid == pid
    assert service.server.alive()
