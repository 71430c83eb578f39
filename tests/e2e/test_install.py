"""`make install` and `make uninstall`: what goes where, and what systemd's own checkers say of the units."""
import os
import re
import stat
import subprocess
import tempfile

import pytest

from install import CHATD, files_below, make, read
from service import TOP
from test_settings_docs import helped

UNITS = ('coze-chat.service', 'coze-chat-nginx.service')


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp('tree'))
    make('install', 'DESTDIR=' + directory)
    return directory


def test_everything_that_an_installed_system_needs_is_there(tree):
    files = files_below(tree)
    for path, mode in {
            'usr/local/bin/coze-chatd': 0o755,
            'usr/local/share/coze-chat/nginx/render': 0o755,
            'usr/local/share/coze-chat/nginx/prepare': 0o755,
            'usr/local/share/coze-chat/nginx/nginx.conf.in': 0o644,
            'usr/local/share/doc/coze-chat/README.md': 0o644,
            'usr/local/share/doc/coze-chat/example.env': 0o644,
            'usr/local/lib/systemd/system/coze-chat.service': 0o644,
            'usr/local/lib/systemd/system/coze-chat-nginx.service': 0o644,
            'usr/local/lib/sysusers.d/coze-chat.conf': 0o644,
            'usr/local/lib/tmpfiles.d/coze-chat.conf': 0o644,
            'etc/logrotate.d/coze-chat': 0o644,
            'etc/coze-chat/coze-chat.env': 0o640}.items():
        assert files.pop(path, None) == mode, path
    assert not [path for path in files if not path.startswith(('usr/local/share/coze-chat/', 'usr/local/share/doc/'))]
    for path in files_below(os.path.join(TOP, 'nginx')):
        if path != 'entry' and not path.startswith('node_modules/'):  # which is the container's
            assert read(TOP, 'nginx', path) == read(tree, 'usr/local/share/coze-chat/nginx', path)


def test_of_the_code_of_others_only_what_is_served_is_installed(tree):
    served = set(re.findall(rb'@FILES@/node_modules/([^/"]+)/', read(TOP, 'nginx', 'static.conf.in')))
    installed = [path.split('/node_modules/')[1] for path in files_below(tree) if '/node_modules/' in path]
    assert served and {path.split('/')[0].encode() for path in installed} == served
    assert 'markdown-it/dist/browser/markdown-it.esm.min.mjs' in installed and 'markdown-it/LICENSE' in installed
    assert len(installed) <= 5 * len(served)


def test_no_name_is_left_open_and_no_file_knows_where_it_was_built(tree):
    for path in files_below(tree):
        text = read(tree, path)
        assert TOP.encode() not in text and tree.encode() not in text, path
        if not path.startswith('usr/local/share/') and path != 'usr/local/bin/coze-chatd':
            assert not re.search(rb'@[A-Za-z_]+@', text), path


def test_the_directories_are_the_callers_to_choose(tmp_path):
    make('install', 'DESTDIR=%s' % tmp_path, 'PREFIX=/opt/chat', 'bindir=/opt/chat/sbin', 'sysconfdir=/opt/etc',
         'systemdunitdir=/opt/units')
    assert {path.split('/')[0] for path in files_below(str(tmp_path))} == {'opt'}
    assert (tmp_path / 'opt/chat/sbin/coze-chatd').exists()
    for unit in UNITS:
        text = (tmp_path / 'opt/units' / unit).read_text()
        assert '/usr/local' not in text and '/opt/chat/sbin/coze-chatd' in text
        assert 'SETTINGS_FILE=/opt/etc/coze-chat/coze-chat.env' in text


def test_an_ordinary_user_installs_the_same_as_root(tree):
    if os.geteuid() != 0:
        pytest.skip('is run by an ordinary user anyway')
    nobody = ('setpriv', '--reuid=65534', '--regid=65534', '--clear-groups')
    if subprocess.run([*nobody, 'test', '-r', CHATD]).returncode != 0:
        pytest.skip('the tree is closed to other users')
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        theirs = home + '/tree'
        make('install', 'DESTDIR=' + theirs, user=nobody)
        assert files_below(theirs) == files_below(tree)
        assert all(read(theirs, path) == read(tree, path) for path in files_below(tree))


