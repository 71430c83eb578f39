"""SECURITY.md promises nothing that no test holds: each promise names tests that exist."""
import os
import re

import pytest

from service import TOP
from test_settings_docs import helped, read


def section(title):
    return re.search(r'\n## %s\n(.*?)(?=\n## |\Z)' % title, read('SECURITY.md'), re.S)[1]


def rows(title):
    """The cells of a table's rows, without its head."""
    lines = re.findall(r'^\|(.*)\|$', section(title), re.M)
    return [[cell.strip() for cell in line.split(' | ')] for line in lines[2:]]


PROMISES = rows('What is promised')


def test_there_are_promises():
    assert len(PROMISES) > 15
    assert len({promise for promise, _ in PROMISES}) == len(PROMISES)


@pytest.mark.parametrize('promise, held', PROMISES, ids=[promise[:50] for promise, _ in PROMISES])
def test_a_promise_is_held_by_tests_that_exist(promise, held):
    named = re.findall(r'`([^`]*)`', held)
    assert named and re.sub(r'`[^`]*`', '', held).strip(', ') == '', 'not only tests, or none: ' + held
    for one in named:
        path, _, function = one.partition('::')
        assert re.match(r'tests/(e2e/test_\w+\.py|unit/test_\w+\.c|fuzz/fuzz_\w+\.c)\Z', path), one
        assert os.path.isfile(os.path.join(TOP, path)), one
        assert not function or re.search(r'^def %s\(' % function, read(path), re.M), one


def test_every_word_for_a_setting_is_one():
    named = set(re.findall(r'`([A-Z]+_[A-Z_]+)(?:=\w+)?`', read('SECURITY.md')))
    assert len(named) > 8 and named <= set(helped())


def test_it_is_found_and_says_how_to_report():
    assert '](SECURITY.md)' in read('README.md')
    assert 'Report a vulnerability' in section('Reporting')
    assert not re.search(r'\S@\S|https?://', read('SECURITY.md')), 'an address that somebody would have to keep'
