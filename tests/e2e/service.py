"""
Runs env/service for tests: a RUN_DIR and a port of its own for each, nothing of the caller's settings.
CHATD and CHATD_WRAPPER of the environment choose the worker's binary, as they do for env/service itself.
"""
import collections
import itertools
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(TOP, 'env', 'service')
KEPT = ('PATH', 'HOME', 'LANG', 'CHATD', 'CHATD_WRAPPER', 'ASAN_OPTIONS', 'UBSAN_OPTIONS')


ports = itertools.cycle(range(10000, 20000))
for _ in range(random.randrange(10000)):  # other test runs begin elsewhere
    next(ports)
taken = collections.deque(maxlen=200)  # by the time that one falls out, its port is listened on


def free_port():
    """
    Not one that the kernel takes for outgoing connections: one of them could have it before it is listened on. Nor one of
    another test run beside this: who has a port keeps it by its UDP twin, which nobody else here uses.
    """
    for port in ports:
        twin = socket.socket(type=socket.SOCK_DGRAM)
        with socket.socket() as probe:
            try:
                twin.bind(('127.0.0.1', port))
                probe.bind(('127.0.0.1', port))
            except OSError:
                twin.close()
                continue
        taken.append(twin)
        return port


def is_alive(pid):
    """Zombies are dead: in a container nobody may come to reap them."""
    try:
        with open('/proc/%d/stat' % pid) as stat:
            return stat.read().rsplit(') ', 1)[1][0] not in 'ZX'
    except OSError:
        return False


# What messages to the simulator and its answers have in common.
TEXTS = [text.encode() for text in ('sim:{', '收到：“', '扣子 Coze 😀', '这是本次会话的第')]


def secrets_of(env):
    """The secrets among settings, but for those too short to be told from other text."""
    keys = [key.strip() for name in ('API_KEYS', 'ADMIN_API_KEYS') for key in env.get(name, '').split(',')]
    password = re.fullmatch(r'redis://[^@]*:([^@]*)@.*', env.get('REDIS_URL', ''))
    found = [env.get('COZE_API_TOKEN', ''), env.get('REDIS_SENTINEL_PASSWORD', ''), password.group(1) if password else '', *keys]
    return [secret.encode() for secret in found if len(secret) >= 8]


def leaks_below(directory, secrets, texts):
    """
    [(file, what)] of all files in which something is that nobody may read there. The settings are allowed in state/, for
    their owner only; the bundled simulator may do as it likes.
    """
    found = []
    for here, directories, names in os.walk(directory):
        if here == directory and 'coze_sim' in directories:
            directories.remove('coze_sim')
        for name in names:
            path = os.path.join(here, name)
            if not os.path.isfile(path):
                continue
            with open(path, 'rb') as file:
                data = file.read()
            ours = here == os.path.join(directory, 'state') and os.stat(path).st_mode & 0o077 == 0
            found += [(path, what) for what in ([] if ours else secrets) + texts if what in data]
    return found


class Service:
    """One RUN_DIR. Settings are environment variables; `env_file` is the text of a .env."""

    all_ports = set()  # of every service that these tests made
    on_answer = staticmethod(lambda method, target, status, headers, body: None)  # contract.py puts itself here

    def __init__(self, name='cz run ', env_file='', **settings):
        self.home = tempfile.mkdtemp(prefix=name)  # short: pytest's own directories are too long for a unix socket
        self.run_dir = os.path.join(self.home, 'run')
        self.port = free_port()
        self.all_ports.add(self.port)
        self.env_file = os.path.join(self.home, 'env')
        self.write_env(env_file)
        self.env = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.env.update(RUN_DIR=self.run_dir, SERVER_HOST='127.0.0.1', SERVER_PORT=str(self.port),
                        ENV_FILE=self.env_file, WORKERS='2')
        self.prefix = []  # words before the script's
        self.set(**settings)

    def set(self, **settings):
        for name, value in settings.items():
            if value is None:
                self.env.pop(name, None)
            else:
                self.env[name] = str(value)

    def write_env(self, text):
        with open(self.env_file, 'wb') as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def call(self, command, **options):
        return subprocess.run(self.prefix + [SCRIPT, command], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=180, **options)

    def up(self):
        done = self.call('up')
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def reload(self):
        done = self.call('reload')
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self):
        done = self.call('down')
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pids(self):
        """What env/service remembers to have started and still runs, by part."""
        pids = {}
        for part in ('redis', 'workers', 'nginx'):
            try:
                with open(os.path.join(self.run_dir, 'state', part)) as file:
                    pid = int(file.read().split()[0])
            except OSError:
                continue
            if is_alive(pid):
                pids[part] = pid
        return pids

    def processes(self):
        """Every process that has a file of this RUN_DIR open, or names it in its arguments."""
        found = set()
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open('/proc/%s/cmdline' % pid, 'rb') as file:
                    words = file.read().decode(errors='replace')
                files = [os.readlink('/proc/%s/fd/%s' % (pid, fd)) for fd in os.listdir('/proc/%s/fd' % pid)]
            except OSError:
                continue
            if self.run_dir in words or any(name.startswith(self.run_dir + '/') for name in files):
                if is_alive(int(pid)):
                    found.add(int(pid))
        return found

    def get(self, path):
        """(status, headers, body) of a GET; errors are answers too."""
        try:
            with urllib.request.urlopen('http://127.0.0.1:%d%s' % (self.port, path), timeout=20) as answer:
                got = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            got = error.code, error.headers, error.read()
        self.on_answer('GET', path, got[0], got[1].items(), got[2])
        return got

    def raw(self, request):
        """Sends bytes as they are; returns (status, headers, body) of the answer, until nginx closes."""
        with socket.create_connection(('127.0.0.1', self.port), timeout=20) as link:
            link.sendall(request)
            answer = b''
            try:
                while True:
                    piece = link.recv(65536)
                    if not piece:
                        break
                    answer += piece
            except ConnectionResetError:  # nginx did not want to read all that was sent
                pass
        head, _, body = answer.partition(b'\r\n\r\n')
        lines = head.decode('latin-1').split('\r\n')
        match = re.match(r'HTTP/1\.1 (\d{3}) ', lines[0])
        assert match, answer[:200]
        headers = [tuple(line.split(': ', 1)) for line in lines[1:]]
        asked = re.match(rb'([A-Z]+) (/[!-~]*) HTTP/1\.[01]\r\n', request)
        if asked:
            whole = ('Content-Length', str(len(body))) in headers
            self.on_answer(asked[1].decode(), asked[2].decode(), int(match.group(1)), headers, body if whole else None)
        return int(match.group(1)), headers, body

    def stop_all(self):
        self.down()

    def close(self):
        """Stops all. Whatever a test was about: no secret and no message may have got into any file."""
        leaks = []
        try:
            self.stop_all()
            leaks = leaks_below(self.run_dir, secrets_of(self.env), TEXTS)
        finally:
            shutil.rmtree(self.home, ignore_errors=True)
        assert not leaks, 'secrets or message texts in files: %s' % leaks

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
