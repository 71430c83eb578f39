"""The example settings, the README and the program's own help name the same variables, with the same defaults."""
import os
import re
import subprocess

from service import TOP

CHATD = os.environ.get('CHATD', os.path.join(TOP, 'build', 'coze-chatd'))


def read(*path):
    with open(os.path.join(TOP, *path), encoding='utf-8') as file:
        return file.read()


def helped():
    """{name: default} of --help; the default is what its last parentheses hold."""
    text = subprocess.run([CHATD, '--help'], stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = re.findall(r'^  ([A-Z_]+) +(.*)$', text, re.M)
    return {name: (re.search(r' \(([^()]*)\)$', line) or [None, ''])[1] for name, line in lines}


def test_the_example_has_every_setting_and_no_other():
    example = dict(re.findall(r'^#?([A-Z_]+)=(.*)$', read('env', 'example.env'), re.M))
    assert sorted(example) == sorted(helped())
    assert {name: value for name, value in example.items() if value} == \
        {name: value for name, value in helped().items() if value}


def test_the_readme_names_only_settings_that_exist():
    table = re.search(r'\n## Configuration\n(.*?)\n## ', read('README.md'), re.S)[1]
    named = set(re.findall(r'`([A-Z]+_[A-Z_]+|WORKERS)`', ''.join(re.findall(r'^\|.*\|$', table, re.M))))
    assert named and named <= set(helped())
