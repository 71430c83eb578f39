"""
Refuses memory to a worker (tests/alloc/starve.c): which allocation, who had asked for it, and how much of what was taken has
come back.
"""
import ctypes
import mmap
import os
import subprocess

from service import TOP

CHATD = os.environ.get('CHATD') or os.path.join(TOP, 'build', 'coze-chatd')
LIBRARY = os.path.join(os.path.dirname(CHATD), 'starve.so')
SPARED = b'libfcgi.so libjson-c.so'  # test_starvation.py says why
NUMBERS = ('pid', 'many', 'good', 'asked', 'refused', 'live', 'live_bytes', 'budget', 'size')


class Order(ctypes.Structure):
    """struct order of starve.c."""
    _fields_ = [(name, ctypes.c_int64) for name in NUMBERS] + [('spared', ctypes.c_char * 64), ('callers', ctypes.c_char * 4096)]


class Refusal:
    """The allocation that was refused: `frames` is [(file, offset, symbol)], innermost first."""

    def __init__(self, size, callers):
        self.size = size
        self.frames = [(os.path.basename(path), offset, symbol)
                       for path, offset, symbol in (line.rsplit(' ', 2) for line in callers.splitlines() if line.count(' ') > 1)
                       if os.path.basename(path) != os.path.basename(LIBRARY)]

    @property
    def who(self):
        """The library that asked; libc's own functions ask for somebody."""
        for path, _, _ in self.frames:
            if not path.startswith('libc.so'):
                return path.split('.so')[0]
        return 'libc'

    def __str__(self):
        """The way there, with names of our own functions."""
        ours = [offset for path, offset, _ in self.frames if path == os.path.basename(CHATD)]
        names = []
        if ours:
            words = ['addr2line', '-fse', CHATD, *[hex(int(offset, 16) - 1) for offset in ours]]
            names = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        known = iter(zip(names[::2], names[1::2]))
        lines = ['%s: %s (%s)' % (path, *next(known, ('?', '?'))) if path == os.path.basename(CHATD)
                 else '%s: %s' % (path, symbol if symbol != '-' else offset) for path, offset, symbol in self.frames]
        return '%d bytes for\n  %s' % (self.size, '\n  '.join(lines))


class Starver:
    """One for each stack: the file that the order is in is memory of this process."""

    def __init__(self):
        fd = os.memfd_create('order')
        os.ftruncate(fd, ctypes.sizeof(Order))
        self.order = Order.from_buffer(mmap.mmap(fd, 0))
        self.path = '/proc/%d/fd/%d' % (os.getpid(), fd)

    @property
    def wrapper(self):
        """What CHATD_WRAPPER must say."""
        assert os.path.exists(LIBRARY), 'make e2e builds it'
        return 'env LD_PRELOAD=%s STARVE_FILE=%s' % (LIBRARY, self.path)

    def watch(self, pid):
        """From now on orders are for this process."""
        self.serve()
        self.order.live = self.order.live_bytes = 0
        self.order.pid = pid

    def refuse(self, good=0, many=0, left=None):
        """`many` allocations after `good` more ones, not counting SPARED's; or all that would take more than `left` bytes."""
        order = self.order
        self.serve()
        order.asked = order.refused = order.size = 0
        order.callers, order.spared = b'', SPARED
        order.good = good
        if left is not None:
            order.budget = max(order.live_bytes + left, 1)
        order.many = many

    def serve(self):
        """Ends the order. The Refusal, if there was one."""
        self.order.many = self.order.budget = 0
        return self.last()

    def last(self):
        return Refusal(self.order.size, self.order.callers.decode()) if self.order.refused else None

    @property
    def live(self):
        """Allocations that were not given back."""
        return self.order.live
