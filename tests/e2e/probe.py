"""
What tests measure: how long others wait, and what a process holds.
"""
import contextlib
import functools
import http.client
import json
import os
import threading
import time


def status_field(pid, name):
    """A size of /proc/PID/status, in KiB."""
    with open('/proc/%d/status' % pid) as file:
        for line in file:
            if line.startswith(name + ':'):
                return int(line.split()[1])
    raise KeyError(name)


def rss_kib(pid):
    return status_field(pid, 'VmRSS')


@functools.lru_cache
def counts_lines(program):
    with open(program, 'rb') as file:
        return b'__gcov_' in file.read()


def is_instrumented(pid):
    """
    Under a sanitizer or valgrind a process is slow, and keeps freed memory: its size says nothing about leaks. One that
    counts what it runs for `make coverage` is not optimized either.
    """
    program = os.readlink('/proc/%d/exe' % pid)
    return status_field(pid, 'VmSize') > 1 << 30 or 'valgrind' in program or counts_lines(program)


def processor_seconds(pid):
    """That it has worked so far. Whatever else this machine does, it does not count."""
    with open('/proc/%d/stat' % pid) as file:
        fields = file.read().rsplit(') ', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def descriptors(pid):
    return len(os.listdir('/proc/%d/fd' % pid))


class Beside:
    """
    `with` it, watch() runs in a thread for as long as the block lasts: until `stopping` is set. What it raises, the block
    raises at its end.
    """

    def __init__(self):
        self.error = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def watch(self):
        raise NotImplementedError

    def run(self):
        try:
            self.watch()
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        self.thread.join(60)
        if kind is None and self.error is not None:
            raise self.error
        assert kind is not None or not self.thread.is_alive(), 'it does not come to an end'


class Prober(Beside):
    """
    A client that asks again and again, on kept connections, and keeps the time of each answer: GET /health and short
    chats in turn. `with Prober(stack) as prober: …` asks for as long as the block lasts.
    """

    def __init__(self, stack, chats=True):
        super().__init__()
        self.address = ('127.0.0.1', stack.port)
        self.chats = chats
        self.times = []

    def ask_once(self, link, number):
        """Asks, and returns the seconds that it took."""
        begun = time.perf_counter()
        if self.chats and number % 2:
            body = json.dumps({'message': '第 %d 个问题' % number}).encode()
            link.request('POST', '/chat', body, {'Content-Type': 'application/json'})
        else:
            link.request('GET', '/health')
        answer = link.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return time.perf_counter() - begun

    def watch(self):
        number = 0
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=30)) as link:
            while not self.stopping.is_set():
                self.times.append(self.ask_once(link, number))
                number += 1

    def measured(self, count):
        """Whether so many answers have come; raises what went wrong."""
        if self.error is not None:
            raise self.error
        return len(self.times) >= count

    def p99(self):
        times = sorted(self.times)
        return times[len(times) * 99 // 100]

    def longest(self):
        return max(self.times)
