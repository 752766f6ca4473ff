#!/usr/bin/python3
"""The connection manager's tests of rdma-core with their two processes on two hosts.

The suite forks a passive and an active process, which meet at a barrier and a queue. Here each host
runs the suite with one of the two, and the barrier and the queue are served by a third process
on a unix socket, which both reach from their network namespaces: `rdma_core_meet.py SOCKET`.
"""
import multiprocessing as mp
import queue
import sys
import threading
from multiprocessing.managers import BarrierProxy, BaseManager

WAIT_S = 15  # as the suite's own barrier
ROUNDS = 150 * 2  # of 100 ms, as the suite's own
BAD_FLOW_ROUNDS = 30

barriers, queues = {}, {}


class Meeting(BaseManager):
    """Barriers for two and queues, each by the name of a test."""


def serve(path):
    lock = threading.Lock()

    def barrier(name):
        with lock:
            return barriers.setdefault(name, threading.Barrier(2, timeout=WAIT_S))

    def a_queue(name):
        with lock:
            return queues.setdefault(name, queue.Queue())

    Meeting.register('barrier', callable=barrier, proxytype=BarrierProxy)
    Meeting.register('queue', callable=a_queue)
    Meeting(address=path, authkey=b'rdma-core').get_server().serve_forever()


def be_one_of_two(side, address, peer, path):
    """Makes the suite, already imported, run the `side` of each test, at `address` against `peer`."""
    import tests.base
    import tests.base_rdmacm
    import tests.rdmacm_utils
    from unittest import SkipTest

    Meeting.register('barrier', proxytype=BarrierProxy)
    Meeting.register('queue')

    def two_nodes(self, connection_resources, test_flow, bad_flow=False, **resource_kwargs):
        meeting = Meeting(address=path, authkey=b'rdma-core')
        meeting.connect()
        self.syncer = meeting.barrier(self.id())
        self.notifier = meeting.queue(self.id())
        process = mp.get_context('fork').Process(
            target=test_flow,
            kwargs={'connection_resources': connection_resources, 'passive': side == 'passive',
                    **resource_kwargs})
        process.start()
        process.join((BAD_FLOW_ROUNDS if bad_flow else ROUNDS) * 0.1)
        stuck = process.is_alive()
        if stuck:
            process.kill()
            process.join()
        elif process.exitcode == 5:
            raise SkipTest(f'SkipTest occurred on {side} side')
        elif process.exitcode:
            raise AssertionError(f'the {side} side ended with {process.exitcode}')
        # Who receives waits for good where nothing may come.
        if bad_flow and side == 'passive' and not stuck:
            raise AssertionError('traffic passed which is not expected')
        if not bad_flow and stuck:
            raise AssertionError(f'the {side} side is stuck')

    tests.base.RDMACMBaseTest.two_nodes_rdmacm_traffic = two_nodes

    # On one host both ends have the same address, and one multicast group made of it.
    def group_of(host):
        return tests.base.MC_IP_PREFIX + host[host.find('.'):]

    def addresses(real):
        def one_group(name):
            return group_of(min(address, peer)) if name == group_of(address) else name

        def make(src=None, dst=None, **named):
            return real(src=one_group(src), dst=peer if dst == address else one_group(dst), **named)
        return make

    for module in (tests.base_rdmacm, tests.rdmacm_utils):
        module.AddrInfo = addresses(module.AddrInfo)


if __name__ == '__main__':
    serve(sys.argv[1])
