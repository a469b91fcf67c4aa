#!/usr/bin/python3
"""What the time and the CPU of each CRI call go to, from a trace of the scheduler.

Usage: perf script --ns -F comm,tid,cpu,time,event,trace -i TRACE | trace.py TRACE.marks TRACE.processes

`tools/bench/run --trace` makes all three. For each call: the medians, over its rounds, of how long it took, how long
nobody of the machine was on a CPU meanwhile (waiting: for the kernel, or for a CPU that others had), and for each program
what CPU time its processes took, how long they stood in the kernel and could not be woken (moving a process to its control
group waits for an RCU grace period), how many processes and threads began, when the first did, and when the last ended.
"""

import re
import statistics
import sys
from collections import defaultdict

LINE = re.compile(r'^\s*(.*?)\s+(\d+)\s+\[(\d+)\]\s+(\d+)\.(\d+):\s+sched:(\w+):\s+(.*)$')
SWITCH = re.compile(r'prev_comm=.*? prev_pid=(\d+) prev_prio=\d+ prev_state=(\S+) ==> next_comm=.*? next_pid=(\d+)')
FORK = re.compile(r'comm=.*? pid=(\d+) child_comm=.*? child_pid=(\d+)')
EXEC = re.compile(r'filename=(.*?) pid=(\d+) old_pid=')
EXIT = re.compile(r'comm=.*? pid=(\d+) ')
OWN_MOUNT = re.compile(r'^/proc/\d+/fd/\d+$')


class Trace:
    def __init__(self, processes):
        self.name = {}      # of each thread of the machine, by its number
        self.began = {}     # its process, if that began in the trace
        self.runs = []      # (name, begin, end): on a CPU
        self.lives = []     # (name, begin, end): of a program
        self.blocked = []   # (name, begin, end): uninterruptible
        self.blocked_since = {}
        self.on_cpu = {}    # by CPU: (thread, since)
        for line in open(processes, encoding='utf-8'):
            number, name = line.split(None, 1)
            self.name[int(number)] = name.strip()

    def switch(self, cpu, now, before, state, after):
        thread, since = self.on_cpu.get(cpu, (None, now))
        if thread == before and before in self.name:
            self.runs.append((self.name[before], since, now))
        if before in self.name and state.startswith('D'):
            self.blocked_since[before] = now
        if after in self.blocked_since:
            self.blocked.append((self.name.get(after, '?'), self.blocked_since.pop(after), now))
        self.on_cpu[cpu] = (after, now)

    def fork(self, now, parent, child):
        if parent not in self.name:
            self.name.pop(child, None)  # the number is used again
            return
        name = self.name[parent]
        # Until it executes a program, what PID 1 starts is PID 1's work.
        self.name[child] = 'PID-1, child' if name == 'PID-1' else name
        self.began[child] = now

    def executed(self, now, path, thread):
        if thread not in self.name:
            return
        before, name = self.name[thread], path.rsplit('/', 1)[-1]
        if OWN_MOUNT.match(path):  # the two programs that are executed by descriptor
            name = 'crun' if before == 'rktlet-create' else 'rktlet-exec, crun exec'
        self.lives.append((before, self.began.get(thread, now), now))
        self.name[thread] = name
        self.began[thread] = now

    def exited(self, now, thread):
        if thread in self.name and thread in self.began:
            self.lives.append((self.name[thread], self.began[thread], now))
        self.began.pop(thread, None)

    def read(self, lines):
        for line in lines:
            m = LINE.match(line)
            if not m:
                continue
            cpu, now = int(m[3]), int(m[4]) * 10**9 + int(m[5].ljust(9, '0')[:9])
            event, text = m[6], m[7]
            if event == 'sched_switch' and (m := SWITCH.search(text)):
                self.switch(cpu, now, int(m[1]), m[2], int(m[3]))
            elif event == 'sched_process_fork' and (m := FORK.search(text)):
                self.fork(now, int(m[1]), int(m[2]))
            elif event == 'sched_process_exec' and (m := EXEC.search(text)):
                self.executed(now, m[1], int(m[2]))
            elif event == 'sched_process_exit' and (m := EXIT.search(text)):
                self.exited(now, int(m[1]))


def overlap(a, b, begin, end):
    return max(0, min(b, end) - max(a, begin))


def union(intervals):
    total, last = 0, None
    for begin, end in sorted(intervals):
        if last is None or begin > last:
            total += end - begin
            last = end
        elif end > last:
            total += end - last
            last = end
    return total


def median(values):
    return statistics.median(values) / 1e6


def inside(intervals, begin, end):
    return [i for i in intervals if i[-1] > begin and i[-2] < end]


def report(call, rounds, trace):
    took, waiting = [], []
    cpu, blocked, first, last, count = (defaultdict(list) for _ in range(5))
    for begin, end in rounds:
        runs = inside(trace.runs, begin, end)
        busy = union([(max(b, begin), min(e, end)) for name, b, e in runs if name != 'bench'])
        took.append(end - begin)
        waiting.append(end - begin - busy)
        spent, stood, lives = defaultdict(int), defaultdict(int), defaultdict(list)
        for name, b, e in inside(trace.blocked, begin, end):
            stood[name] += overlap(b, e, begin, end)
        for name, b, e in runs:
            spent[name] += overlap(b, e, begin, end)
        for name, b, e in inside(trace.lives, begin, end):
            if b >= begin:
                lives[name].append((b, e))
        for name, value in spent.items():
            cpu[name].append(value)
            blocked[name].append(stood[name])
        for name, value in lives.items():
            first[name].append(min(b for b, _ in value) - begin)
            last[name].append(max(e for _, e in value) - begin)
            count[name].append(len(value))
    print(f'\n{call}, {len(rounds)} rounds: {median(took):.1f} ms; nobody on a CPU {median(waiting):.1f} ms')
    print(f'  {"program":<26}{"CPU ms":>8}{"stood":>8}{"number":>8}{"begin":>8}{"end":>8}')
    n = len(rounds)
    for name in sorted(cpu, key=lambda k: -sum(cpu[k])):
        value = median(cpu[name] + [0] * (n - len(cpu[name])))
        if name == 'bench' or value < .01:
            continue
        line = f'  {name:<26}{value:>8.2f}{median(blocked[name]):>8.1f}'
        if name in first and len(first[name]) * 2 > n:
            line += f'{statistics.median(count[name]):>8.0f}{median(first[name]):>8.1f}{median(last[name]):>8.1f}'
        print(line)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    trace = Trace(sys.argv[2])
    trace.read(sys.stdin)
    calls = {}
    for line in open(sys.argv[1], encoding='utf-8'):
        name, begin, end = line.split()
        calls.setdefault(name, []).append((int(begin), int(end)))
    for name, rounds in calls.items():
        if len(rounds) > 1:  # the first of each call warms up
            report(name, rounds[1:], trace)


main()
