"""Bytes that nobody meant, on a real link: whoever sends them is told or dropped, others go on."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from link_client import LinkClient, LinkClosed, Linked, LinkFailed, frame, hello

from shmgemm import abi
from shmgemm import abi_link as link
from shmgemm.abi import Op, Status

KINDS = st.sampled_from([*link.LinkKind, 0, 8, 2**32 - 1])
HELLOS = st.sampled_from([hello(), hello(role=link.LinkRole.CLIENT)])
HEADS = st.builds(
    lambda kind, count: bytes(link.LinkHead(kind=kind, bytes=count)),
    KINDS,
    st.sampled_from([0, 1, 63, 64, 65, 128, 256, 4104, 4112, 32768, 32896, 2**31, 2**32 - 1]),
)
COMMANDS = st.binary(min_size=128, max_size=128).map(
    lambda record: frame(link.LinkKind.COMMANDS, record)
)
REQUESTS = st.binary(min_size=40, max_size=40).map(
    lambda start: frame(link.LinkKind.REQUEST, start + bytes(4104 - 40))
)
PIECES = st.lists(
    st.one_of(HEADS, COMMANDS, REQUESTS, HELLOS, st.binary(max_size=300)), max_size=12
)
FUZZ = settings(max_examples=150)


def survives(embedded: Linked) -> None:
    with embedded.link() as other:
        assert other.run(Op.NOOP, 1).status == Status.OK
        assert other.respond(Op.ECHO, 2, b"x").status == 0
    assert embedded.core.noop().status == Status.OK


@FUZZ
@given(pieces=PIECES, greet=st.booleans())
def test_random_frames(embedded: Linked, pieces: list[bytes], greet: bool) -> None:
    with LinkClient(embedded.path, greet=greet) as client:
        client.socket.settimeout(0.02)
        with contextlib.suppress(LinkFailed, LinkClosed, TimeoutError, BrokenPipeError):
            for piece in pieces:
                client.send(piece)
            while True:
                client.receive()
    survives(embedded)


@FUZZ
@given(
    op=st.integers(0, 12),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "device": st.integers(0, 2),
            "flags": st.integers(0, 127),
            "stream": st.integers(0, 2**32 - 1),
            "report": st.integers(0, 2**32 - 1),
            "after": st.integers(0, 4),
        },
    ),
    args=st.lists(st.integers(0, 2**64 - 1), max_size=4),
)
def test_random_commands_are_answered(
    embedded: Linked, op: int, fields: dict[str, int], args: list[int]
) -> None:
    with embedded.link() as client:
        command = client.command(op, 9, args=args, **fields)
        client.submit(command, client.command(Op.FLUSH, 10))
        client.wait(10)
        assert client.completions[9].status in list(abi.Status)
    survives(embedded)
