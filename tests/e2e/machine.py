"""
A machine of its own that boots systemd, for what only systemd can show: this one's root directory under an overlay in memory,
in namespaces, without a network, and with this tree to read. What is done there never touches the real one. Needs root and
systemd-nspawn.
"""
import os
import shutil
import signal
import subprocess

from install import CHATD, make, read
from service import TOP
from stack import wait_for

SCRIPT = '''
mount -t tmpfs -o size=2g tmpfs "$1" && mkdir "$1/upper" "$1/work" "$1/root" || exit 77
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root" || exit 77
exec setpriv --pdeathsig TERM systemd-nspawn --quiet --register=no --keep-unit --private-network --link-journal=no \\
    --console=pipe --directory="$1/root" --bind-ro="$2" --boot -- --unit=basic.target
'''


def why_not():
    """Why no machine can be made here; None if one can, as far as one can tell before."""
    if os.geteuid() != 0:
        return 'needs root'
    if shutil.which('systemd-nspawn') is None:
        return 'needs systemd-nspawn'
    if b'__asan_init' in read(CHATD):
        return 'a sanitizer does what the sandbox forbids'
    return None


class Machine:
    def __init__(self, home):
        self.home = home
        self.console = open(os.path.join(home, 'console'), 'wb+')
        place = os.path.join(home, 'machine')
        os.mkdir(place)
        words = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', SCRIPT, 'sh', place, TOP]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.console, stderr=subprocess.STDOUT)
        self.init = None

    def boot(self):
        """Waits until it is up; False when it cannot be had here."""
        def booted():
            if self.process.poll() is not None:
                return True
            self.init = self.child()
            return self.init and self.run('systemctl', 'is-active', 'basic.target', check=False).returncode == 0
        wait_for(booted, 60, 'the boot')
        return self.process.poll() is None

    def child(self):
        with open('/proc/%d/task/%d/children' % (self.process.pid, self.process.pid)) as file:
            children = file.read().split()
        return int(children[0]) if children else None

    def output(self):
        return read(self.home, 'console').decode(errors='replace')

    def run(self, *words, check=True, **options):
        done = subprocess.run(['nsenter', '--target', str(self.init), '--all', *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **options)
        assert not check or done.returncode == 0, '%s: %s' % (' '.join(words), done.stdout)
        return done

    def start(self, *words):
        """The same, going on beside the test."""
        return subprocess.Popen(['nsenter', '--target', str(self.init), '--all', *words], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def path(self, path):
        """A file of the machine's, as this side sees it."""
        return '/proc/%d/root%s' % (self.init, path)

    def install(self):
        make('install', 'DESTDIR=' + self.path('/').rstrip('/'))
        self.run('systemd-sysusers')
        self.run('systemd-tmpfiles', '--create', 'coze-chat.conf')
        self.run('systemctl', 'daemon-reload')

    def property(self, unit, name):
        return self.run('systemctl', 'show', '--property=' + name, '--value', unit).stdout.strip()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # shuts the machine down
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.console.close()
