"""What an engine says to a client of its region, and to one that does not keep to the protocol."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable

import pytest
from link_client import (
    ENGINES,
    LinkClient,
    LinkClosed,
    Linked,
    LinkFailed,
    Memory,
    frame,
    hello,
)

from shmgemm import abi
from shmgemm import abi_link as link
from shmgemm.abi import Op, Status

CLIENTS = 2


@pytest.fixture(params=ENGINES)
def served(request: pytest.FixtureRequest, open_linked: Callable[..., Linked]) -> Linked:
    return open_linked(request.param, clients=CLIENTS)


class Client(LinkClient):
    """One with a LEASE; `region` is the descriptor that came with it, or None."""

    def __init__(self, linked: Linked) -> None:
        self.region: int | None = None
        super().__init__(linked.path, role=link.LinkRole.CLIENT)
        kind, content = self.receive()
        assert kind == link.LinkKind.LEASE
        self.lease = link.LinkLease.from_buffer_copy(content)
        self.parameters = content[16:].decode()

    def _take(self, count: int) -> bytes:
        data, found, _, _ = self.socket.recvmsg(count, socket.CMSG_SPACE(4))
        for level, kind, content in found:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            assert self.region is None, "one descriptor alone"
            (self.region,) = array.array("i", content)
        if not data and count:
            raise LinkClosed
        return data + (self._take(count - len(data)) if len(data) < count else b"")

    def close(self) -> None:
        self.socket.close()
        if self.region is not None:
            os.close(self.region)


def test_a_lease(served: Linked) -> None:
    first, second = Client(served), Client(served)
    assert [first.lease.queue_pair, second.lease.queue_pair] == [1, 2]
    assert first.lease.clients == CLIENTS
    assert dict(line.split("=", 1) for line in first.parameters.splitlines()) == (
        served.described.parameters
    )
    assert first.region is not None
    header = Memory(first.region).header
    assert list(header.region_id) == list(first.engine.region_id)
    assert header.queue_pair_count == 1 + CLIENTS
    arenas = [arena for arena in header.arenas if arena.bytes and not arena.state]
    assert [arena.owner for arena in arenas] == [2, 3]
    third = Client(served)
    assert third.lease.queue_pair == link.LINK_NO_QUEUE_PAIR
    assert third.region is None
    with pytest.raises(LinkClosed):
        third.receive()
    for client in (first, second, third):
        client.close()
    again = Client(served)
    assert again.lease.queue_pair in (1, 2)
    again.close()


def test_no_place_at_all(linked: Linked) -> None:
    client = Client(linked)
    assert (client.lease.queue_pair, client.lease.clients) == (link.LINK_NO_QUEUE_PAIR, 0)
    assert client.region is None
    client.close()


NOT_HERE = {
    "commands": frame(link.LinkKind.COMMANDS, bytes(abi.Command(op=Op.NOOP, id=1))),
    "request": frame(link.LinkKind.REQUEST, bytes(link.Request(type=0, id=1))),
    "second hello": hello(role=link.LinkRole.CLIENT),
    "lease": frame(link.LinkKind.LEASE, bytes(16)),
    "nonsense": b"\xff" * 64,
}


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_a_client_does_not_send(served: Linked, name: str) -> None:
    for _ in range(2 * CLIENTS):  # its place is free again, if not before the other one is taken
        client = Client(served)
        assert client.lease.queue_pair in (1, 2)
        client.send(NOT_HERE[name])
        with pytest.raises(LinkFailed):
            client.receive()
        with pytest.raises(LinkClosed):
            client.receive()
        client.close()
    assert served.core.noop().status == Status.OK


def test_clients_that_do_not_stay_to_hear(served: Linked) -> None:
    for _ in range(40):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(served.path))
            client.sendall(hello(role=link.LinkRole.CLIENT))
    client = Client(served)
    assert client.lease.queue_pair in (1, 2)
    client.close()
    with served.link() as other:
        assert other.run(Op.NOOP, 1).status == Status.OK
