"""
Shared stacks: starting one takes a quarter of a second, so tests that only talk to it share it.
Every answer that any test gets is held against the API document (contract.py).
"""
import pytest

import contract
from stack import Stack

contract.watch()

# These run nearly all of the code there is, in little time: .ci/run has them with sanitizers, too.
SMOKE = {'test_%s' % name for name in (
    'delivery', 'fastcgi', 'oddities', 'sessions', 'stream', 'tls')}


def pytest_configure(config):
    config.addinivalue_line('markers', 'smoke: runs much of the code in little time')
    config.addinivalue_line('markers', 'alone: what it measures, or how much it works, bears no other test beside it')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SMOKE:
            item.add_marker('smoke')


@pytest.fixture(scope='session')
def shared_stack():
    with Stack().start() as stack:
        yield stack


@pytest.fixture
def stack(shared_stack):
    """The shared stack with a simulator that has forgotten everything. Not for tests that break it."""
    shared_stack.sim.reset()
    return shared_stack


def stacks():
    made = []

    def make(**options):
        made.append(Stack(**options))
        return made[-1].start()

    yield make
    failed = []
    for stack in made:
        try:
            stack.close()
        except AssertionError as error:  # the others must be closed, too
            failed.append(error)
    assert not failed, failed


@pytest.fixture
def make_stack():
    """Starts stacks of the test's own: make_stack(tls=True, WORKERS='1', sim={'SIM_GAP_MS': 20})."""
    yield from stacks()


@pytest.fixture(scope='module')
def make_module_stack():
    """The same for stacks that all tests of a file share."""
    yield from stacks()
