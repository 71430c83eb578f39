"""What `make install` makes, for tests: never built anew, as the program under test may be one of other flags."""
import os
import subprocess

from service import TOP

CHATD = os.path.abspath(os.environ.get('CHATD', os.path.join(TOP, 'build', 'coze-chatd')))


def make(target, *variables, user=()):
    """Runs make with nothing of the caller's make; `user` are words put before it."""
    env = {name: os.environ[name] for name in ('PATH', 'HOME', 'LANG') if name in os.environ}
    build = os.path.dirname(CHATD)
    done = subprocess.run([*user, 'make', '-C', TOP, '-o', build + '/coze-chatd', target, 'BUILD=' + build, *variables],
                          env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout
    return done.stdout


def files_below(directory):
    """{path within it: mode}, of files only."""
    found = {}
    for here, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(here, name)
            found[os.path.relpath(path, directory)] = os.stat(path).st_mode & 0o777
    return found


def read(*path):
    with open(os.path.join(*path), 'rb') as file:
        return file.read()
