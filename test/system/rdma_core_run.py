#!/usr/bin/python3
"""Runs one module of rdma-core's tests, as Debian's python3-pyverbs carries them, and writes down
what came of each test: `id<tab>passed|skipped|failed|error<tab>reason`, a line each.

rdma_core is the script around it; rdma_core_judge.py reads what is written here.
"""
import argparse
import os
import sys
import unittest


class Outcomes(unittest.TextTestResult):
    """The text result that unittest shows, and a list of what came of each test."""

    def __init__(self, *words, **named):
        super().__init__(*words, **named)
        self.outcomes = {}

    def note(self, test, outcome, reason=''):
        # A subtest that failed counts against the test that it is part of.
        self.outcomes.setdefault(test.id(), (outcome, reason))

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, 'passed')

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, 'skipped', reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, 'failed', str(err[1]))

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, 'error', str(err[1]))

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.note(test, 'failed', str(err[1]))


def words():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('suite', help='unpacked folder of the tests, named tests')
    parser.add_argument('module', help='test_qp, ...')
    parser.add_argument('outcomes', help='file to write')
    parser.add_argument('--dev', required=True)
    parser.add_argument('--gid', required=True, help='index of a GID of the device')
    parser.add_argument('--address', required=True, help='its IP address, for the connection manager')
    parser.add_argument('--peer', help='the other host\'s address: this process is one of two')
    parser.add_argument('--side', choices=['active', 'passive'], help='which of the two')
    parser.add_argument('--meet', help='socket of rdma_core_meet.py')
    return parser.parse_args()


def main():
    args = words()
    suite = os.path.realpath(args.suite)
    sys.path[:0] = [os.path.dirname(suite), suite]
    from args_parser import parser  # the suite's own
    sys.argv[1:] = ['--dev', args.dev, '--gid', args.gid, '-v']
    parser.parse_args()
    import tests.base

    # The suite takes the net device's first address, which on lo is 127.0.0.1.
    tests.base.RDMATestCase.get_ip_mac_address = staticmethod(
        lambda ifname: (args.address, '02:00:00:00:00:01'))
    if args.peer:
        import rdma_core_meet
        rdma_core_meet.be_one_of_two(args.side, args.address, args.peer, args.meet)

    found = unittest.defaultTestLoader.loadTestsFromName('tests.' + args.module)
    result = unittest.TextTestRunner(verbosity=2, resultclass=Outcomes).run(found)
    with open(args.outcomes, 'w', encoding='utf-8') as out:
        for test, (outcome, reason) in result.outcomes.items():
            name = test.removeprefix('tests.')
            print(name, outcome, ' '.join(reason.split()), sep='\t', file=out)


main()
