"""
nginx alone, as nginx/render configures it, with workers that a test plays itself: what they were asked, and what they do.
"""
import http.client
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time

from fastcgi import BEGIN, END, KEEP_CONN, PARAMS, STDIN, STDOUT, record
from service import TOP, free_port

OUTSIDER = '203.0.113.9'


def parse_pairs(data):
    pairs = {}

    def length():
        nonlocal data
        if data[0] < 128:
            size, data = data[0], data[1:]
        else:
            size, data = struct.unpack('>I', data[:4])[0] & 0x7fffffff, data[4:]
        return size
    while data:
        name_size, value_size = length(), length()
        name, value, data = data[:name_size], data[name_size:name_size + value_size], data[name_size + value_size:]
        assert name.decode() not in pairs, 'nginx sent %s twice' % name
        pairs[name.decode()] = value.decode('utf-8', 'surrogateescape')
    return pairs


def echo(worker, params):
    """Says what was asked, as JSON."""
    return 'Status: 200\r\nContent-Type: application/json\r\n\r\n' + json.dumps({'worker': worker.name, **params})


class FakeWorker:
    """A FastCGI server at a socket's path or a (host, port). `answer(worker, params)` returns the CGI answer; None: it
    closes the connection without one."""

    def __init__(self, address, answer=echo, name=''):
        self.address, self.answer, self.name = address, answer, name
        self.asked = []  # the parameters of each request that it has read
        self.connections = 0
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(address)
        self.socket.listen(1024)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                link = self.socket.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(link,), daemon=True).start()

    def serve(self, link):
        with link, link.makefile('rb') as file:
            keep = True
            while keep:
                params, keep = self.read(file)
                if params is None:
                    return
                self.asked.append(params)
                text = self.answer(self, params)
                if text is None:
                    return
                try:
                    link.sendall(record(STDOUT, text.encode()) + record(STDOUT) + record(END, b'\0' * 8))
                except OSError:
                    return

    @staticmethod
    def read(file):
        params, keep = b'', False
        while True:
            head = file.read(8)
            if len(head) < 8:
                return None, False
            _, kind, _, size, padding = struct.unpack('>BBHHBx', head)
            content = file.read(size + padding)[:size]
            if kind == BEGIN:
                keep = bool(content[2] & KEEP_CONN)
            elif kind == PARAMS:
                params += content
            elif kind == STDIN and size == 0:
                return parse_pairs(params), keep

    def close(self):
        """Nobody listens here any more."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Hole:
    """A TCP address whose kernel answers nobody, as that of a machine that was cut off: its queue is full."""

    def __init__(self, host):
        self.socket = socket.socket()
        self.socket.bind((host, 0))
        self.socket.listen(0)
        self.address = self.socket.getsockname()
        self.links = []
        for _ in range(4):
            link = socket.socket()
            link.setblocking(False)
            link.connect_ex(self.address)
            self.links.append(link)

    def close(self):
        for link in self.links:
            link.close()
        self.socket.close()


class Front:
    """nginx with `workers` fake workers on its unix sockets, or with those of WORKER_ADDRESSES. `edit` changes the text of
    its configuration, for times that a test cannot wait."""

    def __init__(self, workers=1, answer=echo, edit=None, **settings):
        self.home = tempfile.mkdtemp(prefix='cz-front-')
        self.port, self.tls_port = free_port(), free_port()
        self.env = {'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin', 'RUN_DIR': self.home, 'WORKERS': str(max(workers, 1)),
                    'SERVER_HOST': '127.0.0.1', 'SERVER_PORT': str(self.port), 'TLS_PORT': str(self.tls_port),
                    'MAX_REQUEST_SIZE': '100000', 'ALLOWED_ORIGINS': '*', 'LOG_FORMAT': 'text'}
        self.env.update({name: str(value) for name, value in settings.items()})
        self.workers = [FakeWorker('%s/worker-%d.sock' % (self.home, number), answer, str(number))
                        for number in range(workers)]
        self.edit = edit or (lambda text: text)
        self.process = None

    def render(self):
        return subprocess.run([os.path.join(TOP, 'nginx', 'render')], env=self.env, check=True, stdout=subprocess.PIPE,
                              text=True, timeout=20).stdout

    def start(self):
        for name in ('logs', 'tmp'):
            os.mkdir(os.path.join(self.home, name))
        with open(os.path.join(self.home, 'nginx.conf'), 'w') as file:
            file.write(self.edit(self.render()))
        self.process = subprocess.Popen(
            ['nginx', '-p', self.home + '/', '-e', self.home + '/logs/start.log', '-c', self.home + '/nginx.conf',
             '-g', 'daemon off;'], env=self.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not os.path.exists(self.home + '/nginx.pid') or not self.listens():
            assert self.process.poll() is None and time.monotonic() < end, self.log('start.log')
            time.sleep(0.01)
        return self

    def listens(self):
        try:
            socket.create_connection((self.connect_host, self.port), timeout=5).close()
            return True
        except OSError:
            return False

    @property
    def connect_host(self):
        return {'::': '127.0.0.1', '0.0.0.0': '127.0.0.1'}.get(self.env['SERVER_HOST'], self.env['SERVER_HOST'])

    def log(self, name):
        try:
            with open('%s/logs/%s' % (self.home, name), encoding='utf-8') as file:
                return file.read()
        except FileNotFoundError:
            return ''

    def ask(self, path, method='GET', body=None, headers=None, source=None, tls=False, port=None, forwarded=None):
        """An Answer. `source`: the client's address; `forwarded`: its X-Forwarded-For."""
        headers = dict(headers or {})
        if forwarded is not None:
            headers['X-Forwarded-For'] = forwarded
        options = {'timeout': 20, 'source_address': (source, 0) if source else None}
        if tls:
            link = http.client.HTTPSConnection('127.0.0.1', self.tls_port, context=trust_all(), **options)
        else:
            link = http.client.HTTPConnection(self.connect_host, port or self.port, **options)
        try:
            link.request(method, path, body, headers)
            return Answer(link.getresponse())
        finally:
            link.close()

    def raw(self, request, port=None):
        """Sends bytes as they are; what comes back until nginx closes."""
        with socket.create_connection((self.connect_host, port or self.port), timeout=20) as link:
            link.sendall(request)
            answer = b''
            try:
                while piece := link.recv(65536):
                    answer += piece
            except ConnectionResetError:  # nginx did not want to read all that was sent
                pass
        return answer

    def close(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for worker in self.workers:
            worker.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()


class Answer:
    def __init__(self, answer):
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    def json(self):
        return json.loads(self.body)

    @property
    def detail(self):
        assert self.headers.get_all('Content-Type') == ['application/json'], self.body
        return self.json()['detail']


def trust_all():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def make_certificate(home, name='server'):
    """(certificate, key) for localhost, signed by itself."""
    cert, key = '%s/%s.pem' % (home, name), '%s/%s.key' % (home, name)
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
                    '-keyout', key, '-out', cert, '-subj', '/CN=localhost',
                    '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return cert, key
