"""
FastCGI by hand, for tests that talk to one worker's socket without nginx (FastCGI specification 1.0, sections 3 to 6).
"""
import os
import socket
import struct

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES = range(1, 10)
RESPONDER, AUTHORIZER, FILTER = 1, 2, 3
KEEP_CONN = 1


def record(kind, content=b'', request_id=1, version=1, padding=0, announced=None):
    """`padding`: how many bytes, or which."""
    length = len(content) if announced is None else announced
    padding = bytes(padding)
    return struct.pack('>BBHHBx', version, kind, request_id, length, len(padding)) + content + padding


def begin(keep=False, role=RESPONDER, request_id=1):
    return record(BEGIN, struct.pack('>HB5x', role, KEEP_CONN if keep else 0), request_id)


def length(number):
    return bytes([number]) if number < 128 else struct.pack('>I', number | 0x80000000)


def pair(name, value):
    return length(len(name)) + length(len(value)) + name + value


def stream(kind, content, request_id=1, size=65535, padding=0):
    """The records of a whole stream, with the empty one that ends it and that, as nginx's, has no padding."""
    pieces = [content[at:at + size] for at in range(0, len(content), size)]
    return b''.join(record(kind, piece, request_id, padding=padding) for piece in pieces) + record(kind, b'',
                                                                                                   request_id)


def params(method, uri, body=b'', **more):
    values = {'REQUEST_METHOD': method, 'REQUEST_URI': uri, 'QUERY_STRING': uri.partition('?')[2],
              'CONTENT_TYPE': 'application/json' if body else '', 'CONTENT_LENGTH': str(len(body)) if body else '',
              'REMOTE_ADDR': '127.0.0.1', 'SERVER_PROTOCOL': 'HTTP/1.1', 'REQUEST_ID': 'by-hand', **more}
    return b''.join(pair(name.encode(), value.encode()) for name, value in values.items())


def request(method, uri, body=b'', keep=False, request_id=1, size=65535, padding=0, **more):
    """The bytes of one request, as nginx would send them."""
    return (begin(keep, request_id=request_id)
            + stream(PARAMS, params(method, uri, body, **more), request_id, size, padding)
            + stream(STDIN, body, request_id, size, padding))


class Link:
    """One connection to a worker: by the path of its socket, or by its port."""

    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(path, str) else socket.AF_INET)
        # Blocking, with the kernel's timeouts: with Python's own, a send waits until the buffer is mostly empty.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(socket.SOL_SOCKET, option, struct.pack('@ll', timeout, 0))
        self.socket.connect(path if isinstance(path, str) else ('127.0.0.1', path))

    def send(self, data):
        self.socket.sendall(data)

    def send_what_goes(self, data):
        """Whether all of it went: the worker may have had enough before."""
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def exactly(self, count):
        data = b''
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError('closed after %d of %d bytes' % (len(data), count))
            data += piece
        return data

    def answer(self, request_id=1):
        """(status, headers, body) of one answer, whose records must be well-formed."""
        out = b''
        ended = set()
        while True:
            version, kind, got_id, size, padding = struct.unpack('>BBHHBx', self.exactly(8))
            content = self.exactly(size + padding)[:size]
            assert (version, got_id) == (1, request_id)
            if kind == END:
                assert content[:5] == b'\0\0\0\0\0'  # exit status 0, request complete
                assert STDOUT in ended
                break
            assert kind in (STDOUT, STDERR) and kind not in ended
            if size == 0:
                ended.add(kind)
            elif kind == STDOUT:
                out += content
        head, _, body = out.partition(b'\r\n\r\n')
        headers = dict(line.split(': ', 1) for line in head.decode().split('\r\n'))
        return int(headers.pop('Status').split()[0]), headers, body

    def until_closed(self):
        """All that comes until the worker closes."""
        data = b''
        try:
            while piece := self.socket.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
        return data

    def is_closed(self):
        """Waits for the worker to close; False when it sends something instead."""
        try:
            return self.socket.recv(1) == b''
        except ConnectionResetError:
            return True

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def worker_socket(stack, number=0):
    return os.path.join(stack.run_dir, 'worker-%d.sock' % number)


def ask(path, method, uri, body=b''):
    """One request on a connection of its own."""
    with Link(path) as link:
        link.send(request(method, uri, body))
        answer = link.answer()
        assert link.is_closed()
    return answer