def test_what_the_administrator_wrote_survives_install_and_uninstall(tmp_path):
    destination = 'DESTDIR=%s' % tmp_path
    make('install', destination)
    settings = tmp_path / 'etc/coze-chat/coze-chat.env'
    settings.write_text('COZE_BOT_ID=1\n')
    make('install', destination)
    assert settings.read_text() == 'COZE_BOT_ID=1\n'
    assert 'coze-chat.env' in make('uninstall', destination)
    assert list(files_below(str(tmp_path))) == ['etc/coze-chat/coze-chat.env']


def test_uninstall_leaves_nothing_of_an_untouched_installation(tmp_path):
    make('install', 'DESTDIR=%s' % tmp_path)
    make('uninstall', 'DESTDIR=%s' % tmp_path)
    assert files_below(str(tmp_path)) == {}
    assert not (tmp_path / 'etc/coze-chat').exists()


def test_the_installed_settings_are_settings(tree):
    names = re.findall(rb'^#?([A-Z_]+)=', read(tree, 'etc/coze-chat/coze-chat.env'), re.M)
    assert names and {name.decode() for name in names} <= set(helped())


def test_systemd_finds_no_fault_with_the_units_and_little_exposed(tmp_path):
    """In tenths: 100 is everything; Debian's own nginx has 96, its Redis 12."""
    make('install', 'PREFIX=%s/usr' % tmp_path, 'sysconfdir=%s/etc' % tmp_path)
    for unit, most in zip(UNITS, (12, 16)):
        path = '%s/usr/lib/systemd/system/%s' % (tmp_path, unit)
        done = subprocess.run(['systemd-analyze', 'verify', path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=60)
        assert done.returncode == 0 and unit not in done.stdout, done.stdout
        done = subprocess.run(['systemd-analyze', 'security', '--offline=true', '--threshold=%d' % most, '--no-pager', path],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('tool, kind', [('systemd-sysusers', 'sysusers'), ('systemd-tmpfiles', 'tmpfiles')])
def test_systemd_makes_user_and_directories(tree, tmp_path, tool, kind):
    if os.geteuid() != 0:
        pytest.skip('needs root')
    root = tmp_path / 'root'
    (root / 'etc').mkdir(parents=True)
    (root / 'etc/passwd').write_text('root:x:0:0:root:/root:/bin/sh\ncoze-chat:x:995:995::/:/usr/sbin/nologin\n'
                                     if kind == 'tmpfiles' else 'root:x:0:0:root:/root:/bin/sh\n')
    (root / 'etc/group').write_text('root:x:0:\ncoze-chat:x:995:\n' if kind == 'tmpfiles' else 'root:x:0:\n')
    flags = ['--create'] if kind == 'tmpfiles' else []
    for _ in range(2):  # it is run at each boot
        done = subprocess.run([tool, '--root=%s' % root, *flags, '%s/usr/local/lib/%s.d/coze-chat.conf' % (tree, kind)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
    if kind == 'sysusers':
        assert re.search(r'^coze-chat:.*:/usr/sbin/nologin$', (root / 'etc/passwd').read_text(), re.M)
        assert 'coze-chat:' in (root / 'etc/group').read_text()
    else:
        run = root / 'run/coze-chat'
        assert (stat.S_IMODE(run.stat().st_mode), run.stat().st_uid, run.stat().st_gid) == (0o750, 995, 995)
        assert os.readlink(run / 'logs') == '/var/log/coze-chat' and os.readlink(run / 'tmp') == '/var/cache/coze-chat'
        assert (root / 'var/log/coze-chat').is_dir() and (root / 'var/cache/coze-chat').is_dir()
