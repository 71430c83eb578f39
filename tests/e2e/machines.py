"""
Machines of a test's own: network namespaces on a bridge, whose cables can be pulled. This machine has the bridge's first
address. Needs root and iproute2.
"""
import os
import random
import subprocess

from service import Service


def possible():
    """Whether namespaces can be made here."""
    if os.geteuid() != 0:
        return False
    name = 'cz-try-%d' % os.getpid()
    try:
        made = subprocess.run(['ip', 'netns', 'add', name], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False
    if made:
        subprocess.run(['ip', 'netns', 'del', name], check=True)
    return made


def ip(*words):
    subprocess.run(('ip',) + words, check=True)


class Network:
    """A bridge and the machines on it, gone when closed."""

    def __init__(self):
        for number in random.sample(range(1, 250), 20):  # other tests may have made one of them
            self.prefix = '10.213.%d.' % number
            self.bridge = 'czb%d' % number
            if subprocess.run(['ip', 'link', 'add', self.bridge, 'type', 'bridge'], check=False).returncode == 0:
                break
        else:
            raise AssertionError('no bridge can be made')
        self.names = []
        ip('addr', 'add', self.prefix + '1/24', 'dev', self.bridge)
        ip('link', 'set', self.bridge, 'up')

    address = property(lambda self: self.prefix + '1')

    def add(self):
        """The name of a new machine, which is its namespace; see address_of()."""
        name = '%sm%d' % (self.bridge, len(self.names) + 2)
        self.names.append(name)
        ip('netns', 'add', name)
        ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
        ip('link', 'set', name, 'master', self.bridge, 'up')
        ip('-n', name, 'addr', 'add', self.address_of(name) + '/24', 'dev', 'eth0')
        ip('-n', name, 'link', 'set', 'eth0', 'up')
        ip('-n', name, 'link', 'set', 'lo', 'up')
        return name

    def address_of(self, name):
        return self.prefix + name.rsplit('m', 1)[1]

    def pull(self, name):
        """Its cable: nothing arrives there or comes from there, and nobody is told."""
        ip('link', 'set', name, 'down')

    def plug(self, name):
        ip('link', 'set', name, 'up')

    def close(self):
        for name in self.names:
            ip('netns', 'del', name)
        ip('link', 'del', self.bridge)


class Remote(Service):
    """env/service on a machine of the network."""

    def __init__(self, machine, **settings):
        super().__init__(name='cz-', **settings)
        self.prefix = ['ip', 'netns', 'exec', machine]
