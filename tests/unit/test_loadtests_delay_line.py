"""The delay line between two sockets that stand for its devices."""

from __future__ import annotations

import os
import socket
import threading
from time import monotonic

from loadtests.delay_line import LineCounts, carry

DELAY_S = 0.03


def test_packets_cross_late_whole_and_in_order() -> None:
    """Each way, none before its time; the line ends when it is told to, and has counted them."""
    near, near_device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far, far_device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ended, end = os.pipe()
    counts: list[LineCounts] = []
    with near, near_device, far, far_device:
        for device in (near_device, far_device):
            device.setblocking(False)
        near.settimeout(10)
        far.settimeout(10)

        def run() -> None:
            counts.append(carry(near_device.fileno(), far_device.fileno(), DELAY_S, ended))

        line = threading.Thread(target=run, daemon=True)
        line.start()
        try:
            for sender, receiver in ((near, far), (far, near)):
                sent_at = monotonic()
                packets = [b"%d" % number * 500 for number in range(5)]
                for packet in packets:
                    sender.send(packet)
                assert [receiver.recv(4096) for _ in packets] == packets
                assert monotonic() - sent_at >= DELAY_S
        finally:
            os.close(end)
            line.join(10)
            os.close(ended)
    assert not line.is_alive()
    assert (counts[0].carried, counts[0].dropped, counts[0].refused) == (10, 0, 0)
    assert 1 <= counts[0].most_waiting <= 5
