"""
Where and when something was measured: what makes figures comparable, or not.
"""
import datetime
import importlib.metadata
import os
import re
import subprocess

from servers import TOP

VERSIONS = {'nginx': (['nginx', '-v'], r'nginx/(\S+)'), 'redis': (['redis-server', '--version'], r'v=(\S+)'),
            'libcurl': (['pkg-config', '--modversion', 'libcurl'], r'(\S+)'), 'gcc': (['gcc', '-dumpfullversion'], r'(\S+)'),
            'wrk': (['wrk', '-v'], r'wrk (?:debian/)?(\S+)'), 'valgrind': (['valgrind', '--version'], r'valgrind-(\S+)'),
            'python': (['/usr/bin/python3', '--version'], r'Python (\S+)')}

PACKAGES = ('fastapi', 'httpx', 'uvicorn', 'uvloop', 'redis')


def said(words, pattern):
    env = {**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'}
    try:
        text = subprocess.run(words, env=env, cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=20).stdout
    except OSError:
        return None
    match = re.search(pattern, text)
    return match and match[1]


def cpu_model():
    with open('/proc/cpuinfo') as file:
        match = re.search(r'^model name\s*: (.*)$', file.read(), re.M)
    return match[1] if match else os.uname().machine


def facts():
    return {'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'), 'cpu': cpu_model(),
            'cores': os.cpu_count(), 'kernel': os.uname().release,
            'memory_mib': os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20,
            'commit': said(['git', 'describe', '--always', '--dirty'], r'^(\S+)$'),
            'load_average': round(os.getloadavg()[0], 2),
            'versions': {**{name: said(*how) for name, how in VERSIONS.items()},
                         **{name + ' (Python)': importlib.metadata.version(name) for name in PACKAGES}}}


def sentence(known):
    versions = ', '.join('%s %s' % pair for pair in known['versions'].items() if pair[1])
    return '%s, commit %s, on %d × %s, %d GiB, Linux %s; %s.' % (
        known['date'][:10], known['commit'], known['cores'], known['cpu'], round(known['memory_mib'] / 1024), known['kernel'], versions)
