#!/usr/bin/python3
"""Judges what rdma_core_run.py wrote down: nothing failed, and exactly the listed tests were skipped.

    rdma_core_judge.py LIST OUTCOMES...

Each line of the list is a pattern of test names, a word and the reason; the first pattern that fits a test counts.
Such a test must be skipped (`always`), may be (`machine`: it wants huge pages, a GPU) or must not be (`never`).
Prints what was run, skipped and
passed, a line for each module; ends with 1 where something is not as it should be.
"""
import fnmatch
import sys


def read_list(path):
    listed = []
    with open(path, encoding='utf-8') as lines:
        for line in lines:
            if line.strip() and not line.startswith('#'):
                pattern, when, reason = line.split(None, 2)
                if when not in ('always', 'machine', 'never'):
                    raise SystemExit(f'{path}: {when}: always, machine or never')
                listed.append((pattern, when, reason.strip()))
    return listed


def read_outcomes(paths):
    for path in paths:
        with open(path, encoding='utf-8') as lines:
            for line in lines:
                yield line.rstrip('\n').split('\t')


def judge(listed, outcomes):
    """The complaints about these outcomes."""
    for name, outcome, why in outcomes:
        pattern, when, reason = next((line for line in listed if fnmatch.fnmatchcase(name, line[0])),
                                     (name, 'never', ''))
        if outcome in ('failed', 'error'):
            yield f'{name}: {outcome}: {why}'
        elif outcome == 'skipped' and when == 'never':
            yield f'{name}: skipped and not listed: {why}'
        elif outcome == 'passed' and when == 'always':
            yield f'{name}: passed, but {pattern} is listed as skipped: {reason}'


def main():
    listed = read_list(sys.argv[1])
    outcomes = list(read_outcomes(sys.argv[2:]))
    whole = dict.fromkeys(('run', 'skipped', 'passed'), 0)
    for module in dict.fromkeys(name.split('.')[0] for name, *_ in outcomes):
        mine = [outcome for name, outcome, _ in outcomes if name.split('.')[0] == module]
        counts = {'run': len(mine), 'skipped': mine.count('skipped'), 'passed': mine.count('passed')}
        print(f'{module}:', ', '.join(f'{n} {word}' for word, n in counts.items()))
        for word, n in counts.items():
            whole[word] += n
    complaints = list(judge(listed, outcomes))
    for complaint in complaints:
        print('FAILED:', complaint)
    print('all:', ', '.join(f'{n} {word}' for word, n in whole.items()))
    sys.exit(1 if complaints or not whole['passed'] else 0)


main()
